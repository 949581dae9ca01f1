//! The one line that a session leaves in the log, in `key=value` form.

use std::fmt;

use log::log;

use super::Outcome;
use crate::sessions::Account;
use crate::socks5::Command;

/// Logs how the session has ended, and `why` where the outcome alone does not say it.
#[inline(never)]
pub fn log_end(account: &Account, outcome: Outcome, why: Option<&str>) {
    let level = outcome.level(account.request().is_some());
    log!(level, "{}", Line { account, outcome, why });
}

/// What the client chose in it was checked to be harmless (host names) or is escaped (user names,
/// `why`).
struct Line<'a> {
    account: &'a Account,
    outcome: Outcome,
    why: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { account, outcome, why } = self;
        let request = account.request();
        // The destination of a UDP request is where the client sends from.
        let destination = request
            .filter(|(command, _)| *command != Command::UdpAssociate)
            .map(|(_, to)| to)
            .or(account.destinations().map(|(first, _)| first));
        write!(
            f,
            "client={} user={} command={} dest={}",
            account.peer(),
            OrNone(account.user()),
            OrNone(request.map(|(command, _)| command)),
            OrNone(destination),
        )?;
        if let Some((_, count)) = account.destinations() {
            write!(f, " destinations={count}")?;
        }
        write!(
            f,
            " reached={} up={} down={} seconds={:.3} outcome={outcome}",
            OrNone(account.reached()),
            account.client().sent(),
            account.target().sent(),
            account.opened.elapsed().as_secs_f64(),
        )?;
        match why {
            Some(why) => write!(f, " why={why:?}"),
            None => Ok(()),
        }
    }
}

/// A value, or `-` where there is none.
struct OrNone<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Limits, Sessions};
    use crate::socks5::{Address, Host};
    use crate::system::descriptors::Descriptors;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn a_line_says_who_what_where_how_much_and_how_it_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits {
            sessions: 1,
            per_client: 1,
            handshake: Duration::from_secs(1),
            idle: Duration::from_secs(1),
        };
        let sessions = Sessions::new(limits, Descriptors::new(100));
        let session = sessions.open("192.0.2.7:5000".parse().unwrap(), client, || ()).unwrap();
        let line = |outcome, why| Line { account: &session, outcome, why }.to_string();
        let without_time = |line: String| {
            let (head, tail) = line.split_once(" seconds=").unwrap();
            format!("{head} {}", tail.split_once(' ').unwrap().1)
        };
        assert_eq!(
            without_time(line(Outcome::ClientLeft, None)),
            "client=192.0.2.7:5000 user=- command=- dest=- reached=- up=0 down=0 outcome=client-left"
        );
        session.identified("alice");
        let to = Address { host: Host::Ip([192, 0, 2, 1].into()), port: 80 };
        session.requested(Command::Connect, to.clone());
        session.client().count(3);
        session.target().count(4);
        assert_eq!(
            without_time(line(Outcome::Failed, Some("a \"word\""))),
            "client=192.0.2.7:5000 user=alice command=CONNECT dest=192.0.2.1:80 reached=- up=3 down=4 \
             outcome=failed why=\"a \\\"word\\\"\""
        );
    }
}
