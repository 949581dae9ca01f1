//! A name server that takes its time and counts what it is asked.
//!
//! | name | A | AAAA |
//! |---|---|---|
//! | `both1.test` | host 1 | the live address |
//! | `four1.test` to `four254.test` | host 1 to 254 | none |
//! | `dead1.test` to `dead254.test` | host 1 to 254 | an address where nobody answers |

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::room;

/// What a name server of the provider takes over a home line.
const DELAY: Duration = Duration::from_millis(20);

/// Answers may be remembered for this long, in seconds: longer than any work takes.
const TTL: u32 = 300;

/// Answers that wait for their time. More are not asked for at once; what is over is lost.
const WAITING: usize = 1024;

struct Answer {
    due: Instant,
    to: SocketAddr,
    octets: Vec<u8>,
}

/// Serves for ever, in two threads of its own, and counts the questions.
pub(crate) fn start(socket: UdpSocket) -> io::Result<Arc<AtomicU32>> {
    let questions = Arc::new(AtomicU32::new(0));
    let (waiting, due) = sync_channel(WAITING);
    let sending = socket.try_clone()?;
    thread::Builder::new().spawn(move || send(&sending, &due))?;
    let counted = Arc::clone(&questions);
    thread::Builder::new().spawn(move || {
        let mut buffer = [0; 1232];
        loop {
            // An error is about an asker that has gone, and the next question is another's.
            let Ok((length, to)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let due = Instant::now() + DELAY;
            if let Some(octets) = answer(&buffer[..length]) {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = waiting.try_send(Answer { due, to, octets });
            }
        }
    })?;
    Ok(questions)
}

/// All answers wait equally long, so the first that came is the first that goes.
fn send(socket: &UdpSocket, due: &Receiver<Answer>) {
    for answer in due {
        thread::sleep(answer.due.saturating_duration_since(Instant::now()));
        let _ = socket.send_to(&answer.octets, answer.to);
    }
}

/// None for what is no question.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let message = Packet::parse(message).ok()?;
    let asked = message.questions.first()?.clone();
    let mut answer = Packet::new_reply(message.id());
    answer.questions.push(asked.clone());
    match Host::named(&asked.qname) {
        Some(host) => {
            let record = host.record(asked.qtype);
            answer
                .answers
                .extend(record.map(|data| ResourceRecord::new(asked.qname, CLASS::IN, TTL, data)));
        }
        None => *answer.rcode_mut() = RCODE::NameError,
    }
    answer.build_bytes_vec_compressed().ok()
}

/// What a name stands for.
struct Host {
    number: u8,
    six: Option<Ipv6Addr>,
}

impl Host {
    fn named(name: &Name) -> Option<Host> {
        let text = name.to_string().to_ascii_lowercase();
        let label = text.strip_suffix(".test")?;
        let (kind, number) = label.split_at_checked(4)?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        let six = match kind {
            "both" => Some(room::LIVE),
            "four" => None,
            "dead" => Some(room::dead(number)),
            _ => return None,
        };
        Some(Host { number, six })
    }

    fn record(&self, asked: QTYPE) -> Option<RData<'static>> {
        match asked {
            QTYPE::TYPE(TYPE::A) => Some(RData::A(A::from(room::host(self.number)))),
            QTYPE::TYPE(TYPE::AAAA) => self.six.map(|six| RData::AAAA(AAAA::from(six))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use simple_dns::rdata::RData;
    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE};

    use super::{DELAY, answer, start};
    use crate::room;

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        let name = Name::new_unchecked(name);
        let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
        packet.questions.push(Question::new(name, kind, class, false));
        packet.build_bytes_vec().unwrap()
    }

    /// The addresses in the answer, as text, or what is wrong.
    fn asked(name: &str, kind: TYPE) -> String {
        let octets = answer(&question(name, kind)).unwrap();
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.id(), 7);
        if packet.rcode() == RCODE::NameError {
            return "no such name".to_owned();
        }
        let texts: Vec<_> = packet
            .answers
            .iter()
            .map(|record| match &record.rdata {
                RData::A(a) => Ipv4Addr::from(a.address).to_string(),
                RData::AAAA(aaaa) => std::net::Ipv6Addr::from(aaaa.address).to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        texts.join(" ")
    }

    #[test]
    fn every_name_has_the_addresses_of_its_kind() {
        for (name, a, aaaa) in [
            ("both1.test", "198.51.100.1", "2001:db8:1::1"),
            ("four9.test", "198.51.100.9", ""),
            ("DEAD100.test", "198.51.100.100", "2001:db8:dead::64"),
        ] {
            assert_eq!(asked(name, TYPE::A), a);
            assert_eq!(asked(name, TYPE::AAAA), aaaa);
        }
        assert_eq!(asked("four300.test", TYPE::A), "no such name");
        assert_eq!(asked("four1.test.example", TYPE::A), "no such name");
        assert_eq!(answer(b"nonsense"), None);
    }

    #[test]
    fn answers_come_late_are_counted_and_do_not_wait_for_one_another() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let questions = start(server).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let begun = Instant::now();
        for _ in 0..200 {
            client.send_to(&question("both1.test", TYPE::A), address).unwrap();
        }
        let mut buffer = [0; 512];
        for _ in 0..200 {
            client.recv(&mut buffer).unwrap();
        }
        let took = begun.elapsed();
        // One after another they would take 200 delays.
        assert!((DELAY..DELAY * 190).contains(&took), "{took:?}");
        assert_eq!(questions.load(Ordering::Relaxed), 200);
        assert_eq!(room::host(1), Ipv4Addr::new(198, 51, 100, 1));
    }
}
