//! How each kind of proxy is told where to listen, whom to serve, and not to log.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Contender, Kind, Setting, most_tunnels};
use crate::process::nameless;
use crate::room;
use crate::socks::USER;

/// What stands for the port in the command of a peer that the user brings.
pub(super) const PORT: &str = "{port}";

impl Contender {
    /// The command line after the program's name.
    pub(super) fn arguments(&self, port: u16) -> io::Result<Vec<String>> {
        let listen = format!("127.0.0.1:{port}");
        let port = port.to_string();
        let most = most_tunnels()?.to_string();
        let arguments = match self.kind {
            Kind::Direct => vec![],
            Kind::Given => {
                return Ok(vec!["-c".to_owned(), self.command.replace(PORT, &port)]);
            }
            Kind::Tabi => {
                vec!["-q", "--max-connections", &most, "--max-per-client", "20000", &listen]
            }
            Kind::Microsocks if quiet(&self.program) => vec!["-q", "-i", "127.0.0.1", "-p", &port],
            Kind::Microsocks => vec!["-i", "127.0.0.1", "-p", &port],
            Kind::Dante => vec!["-f", "/dev/stdin"],
            Kind::GoSocks5 | Kind::Goproxy => vec![listen.as_str()],
            Kind::FastSocks5 => {
                vec![
                    "--listen-addr",
                    &listen,
                    "--allow-udp",
                    "--public-addr",
                    "127.0.0.1",
                    "no-auth",
                ]
            }
            Kind::Merino => vec!["--no-auth", "--ip", "127.0.0.1", "--port", &port],
            Kind::Tinyproxy => vec!["-d", "-c", "/dev/stdin"],
            Kind::Privoxy => vec!["--no-daemon", "/dev/stdin"],
        };
        let mut arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        if self.setting == Setting::Users {
            self.ask_for_user(&mut arguments);
        }
        Ok(arguments)
    }

    fn ask_for_user(&self, arguments: &mut Vec<String>) {
        let more = match self.kind {
            Kind::Tabi => vec!["--users", "/dev/stdin"],
            Kind::Microsocks => vec!["-u", USER, "-P", USER],
            Kind::FastSocks5 => {
                arguments.retain(|argument| argument != "no-auth");
                vec!["password", "--username", USER, "--password", USER]
            }
            _ => vec![],
        };
        arguments.extend(more.into_iter().map(str::to_owned));
    }

    /// What the proxy reads from its standard input.
    pub(super) fn input(&self, port: u16) -> io::Result<Stdio> {
        let text = match self.kind {
            Kind::Dante => dante(port, self.setting == Setting::Room),
            Kind::Tabi if self.setting == Setting::Users => format!("{USER}:{USER}\n"),
            Kind::Tinyproxy => {
                let most = most_tunnels()?;
                format!("Listen 127.0.0.1\nPort {port}\nMaxClients {most}\nLogLevel Critical\n")
            }
            Kind::Privoxy => {
                let most = most_tunnels()?;
                format!("listen-address 127.0.0.1:{port}\nmax-client-connections {most}\n")
            }
            _ => return Ok(Stdio::null()),
        };
        Ok(nameless(&text)?.into())
    }
}

/// Dante has no command line to speak of, and goes out from the addresses that it is given.
fn dante(port: u16, in_room: bool) -> String {
    // In a room as Debian's example has it, whose rules let no IPv6 pass.
    let (external, targets) =
        if in_room { (room::OUTSIDE, "0.0.0.0/0") } else { ("127.0.0.1", "127.0.0.0/8") };
    format!(
        "errorlog: /dev/null\n\
         internal: 127.0.0.1 port = {port}\n\
         external: {external}\n\
         clientmethod: none\n\
         socksmethod: none\n\
         client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 127.0.0.0/8 to: {targets} }}\n"
    )
}

/// Whether this microsocks can be told not to log: Debian 12 has one that cannot.
fn quiet(program: &Path) -> bool {
    let output = Command::new(program).arg("-h").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains(" -q"))
}
