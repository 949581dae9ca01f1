//! The results as Markdown.

use std::fmt::{self, Write};
use std::fs;
use std::io;

use crate::contender::{Contender, Kind};
use crate::figure::{Measure, Spread};
use crate::machine;
use crate::options::Options;
use crate::results::Results;
use crate::work::Work;

/// Writes the tables to a file and prints them.
pub(crate) fn write(results: &Results, options: &Options) -> io::Result<()> {
    let text = markdown(results, options).map_err(io::Error::other)?;
    print!("{text}");
    fs::write(options.out.join("bench.md"), text)
}

fn markdown(results: &Results, options: &Options) -> Result<String, fmt::Error> {
    let works = options.works().unwrap_or_default();
    let measures = results.measures(&works);
    let mut text = String::new();
    writeln!(text, "Machine: {}.\n", machine::describe())?;
    writeln!(
        text,
        "Medians of {} interleaved rounds over loopback; clients, back end and proxy share the \
         cores.\n",
        results.rounds
    )?;
    for contender in &results.contenders {
        writeln!(text, "- {}: {}", contender.label, contender.version(&options.peers))?;
    }
    medians(&mut text, results, &measures)?;
    spreads(&mut text, results, &measures)?;
    failures(&mut text, results)?;
    Ok(text)
}

fn medians(text: &mut String, results: &Results, measures: &[(Work, Measure)]) -> fmt::Result {
    let ours: Vec<&str> = results
        .contenders
        .iter()
        .filter(|contender| contender.kind == Kind::Tabi)
        .map(|contender| contender.label.as_str())
        .collect();
    let mut head = labels(results);
    head.push("best peer".to_owned());
    head.extend(ours.iter().map(|label| format!("{label} / best")));
    // A second build of tabi is compared with the first one too.
    let pairs: Vec<_> = ours.iter().skip(1).map(|label| (*label, ours[0])).collect();
    head.extend(pairs.iter().map(|(label, first)| format!("{label} / {first}")));
    write_head(text, &head)?;
    for &(work, measure) in measures {
        let median = |label: &str| Some(results.spread(work, measure, label)?.median);
        let best = results.best_peer(work, measure);
        let mut row = cells(results, work, measure, |spread| number(spread.median));
        row.push(best.map_or("-".to_owned(), |(label, _)| label.to_owned()));
        row.extend(ours.iter().map(|label| ratio(median(label), best.map(|(_, best)| best))));
        row.extend(pairs.iter().map(|(label, first)| ratio(median(label), median(first))));
        write_row(text, work, measure, &row)?;
    }
    Ok(())
}

fn ratio(figure: Option<f64>, to: Option<f64>) -> String {
    figure.zip(to).map_or("-".to_owned(), |(figure, to)| format!("{:.2}", figure / to))
}

fn spreads(text: &mut String, results: &Results, measures: &[(Work, Measure)]) -> fmt::Result {
    writeln!(text, "\nThe least and the greatest of the rounds:")?;
    write_head(text, &labels(results))?;
    for &(work, measure) in measures {
        let row = cells(results, work, measure, |spread| {
            format!("{}-{}", number(spread.least), number(spread.greatest))
        });
        write_row(text, work, measure, &row)?;
    }
    Ok(())
}

fn failures(text: &mut String, results: &Results) -> fmt::Result {
    if !results.failures().is_empty() {
        writeln!(text, "\nFailed:\n")?;
    }
    for failure in results.failures() {
        let work = failure.work.map_or("start and digest check", Work::title);
        writeln!(text, "- {}, {work}: {}", failure.label, failure.reason)?;
    }
    Ok(())
}

fn labels(results: &Results) -> Vec<String> {
    results.contenders.iter().map(|contender| contender.label.clone()).collect()
}

fn write_head(text: &mut String, cells: &[String]) -> fmt::Result {
    writeln!(text, "\n| work | figure | {} |", cells.join(" | "))?;
    writeln!(text, "|---|---|{}", "---:|".repeat(cells.len()))
}

fn write_row(text: &mut String, work: Work, measure: Measure, cells: &[String]) -> fmt::Result {
    writeln!(text, "| {} | {} | {} |", work.title(), measure.name, cells.join(" | "))
}

/// One cell for each contender: the figure, or that it failed, or that there is none to be had.
fn cells(
    results: &Results,
    work: Work,
    measure: Measure,
    format: impl Fn(Spread) -> String,
) -> Vec<String> {
    let cell = |contender: &Contender| {
        if results.failure(Some(work), &contender.label).is_some() {
            return "failed".to_owned();
        }
        results.spread(work, measure, &contender.label).map_or("-".to_owned(), &format)
    };
    results.contenders.iter().map(cell).collect()
}

/// Three significant digits, and thousands set apart.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        let whole = format!("{value:.0}");
        let (thousands, rest) = whole.split_at(whole.len() - 3);
        return format!("{thousands},{rest}");
    }
    let decimals = if magnitude >= 100.0 {
        0
    } else if magnitude >= 10.0 {
        1
    } else if magnitude >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}
