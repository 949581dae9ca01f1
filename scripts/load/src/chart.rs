//! The results at a glance: one panel a question, one bar a contender.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::contender::{Contender, Kind};
use crate::figure::{Better, Measure, Spread, real};
use crate::machine;
use crate::ratio::Verdict;
use crate::results::Results;
use crate::table::number;
use crate::tunnel::By;
use crate::work::bulk::{self, Way};
use crate::work::{Names, Work, connect, datagrams, idle, names, ping, requests, whole};

const WIDTH: usize = 900;
const COLUMNS: usize = 2;
const MARGIN: usize = 16;
const TITLE: usize = 28;
const BAR: usize = 20;
const LABEL: usize = 112;
const VALUE: usize = 64;

const OURS: &str = "#1f5fa8";
const PEER: &str = "#a9b4c0";
const REFERENCE: &str = "#e3e3e3";
/// Behind the figure of who cannot be told apart from tabi.
const ALIKE: char = '\u{2248}';

const WHITE: &str = "#ffffff";

/// A bar is cut off at so many times the middle one, lest one contender flatten the others.
const LONGEST: f64 = 3.0;

/// What the panels show.
const PANELS: [(&str, Work, Measure); 10] = [
    ("Proxy CPU, seconds per GB down, 1 stream", Work::Bulk(Way::Down, 1), bulk::CPU),
    ("Throughput down, GB/s, 8 streams", Work::Bulk(Way::Down, 8), bulk::THROUGHPUT),
    ("New connections a second, 8 clients", Work::Connect(By::Socks5, 8), connect::RATE),
    (
        "New connections by HTTP CONNECT, 8 clients",
        Work::Connect(By::HttpConnect, 8),
        connect::RATE,
    ),
    ("Proxy CPU, µs per plain HTTP request", Work::Requests(1000), requests::CPU),
    ("Echo of 64 octets, median µs, 1 tunnel", Work::Ping(1), ping::MEDIAN),
    ("Resident KiB per idle tunnel", Work::Idle(3000), idle::PER_TUNNEL),
    ("Whole KiB per idle tunnel, kernel included", Work::WholeCost(3000), whole::COUNTED),
    ("Names with dead IPv6, median ms", Work::Names(Names::Dead), names::MEDIAN),
    (
        "UDP echoes a second, 64 octets",
        Work::Datagrams { associations: 1, size: 64 },
        datagrams::RATE,
    ),
];

/// Draws every panel that there are figures for.
pub(crate) fn write(results: &Results, path: &Path) -> io::Result<()> {
    let panels: Vec<_> = PANELS
        .into_iter()
        .map(|(title, work, measure)| Panel::new(results, title, work, measure))
        .filter(|panel| panel.bars.iter().any(|bar| bar.median.is_some()))
        .collect();
    if panels.is_empty() {
        return Ok(());
    }
    let mut drawn = String::new();
    let mut top = MARGIN / 2;
    for row in panels.chunks(COLUMNS) {
        for (panel, left) in row.iter().zip((0..).step_by(WIDTH / COLUMNS)) {
            panel.draw(&mut drawn, left + MARGIN, top);
        }
        top += row.iter().map(Panel::height).max().unwrap_or(0);
    }
    let mut note = format!("Medians of {} rounds. {}.", results.rounds, machine::describe());
    if drawn.contains(ALIKE) {
        let _ = write!(note, " {ALIKE}: cannot be told apart from tabi.");
    }
    text(&mut drawn, (MARGIN, top + TITLE / 2), 9, "start", &note);
    let height = top + TITLE + MARGIN / 2;
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"{WHITE}\"/>\n"
    );
    fs::write(path, head + &drawn + "</svg>\n")
}

struct Panel {
    title: String,
    bars: Vec<Bar>,
    /// The figure that a bar of full length stands for.
    full: f64,
}

struct Bar {
    label: String,
    colour: &'static str,
    median: Option<f64>,
    /// What stands behind it.
    words: String,
}

impl Panel {
    fn new(results: &Results, title: &str, work: Work, measure: Measure) -> Panel {
        let suits = |contender: &&Contender| {
            work.suits(contender) && (measure.direct || contender.is_proxy())
        };
        let bar = |contender| Bar::new(results, contender, work, measure);
        let bars: Vec<Bar> = results.contenders.iter().filter(suits).map(bar).collect();
        let medians: Vec<f64> = bars.iter().filter_map(|bar| bar.median).collect();
        let full = Spread::of(&medians).map_or(1.0, |all| all.greatest.min(all.median * LONGEST));
        let better = match measure.better {
            Better::Higher => "more is better",
            Better::Lower => "less is better",
        };
        Panel { title: format!("{title} ({better})"), bars, full }
    }

    fn height(&self) -> usize {
        TITLE + BAR * self.bars.len() + MARGIN
    }

    fn draw(&self, drawn: &mut String, left: usize, top: usize) {
        text(drawn, (left, top + TITLE / 2), 10, "start", &self.title);
        let start = left + LABEL;
        for (bar, top) in self.bars.iter().zip((top + TITLE..).step_by(BAR)) {
            let middle = top + BAR / 2;
            text(drawn, (start - 6, middle), 9, "end", &bar.label);
            let share = bar.median.map_or(0.0, |median| median / self.full);
            let length = length(share.clamp(0.0, 1.0));
            rectangle(drawn, (start, top + 3), (length, BAR - 6), bar.colour);
            if share > 1.0 {
                rectangle(drawn, (start + length - 14, top + 1), (4, BAR - 2), WHITE);
            }
            text(drawn, (start + length + 6, middle), 9, "start", &bar.words);
        }
    }
}

impl Bar {
    fn new(results: &Results, contender: &Contender, work: Work, measure: Measure) -> Bar {
        let label = contender.label.as_str();
        let median = results.spread(work, measure, label).map(|spread| spread.median);
        let first = results.ours().first().copied().filter(|first| *first != label);
        let ratio = first.and_then(|first| results.ratio(measure, (work, first), (work, label)));
        let is_alike = ratio.is_some_and(|it| it.verdict(measure.better) == Verdict::Alike);
        let words = match median {
            _ if results.failure(Some(work), label).is_some() => "failed".into(),
            Some(median) if is_alike => format!("{} {ALIKE}", number(median)),
            Some(median) => number(median),
            None => "-".into(),
        };
        let colour = match contender.kind {
            Kind::Tabi => OURS,
            Kind::Direct => REFERENCE,
            _ => PEER,
        };
        Bar { label: label.into(), colour, median, words }
    }
}

/// Of a bar that is so much of the longest one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a length within the picture"
)]
fn length(share: f64) -> usize {
    (share * real(WIDTH / COLUMNS - 2 * MARGIN - LABEL - VALUE)).round() as usize
}

fn text(drawn: &mut String, (x, y): (usize, usize), size: u8, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        drawn,
        "<text x=\"{x}\" y=\"{y}\" dy=\"0.5ex\" font-size=\"{size}.5\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn rectangle(
    drawn: &mut String,
    (x, y): (usize, usize),
    (width, height): (usize, usize),
    fill: &str,
) {
    let _ = writeln!(
        drawn,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
    );
}
