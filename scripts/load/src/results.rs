//! Everything a run has found out.

use crate::contender::{Contender, Kind};
use crate::figure::{Better, Figure, Measure, Spread};
use crate::ratio::Ratio;
use crate::work::Work;

/// The figures of all rounds, and what went wrong.
pub(crate) struct Results {
    pub(crate) contenders: Vec<Contender>,
    entries: Vec<Entry>,
    pub(crate) failures: Vec<Failure>,
    /// Works that cannot be done here, and why.
    pub(crate) left_out: Option<String>,
    /// How many rounds were begun.
    pub(crate) rounds: u32,
    /// Whether time was up in the last of them.
    pub(crate) cut_short: bool,
}

/// One figure of a contender.
struct Entry {
    work: Work,
    measure: Measure,
    label: String,
    /// Which time in a row the work was done, counted through all rounds.
    lap: u32,
    value: f64,
}

/// Why a contender has no figure.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) label: String,
    /// None where it did not even come up.
    pub(crate) work: Option<Work>,
    pub(crate) reason: String,
}

impl Results {
    pub(crate) fn new(contenders: Vec<Contender>) -> Results {
        Results {
            contenders,
            entries: Vec::new(),
            failures: Vec::new(),
            left_out: None,
            rounds: 0,
            cut_short: false,
        }
    }

    pub(crate) fn add(&mut self, work: Work, lap: u32, label: &str, figures: Vec<Figure>) {
        let entry = |(measure, value)| Entry { work, measure, label: label.to_owned(), lap, value };
        self.entries.extend(figures.into_iter().map(entry));
    }

    pub(crate) fn fail(&mut self, work: Option<Work>, label: &str, reason: String) {
        self.failures.push(Failure { label: label.to_owned(), work, reason });
    }

    /// Why a contender has no figures for a work, if so.
    pub(crate) fn failure(&self, work: Option<Work>, label: &str) -> Option<&Failure> {
        self.failures.iter().find(|failure| {
            failure.label == label && (failure.work.is_none() || failure.work == work)
        })
    }

    /// Every work and measure there is a figure of, in the order of the works given.
    pub(crate) fn measures(&self, works: &[Work]) -> Vec<(Work, Measure)> {
        let mut measures = Vec::new();
        for work in works {
            for entry in self.entries.iter().filter(|entry| entry.work == *work) {
                if !measures.contains(&(*work, entry.measure)) {
                    measures.push((*work, entry.measure));
                }
            }
        }
        measures
    }

    /// The figures of one contender, each with its lap.
    fn figures(&self, work: Work, measure: Measure, label: &str) -> Vec<(u32, f64)> {
        let is_wanted =
            |entry: &&Entry| entry.work == work && entry.measure == measure && entry.label == label;
        self.entries.iter().filter(is_wanted).map(|entry| (entry.lap, entry.value)).collect()
    }

    /// What the rounds say of one measure of one contender.
    pub(crate) fn spread(&self, work: Work, measure: Measure, label: &str) -> Option<Spread> {
        let figures = self.figures(work, measure, label);
        Spread::of(&figures.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    }

    /// One contender at a work beside another or at another, lap by lap. None where either has failed.
    pub(crate) fn ratio(
        &self,
        measure: Measure,
        one: (Work, &str),
        other: (Work, &str),
    ) -> Option<Ratio> {
        if [one, other].iter().any(|(work, label)| self.failure(Some(*work), label).is_some()) {
            return None;
        }
        let others = self.figures(other.0, measure, other.1);
        let beside = |(lap, value): (u32, f64)| {
            let (_, other) = others.iter().find(|(other, _)| *other == lap)?;
            Some((value, *other))
        };
        let ones = self.figures(one.0, measure, one.1);
        Ratio::of(&ones.into_iter().filter_map(beside).collect::<Vec<_>>())
    }

    /// The peer with the best median: neither tabi nor the run without a proxy.
    pub(crate) fn best_peer(&self, work: Work, measure: Measure) -> Option<&str> {
        let peers = self.contenders.iter().filter(|contender| {
            !matches!(contender.kind, Kind::Tabi | Kind::Direct)
                && self.failure(Some(work), &contender.label).is_none()
        });
        let medians = peers.filter_map(|peer| {
            Some((peer.label.as_str(), self.spread(work, measure, &peer.label)?.median))
        });
        let best = medians.min_by(|(_, one), (_, other)| match measure.better {
            Better::Lower => one.total_cmp(other),
            Better::Higher => other.total_cmp(one),
        });
        best.map(|(label, _)| label)
    }

    /// The labels of tabi's builds, in the order given.
    pub(crate) fn ours(&self) -> Vec<&str> {
        let ours = self.contenders.iter().filter(|contender| contender.kind == Kind::Tabi);
        ours.map(|contender| contender.label.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Results;
    use crate::contender::Contender;
    use crate::figure::{Better, Measure, of_client};
    use crate::tunnel::By;
    use crate::work::Work;

    const RATE: Measure = of_client("conn/s", Better::Higher);
    const WORK: Work = Work::Connect(By::Socks5, 1);

    fn results(labels: &[&str]) -> Results {
        let contender = |label: &&str| Contender::parse(label, Path::new("")).unwrap();
        Results::new(labels.iter().map(contender).collect())
    }

    #[test]
    fn a_lap_that_only_one_has_finished_is_in_no_ratio() {
        let mut results = results(&["tabi", "merino"]);
        for lap in 0..3 {
            results.add(WORK, lap, "tabi", vec![(RATE, 2.0 * f64::from(lap + 1))]);
        }
        results.add(WORK, 2, "merino", vec![(RATE, 3.0)]);
        results.add(WORK, 0, "merino", vec![(RATE, 1.0)]);
        let ratio = results.ratio(RATE, (WORK, "tabi"), (WORK, "merino")).unwrap();
        assert!((ratio.low - 2.0).abs() < 1e-9 && (ratio.high - 2.0).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn a_work_is_set_beside_another_of_the_same_lap() {
        let mut results = results(&["tabi"]);
        let by_http = Work::Connect(By::HttpConnect, 1);
        for lap in 0..3 {
            results.add(WORK, lap, "tabi", vec![(RATE, 2.0 * f64::from(lap + 1))]);
            results.add(by_http, lap, "tabi", vec![(RATE, f64::from(lap + 1))]);
        }
        let ratio = results.ratio(RATE, (by_http, "tabi"), (by_http.by_socks(), "tabi")).unwrap();
        assert!((ratio.low - 0.5).abs() < 1e-9 && (ratio.high - 0.5).abs() < 1e-9, "{ratio:?}");
        results.fail(Some(WORK), "tabi", "ended early".to_owned());
        assert_eq!(results.ratio(RATE, (by_http, "tabi"), (WORK, "tabi")), None);
    }

    #[test]
    fn a_peer_that_fails_later_is_not_the_best() {
        let mut results = results(&["direct", "tabi", "merino", "dante"]);
        for (label, rate) in [("direct", 9.0), ("tabi", 4.0), ("merino", 3.0), ("dante", 2.0)] {
            results.add(WORK, 0, label, vec![(RATE, rate)]);
        }
        assert_eq!(results.best_peer(WORK, RATE), Some("merino"));
        results.fail(Some(WORK), "merino", "ended early".to_owned());
        assert_eq!(results.best_peer(WORK, RATE), Some("dante"));
        assert_eq!(results.ratio(RATE, (WORK, "tabi"), (WORK, "merino")), None);
    }
}
