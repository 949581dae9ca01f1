//! The one line that a session leaves in the log, in `key=value` form.

use std::borrow::Cow;
use std::fmt;

use super::json::Json;
use super::outcome::Outcome;
use crate::sessions::SessionState;
use crate::wire::address::Address;
use crate::wire::request::Command;

/// The longest reason in characters: it tells of an address of 47 and what is wrong with it.
const MAX_WHY: usize = 90;

/// The longest user name in characters. One that is spelled longer is hardly a user's.
const MAX_USER: usize = 128;

/// A line of at most about 800 bytes. What the client chose in it was checked to be harmless (host
/// names) or is escaped (user names, `why`), once; control characters are with the line.
pub(super) struct Line<'a> {
    pub(super) session: &'a SessionState,
    pub(super) outcome: Outcome,
    pub(super) why: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { session, outcome, .. } = self;
        let request = session.request();
        write!(
            f,
            "client={} user={} protocol={} command={} dest={}",
            session.peer(),
            Or(session.user().map(|user| cut(user, MAX_USER)), "-"),
            Or(session.protocol(), "-"),
            Or(request.map(|(command, _)| command), "-"),
            Or(destination(session), "-"),
        )?;
        if let Some((_, count)) = session.destinations() {
            write!(f, " destinations={count}")?;
        }
        if let Some((_, count)) = session.denials() {
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
        // A backslash is left alone: where a client chose the text, it is escaped already.
        self.why().map_or(Ok(()), |why| write!(f, " why=\"{}\"", why.replace('"', "\\\"")))
    }
}

impl Line<'_> {
    /// The same as members of a JSON object, which has all of them in every line.
    pub(super) fn members(&self, json: &mut Json) {
        let Line { session, outcome, .. } = self;
        json.text("message", Some("session ended"));
        json.text("client", Some(session.peer()));
        json.text("user", session.user().map(|user| cut(user, MAX_USER)));
        json.text("protocol", session.protocol());
        json.text("command", session.request().map(|(command, _)| command));
        json.text("dest", destination(session));
        json.number("destinations", Or(session.destinations().map(|(_, count)| count), "null"));
        json.number("denied", Or(session.denials().map(|(_, count)| count), "null"));
        json.text("reached", session.reached());
        json.text("via", session.via());
        json.number("up", session.client().sent());
        json.number("down", session.target().sent());
        json.number("seconds", format_args!("{:.3}", session.opened.elapsed().as_secs_f64()));
        json.text("outcome", Some(outcome));
        json.text("why", self.why());
    }

    fn why(&self) -> Option<Cow<'_, str>> {
        self.why.or(self.session.denials().map(|(first, _)| first)).map(|why| cut(why, MAX_WHY))
    }
}

/// What the client asked for. The destination of a UDP request is where the client sends from: what
/// matters then is the first to whom it has sent datagrams.
pub(super) fn destination(session: &SessionState) -> Option<&Address> {
    let request = session.request().filter(|(command, _)| *command != Command::UdpAssociate);
    request.map(|(_, to)| to).or(session.destinations().map(|(first, _)| first))
}

/// At most so many characters of a text.
fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    match text.chars().nth(longest) {
        None => text.into(),
        Some(_) => text.chars().take(longest - "...".len()).chain("...".chars()).collect(),
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
    use crate::report::json::Members;
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
        let members = |outcome, why| {
            let line = Line { session: session.state(), outcome, why };
            let members = Members(|json: &mut Json| line.members(json)).to_string();
            let (head, tail) = members.split_once(",\"seconds\":").unwrap();
            let (seconds, tail) = tail.split_once(',').unwrap();
            assert_eq!(seconds, format!("{:.3}", seconds.parse::<f64>().unwrap()));
            format!("{head},{tail}")
        };
        let without_time = |line: String| {
            let (head, tail) = line.split_once(" seconds=").unwrap();
            format!("{head} {}", tail.split_once(' ').unwrap().1)
        };
        assert_eq!(
            without_time(line(Outcome::ClientLeft, None)),
            "client=192.0.2.7:5000 user=- protocol=- command=- dest=- reached=- \
             up=0 down=0 outcome=client-left"
        );
        assert_eq!(
            members(Outcome::ClientLeft, None),
            r#","message":"session ended","client":"192.0.2.7:5000","user":null,"protocol":null,"#
                .to_owned()
                + r#""command":null,"dest":null,"destinations":null,"denied":null,"reached":null,"#
                + r#""via":null,"up":0,"down":0,"outcome":"client-left","why":null"#
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
        session.state().asked_for(&to);
        session.state().denied("line 3");
        assert_eq!(
            members(Outcome::Failed, Some("a \"word\"")),
            r#","message":"session ended","client":"192.0.2.7:5000","user":"alice","#.to_owned()
                + r#""protocol":"socks5","command":"CONNECT","dest":"192.0.2.1:80","#
                + r#""destinations":1,"denied":1,"reached":null,"via":"proxy.example:1080","#
                + r#""up":3,"down":4,"outcome":"failed","why":"a \u0022word\u0022""#
        );
        let (text, json) = (line(Outcome::Closed, None), members(Outcome::Closed, None));
        assert!(json.ends_with(r#","why":"line 3""#), "{json}");
        let of_text = text.split(' ').filter_map(|word| word.split_once('=')).map(|(key, _)| key);
        let of_json = json.split(",\"").skip(2).map(|member| member.split('"').next().unwrap());
        assert!(of_text.filter(|key| *key != "seconds").eq(of_json), "{text}\n{json}");
    }

    #[test]
    fn a_name_of_255_control_bytes_is_escaped_once_and_cut() {
        let error = InvalidName(vec![0x01; 255]).to_string();
        let cut = cut(&error, MAX_WHY);
        assert!(cut.starts_with(r"no host is named '\x01\x01\x01"), "{cut}");
        assert!(cut.ends_with("...") && cut.len() == MAX_WHY, "{cut}");
    }

    #[test]
    fn no_name_ends_the_quotation_of_a_reason() {
        let error = InvalidName(b"a\" outcome=closed \\".to_vec()).to_string();
        let cut = cut(&error, MAX_WHY);
        assert_eq!(cut, r"no host is named 'a\x22 outcome=closed \\'");
    }

    #[test]
    fn what_is_short_enough_is_not_cut() {
        assert_eq!(cut("12345", 5), "12345");
        assert_eq!(cut("123456", 5), "12...");
    }
}
