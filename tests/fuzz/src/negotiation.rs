//! A whole negotiation: greeting, authentication and request, over a stream that gives its octets in
//! pieces of any size.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tabi::access::in_force::{AccessFiles, InForce};
use tabi::access::users::{LoginError, Passwords, Users};
use tabi::system::waker::Waker;
use tabi::wire::credentials::Credentials;
use tabi::wire::request::Request;
use tabi::wire::socks5::{self, Error, Method};

use super::stream::Stream;

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The sizes of pieces that octets may begin with.
const SIZES: usize = 4;

/// Why it came to no request.
#[derive(Debug)]
enum Failure {
    Message(Error),
    Login(LoginError),
}

/// What came of a negotiation: who has asked for what, how much was taken, what was said.
#[derive(Debug)]
struct Outcome {
    result: Result<(Option<String>, Request), Failure>,
    taken: usize,
    said: Vec<u8>,
}

fn negotiate(users: &Users, octets: &[u8], sizes: &[u8]) -> Outcome {
    let mut client = Stream::new(octets, sizes);
    let result = ask(users, &mut client);
    Outcome { result, taken: client.taken(), said: client.written }
}

fn ask(users: &Users, client: &mut Stream<'_>) -> Result<(Option<String>, Request), Failure> {
    let method = [Method::NoAuthentication, Method::UsernamePassword];
    let method = method[usize::from(users.are_known())];
    socks5::greet(client, method, None).map_err(Failure::Message)?;
    let credentials = users.are_known().then(|| Credentials::read_from(client)).transpose();
    let credentials = credentials.map_err(Failure::Message)?;
    let never = |_: &Waker| panic!("plain passwords are compared at once");
    let identity = users.authenticate(credentials.as_ref(), FROM, never).map_err(Failure::Login)?;
    if credentials.is_some() {
        socks5::write_status(true, client).unwrap();
    }
    let request = Request::read_from(client).map_err(Failure::Message)?;
    Ok((identity.user().map(ToString::to_string), request))
}

/// The first octet says whether there are users and the next ones the sizes of the pieces; the rest
/// is what the client sends.
pub(crate) fn negotiation(octets: &[u8]) {
    let Some((&first, octets)) = octets.split_first() else { return };
    let Some((sizes, said)) = octets.split_at_checked(SIZES) else { return };
    let has_users = first % 2 == 1;
    let users = || {
        let passwords = Passwords::parse(b"alice:open sesame\nbob:b", "users").unwrap();
        // Each time new: what one negotiation has learnt is no matter of the next.
        let files = AccessFiles { users: has_users.then_some(passwords), ..AccessFiles::default() };
        Users::new(Arc::new(InForce::new(Arc::new(files))))
    };
    let whole = negotiate(&users(), said, &[]);
    let pieces = negotiate(&users(), said, sizes);
    same(&whole.result.as_ref().map_err(kind), &pieces.result.as_ref().map_err(kind));
    same(&(whole.taken, &whole.said), &(pieces.taken, &pieces.said));
    check(&whole, said, has_users);
}

fn same(one: &impl Debug, other: &impl Debug) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

/// An error without the time that is in it.
fn kind(error: &Failure) -> String {
    match error {
        Failure::Login(LoginError::Ignored(name, _)) => format!("Ignored({name})"),
        error => format!("{error:?}"),
    }
}

/// What the server says follows from how far the client has come, and nobody comes further than what
/// was asked of it.
fn check(outcome: &Outcome, said: &[u8], has_users: bool) {
    let Outcome { result, taken, said: answers } = outcome;
    let method = if has_users { 0x02 } else { 0x00 };
    let mut steps = vec![0x05, method];
    if has_users {
        steps.extend([0x01, 0x00]);
    }
    assert!(steps.starts_with(answers) && answers.len() % 2 == 0, "{answers:02x?}");
    match result {
        Ok((user, _)) => {
            assert_eq!(*answers, steps);
            let is_known = user.as_deref().is_some_and(|user| ["alice", "bob"].contains(&user));
            assert_eq!(is_known, has_users);
            assert_eq!(*taken, length(said, has_users));
        }
        Err(Failure::Message(Error::Io(_))) => assert_eq!(*taken, said.len()),
        Err(Failure::Message(Error::NoAcceptableMethod(_))) => {
            assert!(answers.is_empty());
            assert_eq!(*taken, 2 + usize::from(said[1]));
        }
        Err(Failure::Login(_)) => {
            assert!(has_users && answers.len() == 2);
        }
        Err(_) => assert!(*taken <= said.len()),
    }
}

/// The octets of greeting, credentials and request.
fn length(said: &[u8], has_users: bool) -> usize {
    let mut length = 2 + usize::from(said[1]);
    if has_users {
        let name = usize::from(said[length + 1]);
        length += 3 + name + usize::from(said[length + 2 + name]);
    }
    let address = match said[length + 3] {
        0x01 => 4,
        0x04 => 16,
        _ => 1 + usize::from(said[length + 4]),
    };
    length + 4 + address + 2
}
