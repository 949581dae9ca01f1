//! What is in a room beside the proxy: the name server and the hosts that it names, in a process of
//! their own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::process::Process;
use crate::{echo, name_server, room};

/// A running world, in the room of the thread that has started it.
pub(crate) struct World {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where every host echoes.
    pub(crate) port: u16,
}

impl World {
    pub(crate) fn start() -> io::Result<World> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("world").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, false)?;
        let child = process.child();
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the world has no input and output"));
        };
        let mut world = World { _process: process, input, output: BufReader::new(output), port: 0 };
        let [port] = world.numbers()?;
        world.port = u16::try_from(port).map_err(io::Error::other)?;
        Ok(world)
    }

    /// How many questions there have been since the last time.
    pub(crate) fn questions(&mut self) -> io::Result<u32> {
        self.input.write_all(b"\n")?;
        let counts: [u32; 3] = self.numbers()?;
        Ok(counts.into_iter().sum())
    }

    /// The numbers of the next line that it says.
    fn numbers<const COUNT: usize>(&mut self) -> io::Result<[u32; COUNT]> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let numbers: Vec<u32> =
            line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        numbers.try_into().map_err(|_| io::Error::other("the name server has ended"))
    }
}

/// The world's whole life: says where it listens, and for each line of its input what it has been
/// asked, until its input ends.
pub(crate) fn run() -> io::Result<()> {
    let four = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    let port = four.local_addr()?.port();
    let six = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    thread::Builder::new().spawn(move || echo::serve(vec![four, six]))?;
    let questions = name_server::start(UdpSocket::bind((room::NAME_SERVER, 53))?)?;
    println!("{port}");
    for line in io::stdin().lines() {
        line?;
        println!("{}", questions.take().map(|count| count.to_string()).join(" "));
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit this from their listener.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
