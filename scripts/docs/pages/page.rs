//! The man page and the completions, as they follow from the command line, and from those tables of
//! the README whose other side is a list in the program.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

const README: &str = include_str!("../../../README.md");

/// When the page was last changed.
const DATE: &str = "2026-11-28";

/// The widest line that mandoc -Tlint is content with.
const WIDTH: usize = 79;

const DESCRIPTION: &str = "\
.SH DESCRIPTION
tabi is a SOCKS5 server (RFC 1928): CONNECT, BIND and UDP ASSOCIATE, with or
without usernames and passwords (RFC 1929).
With no option it listens on port 1080 of every address, and serves clients on
this machine and on private networks.
Clients on other machines cannot reach what listens for this machine alone.
";

/// What the command line does not tell of itself.
const ENVIRONMENT: &str = r".SH ENVIRONMENT
Each option can come from the variable that is named with it.
The command line wins.
Options that may be repeated are separated by commas, flags are true or false,
and an empty variable says nothing.
A variable that begins with TABI_ and is not one of them is told in the log at
the start, and has no effect.
.SH SIGNALS
.TP
SIGINT, SIGTERM
The first closes the port and lets live sessions finish within \fB\-\-grace\fR.
The second ends them at once.
.TP
SIGHUP
Reads the users and rules files again and opens the log file anew.
Live tunnels go on, and new requests are judged by the new rules.
A file with a bad line changes nothing and is an error in the log.
.PP
A signal that was ignored when tabi started stays ignored.
";

const LOG: &str = r"Where the client went is
.I dest
as it was asked for, and
.I reached
as it was reached;
.I up
and
.I down
are bytes from the client and to it;
.I via
is the upstream;
.I why
is a reason;
.I destinations
is how many there were of a UDP association, whose first one is
.IR dest .
How it ended is one of these:
";

const STATUS: &str = r".SH STATUS PAGE
With \fB\-\-status\fR tabi answers over HTTP, to this machine and, where it is told an
address, to machines on private networks.
.TP
.I /
A page for people: throughput, limits, how sessions ended, live sessions.
.TP
.I /sessions
The same as JSON.
.TP
.I /metrics
Numbers for Prometheus.
.TP
.I /healthz
200, or 503 while live sessions finish before the end.
.SH METRICS
";

const FILES: &str = r".SH FILES
.TP
\fI/etc/default/tabi\fR
Options of the service, as variables.
.TP
\fI/etc/tabi/rules\fR
Rules of the service; see
.BR tabi\-rules (5).
.TP
\fI/etc/tabi/users\fR
Users of the service, once \fI/etc/default/tabi\fR names them:
one \fIname\fR:\fIpassword\fR a line, and mode 0600.
.TP
\fI$CREDENTIALS_DIRECTORY\fR, \fI/run/secrets\fR
Users and rules files in these folders may be readable for others than their
owner; files elsewhere that have a password in them are refused then.
.TP
\fItabi.service\fR, \fItabi.socket\fR
The service, and a socket that systemd holds for it: with it no client is
refused while tabi restarts, and LISTEN has no effect.
.SH SEE ALSO
.BR tabi\-rules (5),
.BR curl (1),
.BR systemctl (1),
.BR systemd.exec (5)
";

/// Every page: where it stands below the top folder, and what is in it.
pub(crate) fn all() -> io::Result<[(&'static str, Vec<u8>); 4]> {
    Ok([
        ("scripts/packaging/man/tabi.8", man()?),
        ("scripts/packaging/completions/tabi.bash", completions(Shell::Bash)),
        ("scripts/packaging/completions/tabi.fish", completions(Shell::Fish)),
        ("scripts/packaging/completions/_tabi", completions(Shell::Zsh)),
    ])
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut made = Vec::new();
    clap_complete::generate(shell, &mut tabi::cli::command(), "tabi", &mut made);
    made
}

fn man() -> io::Result<Vec<u8>> {
    let command = tabi::cli::command();
    let below = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples = below.split("\n\n").next().unwrap_or_default();
    let examples = examples.lines().skip(1).map(escaped).collect::<Vec<_>>().join("\n");
    let page = Man::new(described(command)).title("TABI").section("8").date(DATE);
    let mut made = Vec::new();
    page.manual("System administration").render_title(&mut made)?;
    let name = Man::new(described(tabi::cli::command()));
    name.render_name_section(&mut made)?;
    made.extend_from_slice(b".SH SYNOPSIS\n.B tabi\n[\\fIOPTIONS\\fR] [\\fILISTEN\\fR]...\n");
    made.extend_from_slice(DESCRIPTION.as_bytes());
    name.render_options_section(&mut made)?;
    made.extend_from_slice(format!(".SH EXAMPLES\n.nf\n{examples}\n.fi\n{ENVIRONMENT}").as_bytes());
    made.extend_from_slice(format!(".SH EXIT STATUS\n{}", listed("exit status")).as_bytes());
    made.extend_from_slice(log().as_bytes());
    made.extend_from_slice(format!("{STATUS}{}{FILES}", listed("metric")).as_bytes());
    Ok(tidied(&String::from_utf8_lossy(&made)).into_bytes())
}

/// The log: a line as the README shows it, and how sessions end.
fn log() -> String {
    let line = README.lines().find_map(|line| Some(line.split_once("] client=")?.1));
    let line = escaped(line.unwrap_or_default()).replace(" reached=", "\n    reached=");
    let outcomes = listed("outcome");
    format!(
        ".SH LOG\nThere is one line for each session, when it ends, and nothing for each packet:\n\
         .PP\n.nf\nclient={line}\n.fi\n.PP\n{LOG}{outcomes}"
    )
}

/// The README's table with this first cell in its head, as a list: what it is about, and what is
/// said of that.
fn listed(head: &str) -> String {
    let head = format!("| {head} | meaning |");
    let rows = README.lines().skip_while(|line| *line != head).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(item).collect()
}

fn item(row: &str) -> String {
    let (about, said) = row.trim_matches('|').split_once('|').unwrap_or_default();
    let tags: Vec<_> = about.split(',').map(|tag| emphasised(tag.trim())).collect();
    let said = emphasised(said.trim());
    let mut letters = said.chars();
    let first = letters.next().unwrap_or_default().to_uppercase();
    format!(".TP\n{}\n{first}{}.\n", tags.join("\n.TQ\n"), letters.as_str())
}

/// What is in backticks in the README is bold here.
fn emphasised(cell: &str) -> String {
    let parts = cell.split('`').enumerate();
    let parts = parts.map(|(place, part)| match place % 2 {
        0 => escaped(part),
        _ => format!(r"\fB{}\fR", escaped(part)),
    });
    parts.collect()
}

/// The command with each option's variable told, and nothing below.
fn described(command: Command) -> Command {
    command.after_help("").mut_args(|option| {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        match option.get_env().map(|name| name.to_string_lossy().into_owned()) {
            Some(variable) => option.help(format!("{help}\nVariable: {variable}")),
            None => option,
        }
    })
}

fn escaped(line: &str) -> String {
    line.replace('\\', r"\e").replace('-', r"\-")
}

/// The page with no line too wide, no space at a line's end, and its preamble once.
fn tidied(page: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in page.lines().map(str::trim_end) {
        let is_preamble = line.starts_with(".ie ") || line.starts_with(".el ");
        if is_preamble && lines.iter().any(|known| known == line) {
            continue;
        }
        if line.starts_with('.') || line.starts_with(' ') {
            lines.push(line.into());
            continue;
        }
        if line.starts_with("Variable: ") {
            lines.push(".br".into());
        }
        let mut rest = line;
        while let Some(space) =
            (rest.len() > WIDTH).then(|| rest[..WIDTH].rfind(' ')).flatten().filter(|at| *at > 0)
        {
            lines.push(rest[..space].into());
            rest = &rest[space + 1..];
        }
        lines.push(rest.into());
    }
    lines.join("\n") + "\n"
}
