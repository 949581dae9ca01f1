//! Everything a run has found out.

use crate::contender::{Contender, Kind};
use crate::figure::{Better, Figure, Measure, Spread};
use crate::work::Work;

/// The figures of all rounds, and what went wrong.
pub(crate) struct Results {
    pub(crate) contenders: Vec<Contender>,
    rows: Vec<Row>,
    failures: Vec<Failure>,
    /// How many rounds were played to the end.
    pub(crate) rounds: u32,
}

/// All figures of one measure.
struct Row {
    work: Work,
    measure: Measure,
    figures: Vec<(String, f64)>,
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
        Results { contenders, rows: Vec::new(), failures: Vec::new(), rounds: 0 }
    }

    pub(crate) fn add(&mut self, work: Work, label: &str, figures: Vec<Figure>) {
        for (measure, value) in figures {
            let figure = (label.to_owned(), value);
            match self.rows.iter_mut().find(|row| row.work == work && row.measure == measure) {
                Some(row) => row.figures.push(figure),
                None => self.rows.push(Row { work, measure, figures: vec![figure] }),
            }
        }
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

    pub(crate) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Every work and measure there is a figure of, in the order of the works given.
    pub(crate) fn measures(&self, works: &[Work]) -> Vec<(Work, Measure)> {
        let of = |work: &Work| {
            let rows = self.rows.iter().filter(|row| row.work == *work);
            rows.map(|row| (row.work, row.measure)).collect::<Vec<_>>()
        };
        works.iter().flat_map(of).collect()
    }

    /// What the rounds say of one measure of one contender.
    pub(crate) fn spread(&self, work: Work, measure: Measure, label: &str) -> Option<Spread> {
        let row = self.rows.iter().find(|row| row.work == work && row.measure == measure)?;
        let figures = row.figures.iter().filter(|(other, _)| other == label);
        Spread::of(&figures.map(|(_, value)| *value).collect::<Vec<_>>())
    }

    /// The best median among the peers: neither tabi nor the run without a proxy.
    pub(crate) fn best_peer(&self, work: Work, measure: Measure) -> Option<(&str, f64)> {
        let peers = self
            .contenders
            .iter()
            .filter(|contender| !matches!(contender.kind, Kind::Tabi | Kind::Direct));
        let medians = peers.filter_map(|peer| {
            Some((peer.label.as_str(), self.spread(work, measure, &peer.label)?.median))
        });
        medians.min_by(|(_, one), (_, other)| match measure.better {
            Better::Lower => one.total_cmp(other),
            Better::Higher => other.total_cmp(one),
        })
    }
}
