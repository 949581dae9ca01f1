//! The results at a glance: one panel a question, one bar a contender.

use std::path::Path;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    BLACK, Color, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, Text,
    TextStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::{Contender, Kind};
use crate::figure::{Better, Measure, Spread};
use crate::machine;
use crate::ratio::Verdict;
use crate::results::Results;
use crate::table::number;
use crate::work::{Names, Work, bulk, connect, datagrams, idle, names, ping, whole};

const WIDTH: i32 = 900;
const COLUMNS: usize = 2;
const MARGIN: i32 = 16;
const TITLE: i32 = 28;
const BAR: i32 = 20;
const LABEL: i32 = 112;
const VALUE: i32 = 64;

const OURS: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const PEER: RGBColor = RGBColor(0xa9, 0xb4, 0xc0);
const REFERENCE: RGBColor = RGBColor(0xe3, 0xe3, 0xe3);

/// A bar is cut off at so many times the middle one, lest one contender flatten the others.
const LONGEST: f64 = 3.0;

/// What the panels show.
const PANELS: [(&str, Work, Measure); 8] = [
    ("Proxy CPU, seconds per GB down, 1 stream", Work::BulkDown(1), bulk::CPU),
    ("Throughput down, GB/s, 8 streams", Work::BulkDown(8), bulk::THROUGHPUT),
    ("New connections a second, 8 clients", Work::Connect(8), connect::RATE),
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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Draws every panel that there are figures for.
pub(crate) fn write(results: &Results, path: &Path) -> std::io::Result<()> {
    let panels: Vec<_> = PANELS
        .into_iter()
        .map(|(title, work, measure)| Panel::new(results, title, work, measure))
        .filter(|panel| panel.bars.iter().any(|bar| bar.spread.is_some()))
        .collect();
    if panels.is_empty() {
        return Ok(());
    }
    draw(results, &panels, path).map_err(|error| std::io::Error::other(error.to_string()))
}

fn draw(results: &Results, panels: &[Panel], path: &Path) -> Drawn<'static> {
    let rows: Vec<_> = panels.chunks(COLUMNS).collect();
    let heights: Vec<i32> =
        rows.iter().map(|row| row.iter().map(Panel::height).max().unwrap_or(0)).collect();
    let height = heights.iter().sum::<i32>() + TITLE + MARGIN;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let column = WIDTH / i32::try_from(COLUMNS).unwrap_or(1);
    let mut top = MARGIN / 2;
    for (row, height) in rows.iter().zip(heights) {
        let mut left = 0;
        for panel in *row {
            panel.draw(&area, (left, top), column)?;
            left += column;
        }
        top += height;
    }
    let mut note = format!("Medians of {} rounds. {}.", results.rounds, machine::describe());
    if panels.iter().any(|panel| panel.bars.iter().any(|bar| bar.alike)) {
        note.push_str(" \u{2248}: cannot be told apart from tabi.");
    }
    area.draw(&Text::new(note, (MARGIN, top + TITLE / 2), style(11, HPos::Left)))?;
    area.present()
}

/// One question and everybody's answer.
struct Panel {
    title: String,
    bars: Vec<Bar>,
    /// The figure that a bar of full length stands for.
    full: f64,
}

struct Bar {
    label: String,
    kind: Kind,
    spread: Option<Spread>,
    failed: bool,
    /// Whether it cannot be told apart from tabi.
    alike: bool,
}

impl Panel {
    fn new(results: &Results, title: &str, work: Work, measure: Measure) -> Panel {
        let ours = results.ours().first().copied();
        let alike = |label: &str| {
            let ours = ours.filter(|ours| *ours != label)?;
            let ratio = results.ratio(work, measure, ours, label)?;
            Some(ratio.verdict(measure.better) == Verdict::Alike)
        };
        let bar = |contender: &Contender| Bar {
            label: contender.label.clone(),
            kind: contender.kind,
            spread: results.spread(work, measure, &contender.label),
            failed: results.failure(Some(work), &contender.label).is_some(),
            alike: alike(&contender.label).unwrap_or(false),
        };
        let suits = |contender: &&Contender| {
            work.suits(contender) && (measure.direct || contender.is_proxy())
        };
        let bars: Vec<Bar> = results.contenders.iter().filter(suits).map(bar).collect();
        let medians: Vec<f64> = bars.iter().filter_map(|bar| Some(bar.spread?.median)).collect();
        let full = Spread::of(&medians).map_or(1.0, |all| all.greatest.min(all.median * LONGEST));
        let better = match measure.better {
            Better::Higher => "more is better",
            Better::Lower => "less is better",
        };
        Panel { title: format!("{title} ({better})"), bars, full }
    }

    fn height(&self) -> i32 {
        TITLE + BAR * i32::try_from(self.bars.len()).unwrap_or(0) + MARGIN
    }

    fn draw(&self, area: &Area, (left, top): (i32, i32), width: i32) -> Drawn<'static> {
        let left = left + MARGIN;
        let room = width - 2 * MARGIN - LABEL - VALUE;
        let title = style(13, HPos::Left).color(&BLACK);
        area.draw(&Text::new(self.title.clone(), (left, top + TITLE / 2), title))?;
        let mut y = top + TITLE;
        for bar in &self.bars {
            let middle = y + BAR / 2;
            let start = left + LABEL;
            let label = style(12, HPos::Right);
            area.draw(&Text::new(bar.label.clone(), (start - 6, middle), label))?;
            let length = bar.length(self.full, room);
            area.draw(&Rectangle::new(
                [(start, y + 3), (start + length, y + BAR - 3)],
                bar.colour().filled(),
            ))?;
            if bar.is_cut(self.full) {
                let cut = start + length - 14;
                area.draw(&Rectangle::new([(cut, y + 1), (cut + 4, y + BAR - 1)], WHITE.filled()))?;
            }
            let value = style(12, HPos::Left);
            area.draw(&Text::new(bar.value(), (start + length + 6, middle), value))?;
            y += BAR;
        }
        Ok(())
    }
}

impl Bar {
    #[expect(clippy::cast_possible_truncation, reason = "a length within the picture")]
    fn length(&self, full: f64, room: i32) -> i32 {
        let share = self.spread.map_or(0.0, |spread| (spread.median / full).clamp(0.0, 1.0));
        (share * f64::from(room)).round() as i32
    }

    fn is_cut(&self, full: f64) -> bool {
        self.spread.is_some_and(|spread| spread.median > full)
    }

    fn value(&self) -> String {
        match self.spread {
            _ if self.failed => "failed".to_owned(),
            Some(spread) if self.alike => format!("{} \u{2248}", number(spread.median)),
            Some(spread) => number(spread.median),
            None => "-".to_owned(),
        }
    }

    fn colour(&self) -> RGBColor {
        match self.kind {
            Kind::Tabi => OURS,
            Kind::Direct => REFERENCE,
            _ => PEER,
        }
    }
}

fn style(size: i32, anchor: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(anchor, VPos::Center))
}
