//! The man page and the completions, as they follow from the command line.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

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
const REST: &str = r".SH ENVIRONMENT
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
A file with a bad line changes nothing and is an error in the log.
.PP
A signal that was ignored when tabi started stays ignored.
.SH EXIT STATUS
.TP
0
Stopped by a signal, or \fB\-\-check\fR or \fB\-\-probe\fR found all in order.
.TP
1
Cannot start: the port is in use, the log cannot be written.
Nobody answers \fB\-\-probe\fR.
.TP
2
Wrong options, or a users or rules file that cannot be read or has a bad line.
.TP
130
Ended at once by a second signal.
.SH FILES
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
.SH SEE ALSO
.BR tabi\-rules (5),
.BR curl (1),
.BR systemd.exec (5)
";

/// Every page: where it stands below the top folder, and what is in it.
pub(crate) fn all() -> io::Result<[(&'static str, Vec<u8>); 4]> {
    Ok([
        ("scripts/man/tabi.8", man()?),
        ("scripts/completions/tabi.bash", completions(Shell::Bash)),
        ("scripts/completions/tabi.fish", completions(Shell::Fish)),
        ("scripts/completions/_tabi", completions(Shell::Zsh)),
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
    made.extend_from_slice(format!(".SH EXAMPLES\n.nf\n{examples}\n.fi\n{REST}").as_bytes());
    Ok(tidied(&String::from_utf8_lossy(&made)).into_bytes())
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
