//! Everything that is bounded, how much of it one client may have, and who gives way: the numbers that the
//! code goes by, and the words for them.

use strum::Display;

/// Something of which there is no more than so much.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// What it is.
    pub thing: Thing,
    /// How much there is, where that is a number, and what `bound` says in its place.
    pub all: usize,
    /// The bound, in words.
    pub bound: &'static str,
    /// How much one client has at most, and what `share` says in its place.
    pub of_one: usize,
    /// The share of one client, in words.
    pub share: &'static str,
    /// Who gives way where there is none left.
    pub gives_way: &'static str,
}

/// What is bounded.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq)]
pub enum Thing {
    /// Connections.
    #[strum(to_string = "connections")]
    Places,
    /// Connections whose client has not sent its request.
    #[strum(to_string = "connections without a request")]
    Pending,
    /// Descriptors of UDP associations beyond those of their place.
    #[strum(to_string = "descriptors")]
    Descriptors,
    /// Ports of `--udp-ports`.
    #[strum(to_string = "UDP ports")]
    UdpPorts,
    /// Name lookups that run at once.
    #[strum(to_string = "name lookups at once")]
    Lookups,
    /// Names that are remembered.
    #[strum(to_string = "remembered names")]
    RememberedNames,
    /// Connections through an upstream.
    #[strum(to_string = "connections through an upstream")]
    UpstreamConnections,
    /// Wrong passwords that are remembered.
    #[strum(to_string = "wrong passwords")]
    Passwords,
    /// Passwords that are compared with hashes at once.
    #[strum(to_string = "passwords compared with hashes at once")]
    Verifications,
    /// Lines of the log.
    #[strum(to_string = "lines in the log")]
    LogLines,
    /// Visitors of the status page.
    #[strum(to_string = "visitors of the status page")]
    Visitors,
}

/// Connections without a request: a browser opens six connections at once, and is done with their requests
/// at once.
pub const PENDING: Bound = Bound {
    thing: Thing::Pending,
    all: 4,
    bound: "1 in {} places, at least 6",
    of_one: 0,
    share: "what others leave",
    gives_way: "who has most of them: its oldest that is over 50 ms old",
};

/// A lookup that hangs waits for as long as `resolv.conf` says, usually 5 s twice for each name server.
pub const LOOKUPS: Bound = Bound {
    thing: Thing::Lookups,
    all: 64,
    bound: "{}, and 1 in 16 descriptors",
    of_one: 16,
    share: "half of those that are free, at most {}",
    gives_way: "nobody: who has fewest is next",
};

/// Pipes: a tunnel whose sides both take nothing keeps its own, so that there are none that others could have.
pub const PIPES: Bound = Bound {
    thing: Thing::Descriptors,
    all: 8,
    bound: "the limit on descriptors, without 1 in {}, which are for pipes",
    of_one: 0,
    share: "as for places: an association counts as two",
    gives_way: "as for places",
};

/// Names that are remembered, of 40 bytes and with two addresses each.
pub const REMEMBERED_NAMES: Bound = Bound {
    thing: Thing::RememberedNames,
    all: 4096,
    bound: "about {}, for `--name-cache`",
    of_one: 0,
    share: "what others leave",
    gives_way: "who has most: the name that was not asked for for longest",
};

/// Wrong passwords: it takes 4,096 / 33 = 124 clients to make all other failures forgotten.
pub const PASSWORDS: Bound = Bound {
    thing: Thing::Passwords,
    all: 4096,
    bound: "{} clients and names that have failed",
    of_one: 33,
    share: "{} names, then one in half a minute",
    gives_way: "the failure that is the oldest",
};

/// Passwords that are compared with hashes: whoever waits for that has a connection without a request.
pub const VERIFICATIONS: Bound = Bound {
    thing: Thing::Verifications,
    all: 0,
    bound: "one for each core but one",
    of_one: 16,
    share: "half of those that are free, at most {}",
    gives_way: "nobody: who has fewest is next",
};

/// Lines of the log: a browser that opens thirty tabs makes 1,000 connections.
pub const LOG_LINES: Bound = Bound {
    thing: Thing::LogLines,
    all: 1024,
    bound: "{} clients are counted apart",
    of_one: 1000,
    share: "{} at once, then ten a second",
    gives_way: "nobody: further lines are counted",
};

/// Visitors of the status page.
pub const VISITORS: Bound = Bound {
    thing: Thing::Visitors,
    all: 16,
    bound: "{} at once",
    of_one: 0,
    share: "what others leave",
    gives_way: "who has most: the one who has been there for longest",
};

/// Everything that is bounded, how much of it one client may have, and who gives way.
pub const TABLE: [Bound; 11] = [
    Bound {
        thing: Thing::Places,
        all: 0,
        bound: "`--max-connections`, and what the machine has room for",
        of_one: 0,
        share: "a fair share, beyond it as many as are free, at most `--max-per-client`",
        gives_way: "who has most: its session that has been idle for longest",
    },
    PENDING,
    PIPES,
    Bound {
        thing: Thing::UdpPorts,
        all: 0,
        bound: "`--udp-ports`",
        of_one: 0,
        share: "as for places",
        gives_way: "who has most: its association that has been idle for longest",
    },
    LOOKUPS,
    REMEMBERED_NAMES,
    Bound {
        thing: Thing::UpstreamConnections,
        all: 0,
        bound: "as many as places: each has one",
        of_one: 0,
        share: "as for places",
        gives_way: "as for places",
    },
    PASSWORDS,
    VERIFICATIONS,
    LOG_LINES,
    VISITORS,
];

impl Bound {
    /// The row of a table that stands for it.
    #[must_use]
    pub fn row(&self) -> String {
        let Bound { thing, all, bound, of_one, share, gives_way } = self;
        let bound = bound.replace("{}", &all.to_string());
        format!(
            "| {thing} | {bound} | {} | {gives_way} |",
            share.replace("{}", &of_one.to_string())
        )
    }
}
