//! The results as Markdown.

use std::fmt::{self, Write};
use std::fs;
use std::io;

use crate::contender::Contender;
use crate::figure::{Measure, Spread};
use crate::machine;
use crate::options::Options;
use crate::results::Results;
use crate::tunnel::By;
use crate::work::{SHORT_LAPS, Work};

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
        "{} interleaved rounds over loopback{}, in each {SHORT_LAPS} turns of the short works \
         (ping-pong, connections, requests); clients, back end and proxy share the cores.\n",
        results.rounds,
        if results.cut_short { ", the last cut short" } else { "" }
    )?;
    for contender in &results.contenders {
        let version = contender.version(&options.peers);
        let speaks: Vec<_> = contender.speaks.iter().map(By::to_string).collect();
        let speaks = if contender.is_proxy() { speaks.join(", ") } else { "-".to_owned() };
        writeln!(text, "- {}: {version}; {speaks}", contender.label)?;
    }
    if measures.iter().any(|(work, _)| work.needs_room()) {
        writeln!(text, "\n{NAMES}")?;
    }
    comparisons(&mut text, results, &measures)?;
    writeln!(text, "\nThe medians of all:")?;
    everybody(&mut text, results, &measures, |spread| number(spread.median))?;
    writeln!(text, "\nThe least and the greatest of the rounds:")?;
    everybody(&mut text, results, &measures, |spread| {
        format!("{}-{}", number(spread.least), number(spread.greatest))
    })?;
    failures(&mut text, results)?;
    Ok(text)
}

const NAMES: &str = "Names are those of a name server that answers after 20 ms; times are from a \
    client's connect to the target's first byte. Who never tries IPv6 is not hurt by a dead one: \
    dante with the rules of Debian's example, and go-socks5 where there is an IPv4 address.";

/// Each build of tabi beside the best peer, and beside the first build.
fn comparisons(text: &mut String, results: &Results, measures: &[(Work, Measure)]) -> fmt::Result {
    let ours = results.ours();
    let Some(first) = ours.first() else {
        return Ok(());
    };
    let peer = |(work, measure)| Some((work, results.best_peer(work, measure)?));
    let peers = measures.iter().any(|row| peer(*row).is_some());
    let by_http = measures.iter().filter(|(work, _)| work.by_socks() != *work);
    let by_http: Vec<_> = by_http.copied().collect();
    if peers || ours.len() > 1 || !by_http.is_empty() {
        writeln!(text, "\n{RATIOS}")?;
    }
    for label in ours.iter().filter(|_| peers) {
        writeln!(text, "\n{label} beside the best peer:")?;
        comparison(text, results, measures, label, peer)?;
    }
    for label in ours.iter().skip(1) {
        writeln!(text, "\n{label} beside {first}:")?;
        comparison(text, results, measures, label, |(work, _)| Some((work, first)))?;
    }
    let has_any = |label: &str| {
        by_http.iter().any(|(work, measure)| results.spread(*work, *measure, label).is_some())
    };
    for label in ours.iter().filter(|label| has_any(label)) {
        writeln!(text, "\n{label} by HTTP beside the same by SOCKS5:")?;
        comparison(text, results, &by_http, label, |(work, _)| Some((work.by_socks(), label)))?;
    }
    Ok(())
}

const RATIOS: &str = "A ratio is of two figures of the same turn. Shown is the median of all turns, \
    and in brackets where it lies with 95 % confidence (with fewer than six turns: from the least to \
    the greatest). Where that includes 1, the two cannot be told apart.";

fn comparison<'a>(
    text: &mut String,
    results: &'a Results,
    measures: &[(Work, Measure)],
    label: &str,
    other: impl Fn((Work, Measure)) -> Option<(Work, &'a str)>,
) -> fmt::Result {
    writeln!(text, "\n| work | figure | {label} | other | | ratio | verdict |")?;
    writeln!(text, "|---|---|---:|---:|---|---:|---|")?;
    for &(work, measure) in measures {
        let median =
            |(work, label): (Work, &str)| Some(results.spread(work, measure, label)?.median);
        let (ours, other) = ((work, label), other((work, measure)));
        let ratio = other.and_then(|other| results.ratio(measure, ours, other));
        let ours = results
            .failure(Some(work), label)
            .map_or_else(|| median(ours).map_or("-".to_owned(), number), |_| "failed".to_owned());
        let cells = [
            ours,
            other.and_then(median).map_or("-".to_owned(), number),
            other.map_or("-", |(of, label)| if of == work { label } else { of.title() }).to_owned(),
            ratio.map_or("-".to_owned(), |ratio| {
                format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.low, ratio.high)
            }),
            ratio.map_or("-", |ratio| ratio.verdict(measure.better).words()).to_owned(),
        ];
        write_row(text, work, measure, &cells)?;
    }
    Ok(())
}

/// One column a contender.
fn everybody(
    text: &mut String,
    results: &Results,
    measures: &[(Work, Measure)],
    format: impl Fn(Spread) -> String,
) -> fmt::Result {
    let labels: Vec<_> =
        results.contenders.iter().map(|contender| contender.label.as_str()).collect();
    writeln!(text, "\n| work | figure | {} |", labels.join(" | "))?;
    writeln!(text, "|---|---|{}", "---:|".repeat(labels.len()))?;
    for &(work, measure) in measures {
        write_row(text, work, measure, &cells(results, work, measure, &format))?;
    }
    Ok(())
}

fn failures(text: &mut String, results: &Results) -> fmt::Result {
    if !results.failures.is_empty() {
        writeln!(text, "\nFailed:\n")?;
    }
    for failure in &results.failures {
        let work = failure.work.map_or("start and digest check", Work::title);
        writeln!(text, "- {}, {work}: {}", failure.label, failure.reason)?;
    }
    if let Some(reason) = &results.left_out {
        writeln!(text, "\nLeft out: {reason}")?;
    }
    Ok(())
}

fn write_row(text: &mut String, work: Work, measure: Measure, cells: &[String]) -> fmt::Result {
    writeln!(text, "| {} | {} | {} |", work.title(), measure.name, cells.join(" | "))
}

/// One cell for each contender: the figure, or that it failed, or that there is none to be had.
fn cells(
    results: &Results,
    work: Work,
    measure: Measure,
    format: &impl Fn(Spread) -> String,
) -> Vec<String> {
    let cell = |contender: &Contender| {
        if results.failure(Some(work), &contender.label).is_some() {
            return "failed".to_owned();
        }
        results.spread(work, measure, &contender.label).map_or("-".to_owned(), format)
    };
    results.contenders.iter().map(cell).collect()
}

/// Three significant digits, and thousands set apart.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    // What is rounded up to a thousand is one.
    if magnitude >= 999.5 {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{comparisons, number};
    use crate::contender::Contender;
    use crate::figure::{Better, of_client};
    use crate::results::Results;
    use crate::tunnel::By;
    use crate::work::Work;

    #[test]
    fn what_is_asked_by_http_stands_beside_the_same_by_socks_where_tabi_speaks_it() {
        let contender = |label: &&str| Contender::parse(label, Path::new("")).unwrap();
        let mut results = Results::new(["tabi", "tabi-old"].iter().map(contender).collect());
        let (socks, http) = (Work::Connect(By::Socks5, 8), Work::Connect(By::HttpConnect, 8));
        let rate = of_client("conn/s", Better::Higher);
        results.add(socks, 0, "tabi", vec![(rate, 200.0)]);
        results.add(socks, 0, "tabi-old", vec![(rate, 200.0)]);
        results.add(http, 0, "tabi", vec![(rate, 190.0)]);
        let mut text = String::new();
        comparisons(&mut text, &results, &results.measures(&[socks, http])).unwrap();
        let (_, table) = text.split_once("tabi by HTTP beside the same by SOCKS5:").unwrap();
        let (title, beside) = (http.title(), socks.title());
        let row = format!("| {title} | conn/s | 190 | 200 | {beside} | 0.95 (0.95-0.95) |");
        assert!(table.contains(&row), "{table}");
        assert!(!text.contains("tabi-old by HTTP"), "{text}");
    }

    #[test]
    fn a_number_has_three_digits_or_its_thousands_set_apart() {
        let numbers = [
            (1234.4, "1,234"),
            (999.96, "1,000"),
            (999.4, "999"),
            (-1500.0, "-1,500"),
            (12.34, "12.3"),
            (0.0, "0.000"),
        ];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
