//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::contender::Contender;
use crate::flood;
use crate::soak;
use crate::starts;
use crate::steady;
use crate::window::Timing;
use crate::work::{WORKS, Work};

/// Measures SOCKS5 and HTTP proxies side by side on loopback
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What the load generator starts itself as.
#[derive(Subcommand)]
pub(crate) enum Part {
    #[command(hide = true)]
    Backend,
    #[command(hide = true)]
    World,
    #[command(hide = true)]
    Guard {
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Floods tabi, and shows what an ordinary client notices
    Flood(flood::Options),
    /// Opens sessions at a steady rate, and counts those that fail
    Steady(steady::Options),
    #[command(hide = true)]
    Attack(flood::Attack),
    /// Does everything at once for a long time, and accounts for every byte
    Soak(soak::Options),
    /// Starts tabi many times, and ends it while it is busy
    Starts(starts::Options),
}

#[derive(Args)]
pub(crate) struct Options {
    /// Who takes part: LABEL or LABEL=PROGRAM, where LABEL begins with direct, tabi, microsocks,
    /// dante, go-socks5, fast-socks5, merino, tinyproxy, privoxy or goproxy ("tabi=old,tabi2=new"
    /// compares two builds)
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        overrides_with = "contenders",
        default_value = "direct,tabi,microsocks,dante,go-socks5,fast-socks5,merino,tinyproxy,privoxy,goproxy"
    )]
    contenders: Vec<String>,
    /// A further peer, by a shell command that serves everybody on port {port} of 127.0.0.1 without
    /// a log; may be given several times. Whether it speaks SOCKS5, HTTP or both is tried. For example:
    /// --peer '3proxy=printf "maxconn 10000\nsocks -i127.0.0.1 -p{port}\n" | 3proxy /dev/stdin'
    /// --peer 'hev=printf "main:\n  port: {port}\n  listen-address: 127.0.0.1\n" |
    ///         hev-socks5-server /dev/stdin'
    #[arg(
        long = "peer",
        value_name = "NAME=COMMAND",
        value_parser = Contender::given,
        verbatim_doc_comment
    )]
    peers_given: Vec<Contender>,
    /// Works to do, by name or by how their names begin ("conn8,bulk"); all if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each contender does each work, and the short ones three times as often
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Measure for a third of the time
    #[arg(long)]
    quick: bool,
    /// Begin nothing new after this many minutes
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// Where installed peers are: their programs in bin/, and a file that notes their versions
    #[arg(long, value_name = "DIR", default_value = "target/bench/peers")]
    pub(crate) peers: PathBuf,
    /// Where the table and the chart go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

impl Options {
    pub(crate) fn contenders(&self) -> Result<Vec<Contender>, String> {
        let known = self.contenders.iter().map(|text| Contender::parse(text, &self.peers));
        let mut contenders = known.collect::<Result<Vec<_>, _>>()?;
        contenders.extend(self.peers_given.iter().cloned());
        for (place, contender) in contenders.iter().enumerate() {
            let label = &contender.label;
            if contenders[..place].iter().any(|other| other.label == *label) {
                return Err(format!("there are two contenders named {label}"));
            }
        }
        Ok(contenders)
    }

    /// In the order of the table, whatever the order of the words.
    pub(crate) fn works(&self) -> Result<Vec<Work>, String> {
        let mut wanted = Vec::new();
        for word in &self.only {
            wanted.extend(Work::parse(word)?);
        }
        let all = WORKS.iter().map(|(.., work)| *work);
        Ok(all.filter(|work| self.only.is_empty() || wanted.contains(work)).collect())
    }

    pub(crate) fn timing(&self) -> Timing {
        let milliseconds = if self.quick { (100, 700) } else { (300, 2000) };
        Timing {
            warmup: Duration::from_millis(milliseconds.0),
            counted: Duration::from_millis(milliseconds.1),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Arguments;

    /// The labels of the contenders, or what is wrong.
    fn labels(arguments: &[&str]) -> Result<Vec<String>, String> {
        let all = ["load", "--contenders", "direct,tabi"].iter().chain(arguments);
        let parsed = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
        let contenders = parsed.options.contenders()?;
        Ok(contenders.into_iter().map(|contender| contender.label).collect())
    }

    #[test]
    fn peers_of_the_users_own_come_last_and_need_a_name_and_a_port() {
        let peers = ["--peer", "a=x -p {port}, y=z", "--peer", "tabi-old=sh {port}"];
        assert_eq!(labels(&peers).unwrap(), ["direct", "tabi", "a", "tabi-old"]);
        for (peer, wrong) in [
            ("hev", "expected NAME=COMMAND"),
            ("hev=hev 1080", "needs {port}"),
            ("=hev {port}", "1 to 16 letters"),
            ("h v=hev {port}", "1 to 16 letters"),
            ("tabi=hev {port}", "two contenders named tabi"),
        ] {
            let error = labels(&["--peer", peer]).unwrap_err();
            assert!(error.contains(wrong), "{peer}: {error}");
        }
    }
}
