//! What is in a room beside the proxy: the name server and the hosts that it names, in a process of
//! their own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;

use crate::process::Service;
use crate::sockets::listen;
use crate::{echo, name_server, room};

/// A running world, in the room of the thread that has started it.
pub(crate) struct World {
    service: Service,
    /// Where every host echoes.
    pub(crate) port: u16,
}

impl World {
    pub(crate) fn start() -> io::Result<World> {
        let mut service = Service::start("world")?;
        let [port] = service.numbers()?;
        Ok(World { service, port: u16::try_from(port).map_err(io::Error::other)? })
    }

    /// How many questions there have been.
    pub(crate) fn questions(&mut self) -> io::Result<u32> {
        self.service.ask()?;
        let [questions] = self.service.numbers()?;
        Ok(questions)
    }
}

/// The world's whole life: says where it listens, and for each line of its input how much it has been
/// asked, until its input ends.
pub(crate) fn run() -> io::Result<()> {
    let four = listen((Ipv4Addr::UNSPECIFIED, 0), 4096)?;
    let port = four.local_addr()?.port();
    let six = listen((Ipv6Addr::UNSPECIFIED, port), 4096)?;
    thread::Builder::new().spawn(move || echo::serve(&[four, six]))?;
    let questions = name_server::start(UdpSocket::bind((room::NAME_SERVER, 53))?)?;
    println!("{port}");
    for line in io::stdin().lines() {
        line?;
        println!("{}", questions.load(Ordering::Relaxed));
    }
    Ok(())
}
