//! The one line that a session leaves in the log, in `key=value` form.

use std::fmt::{self, Write};

use super::outcome::Outcome;
use crate::sessions::SessionState;
use crate::wire::address::Address;
use crate::wire::request::Command;

/// The longest reason in characters: it tells of an address of 47 and what is wrong with it.
const MAX_WHY: usize = 90;

/// The longest user name in characters. One that is spelled longer is hardly a user's.
const MAX_USER: usize = 128;

/// A line of at most about 800 bytes. What the client chose in it was checked to be harmless (host
/// names) or is escaped (user names, `why`), once.
pub(super) struct Line<'a> {
    pub(super) session: &'a SessionState,
    pub(super) outcome: Outcome,
    pub(super) why: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { session, outcome, why } = self;
        let request = session.request();
        write!(
            f,
            "client={} user={} protocol={} command={} dest={}",
            session.peer(),
            Or(session.user().map(|user| Cut(user, MAX_USER)), "-"),
            Or(session.protocol(), "-"),
            Or(request.map(|(command, _)| command), "-"),
            Or(destination(session), "-"),
        )?;
        if let Some((_, count)) = session.destinations() {
            write!(f, " destinations={count}")?;
        }
        let denials = session.denials();
        if let Some((_, count)) = denials {
            write!(f, " denied={count}")?;
        }
        write!(f, " reached={}", Or(session.reached(), "-"))?;
        if let Some(via) = session.via() {
            write!(f, " via={via}")?;
        }
        write!(
            f,
            " up={} down={} seconds={:.3} outcome={outcome}",
            session.client().sent(),
            session.target().sent(),
            session.opened.elapsed().as_secs_f64(),
        )?;
        match why.or(denials.map(|(first, _)| first)) {
            Some(why) => write!(f, " why=\"{}\"", Cut(why, MAX_WHY)),
            None => Ok(()),
        }
    }
}

/// What the client asked for. The destination of a UDP request is where the client sends from: what
/// matters then is the first to whom it has sent datagrams.
pub(super) fn destination(session: &SessionState) -> Option<&Address> {
    let request = session.request().filter(|(command, _)| *command != Command::UdpAssociate);
    request.map(|(_, to)| to).or(session.destinations().map(|(first, _)| first))
}

/// At most so many characters of a text, without a bare quotation mark. A backslash is left alone:
/// where a client chose the text, it is escaped already. Control characters are escaped with the line.
struct Cut<'a>(&'a str, usize);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut(text, longest) = *self;
        let is_cut = text.chars().nth(longest).is_some();
        let (length, end) = if is_cut { (longest - "...".len(), "...") } else { (longest, "") };
        for character in text.chars().take(length) {
            if character == '"' {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_str(end)
    }
}

/// A value, or what is written where there is none.
pub(super) struct Or<T>(pub(super) Option<T>, pub(super) &'static str);

impl<T: fmt::Display> fmt::Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Limits, Sessions};
    use crate::system::descriptors::Descriptors;
    use crate::wire::address::Host;
    use crate::wire::address::InvalidName;
    use crate::wire::protocol::Protocol;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn a_line_says_who_what_where_how_much_and_how_it_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits::of_one(Duration::from_secs(1), Duration::from_secs(1));
        let sessions = Sessions::new(limits, Descriptors::new(100));
        let session =
            sessions.open("192.0.2.7:5000".parse().unwrap(), false, client, || ()).unwrap();
        let line = |outcome, why| Line { session: session.state(), outcome, why }.to_string();
        let without_time = |line: String| {
            let (head, tail) = line.split_once(" seconds=").unwrap();
            format!("{head} {}", tail.split_once(' ').unwrap().1)
        };
        assert_eq!(
            without_time(line(Outcome::ClientLeft, None)),
            "client=192.0.2.7:5000 user=- protocol=- command=- dest=- reached=- \
             up=0 down=0 outcome=client-left"
        );
        session.state().speaks(Protocol::Socks5);
        session.state().identified("alice");
        let to = Address { host: Host::Ip([192, 0, 2, 1].into()), port: 80 };
        session.requested(Command::Connect, to.clone());
        session.state().goes_via("proxy.example:1080".into());
        session.state().client().count(3);
        session.state().target().count(4);
        assert_eq!(
            without_time(line(Outcome::Failed, Some("a \"word\""))),
            "client=192.0.2.7:5000 user=alice protocol=socks5 command=CONNECT dest=192.0.2.1:80 \
             reached=- via=proxy.example:1080 up=3 down=4 outcome=failed why=\"a \\\"word\\\"\""
        );
    }

    #[test]
    fn a_name_of_255_control_bytes_is_escaped_once_and_cut() {
        let error = InvalidName(vec![0x01; 255]).to_string();
        let cut = Cut(&error, MAX_WHY).to_string();
        assert!(cut.starts_with(r"no host is named '\x01\x01\x01"), "{cut}");
        assert!(cut.ends_with("...") && cut.len() == MAX_WHY, "{cut}");
    }

    #[test]
    fn no_name_ends_the_quotation_of_a_reason() {
        let error = InvalidName(b"a\" outcome=closed \\".to_vec()).to_string();
        let cut = Cut(&error, MAX_WHY).to_string();
        assert_eq!(cut, r"no host is named 'a\x22 outcome=closed \\'");
    }

    #[test]
    fn what_is_short_enough_is_not_cut() {
        assert_eq!(Cut("12345", 5).to_string(), "12345");
        assert_eq!(Cut("123456", 5).to_string(), "12...");
    }
}
