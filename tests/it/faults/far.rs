//! A network namespace for peers that vanish. Each has a link of its own there, and when that is
//! taken down nothing comes from it any more: no segment, and no word that there will be none.

use std::net::Ipv4Addr;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::namespace::{alone, ip};
use crate::stage::LONG;

/// The far station of every link.
const STATION: &str = "02:00:00:00:00:02";

type Job = Box<dyn FnOnce() + Send>;

/// The namespace, with a thread in it that does what it is told.
pub(super) struct Far {
    jobs: Sender<Job>,
    /// The thread, by which `ip` finds the namespace.
    id: i32,
}

/// Runs `test` beside such a namespace, or without one where none can be made.
pub(super) fn with_far<T: Send>(test: impl FnOnce(Option<&Far>) -> T + Send) -> T {
    thread::scope(|scope| {
        let (jobs, taken) = channel::<Job>();
        let (told, id) = channel();
        scope.spawn(move || {
            alone(move || {
                told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                for job in taken {
                    job();
                }
            })
        });
        let far = match id.recv() {
            Ok(id) if ip("link show dev lo") => Some(Far { jobs, id }),
            Ok(_) | Err(_) => None,
        };
        test(far.as_ref())
    })
}

impl Far {
    /// Does `job` there. Sockets that it makes stay there, whoever has them.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = move || {
            let _ = done.send(job());
        };
        self.jobs.send(Box::new(job)).expect("the far namespace is gone");
        result.recv_timeout(LONG).expect("nothing comes from the far namespace")
    }

    /// A link with this number. There are no others with it.
    pub(super) fn link(&self, number: u8) -> Link<'_> {
        let (here, there) = (Ipv4Addr::new(10, 9, number, 1), Ipv4Addr::new(10, 9, number, 2));
        let id = self.id;
        // Nobody has to ask for the far station's address, which could not be answered later on.
        ip(&format!(
            "link add here{number} type veth peer name far{number} address {STATION} netns {id}
             addr add {here}/24 dev here{number}
             link set here{number} up
             neighbour add {there} lladdr {STATION} dev here{number} nud permanent"
        ));
        self.run(move || {
            ip(&format!(
                "addr add {there}/24 dev far{number}
                 link set far{number} up"
            ))
        });
        Link { far: self, number, here, there }
    }
}

/// A link to the far namespace, with an address at each end.
pub(super) struct Link<'f> {
    pub(super) far: &'f Far,
    number: u8,
    pub(super) here: Ipv4Addr,
    pub(super) there: Ipv4Addr,
}

impl Link<'_> {
    /// Whoever is there vanishes.
    pub(super) fn take_down(&self) {
        let number = self.number;
        self.far.run(move || ip(&format!("link set far{number} down")));
    }
}
