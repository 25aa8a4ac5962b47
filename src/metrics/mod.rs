//! Metrics, one per file: sums and counts over a batch; an epoch's value is total sum / total count.

mod min_ade;
mod min_fde;
mod miss_rate;
mod pred_avg_ade;
mod pred_avg_fde;

use crate::{
    data::batch::{Batch, Input, symbol},
    graph::RealsRef,
};

/// What the metrics read of the network's outputs.
#[derive(Debug, Clone, Copy)]
pub struct Predictions<'a> {
    /// `[R * M, F * 6]`.
    pub trajectory: RealsRef<'a>,
    /// `[R * M, 1]`.
    pub logits: RealsRef<'a>,
    /// `[A, F * 6]`.
    pub prediction: RealsRef<'a>,
    /// F.
    pub steps: usize,
    /// M.
    pub modes: usize,
}

/// Name, sum and count of every metric.
pub type MetricSums = [(&'static str, f64, f64); 5];

/// Sums over nothing.
pub const NONE: MetricSums =
    [("minADE", 0.0, 0.0), ("minFDE", 0.0, 0.0), ("MR", 0.0, 0.0), ("PredAvgADE", 0.0, 0.0), ("PredAvgFDE", 0.0, 0.0)];

/// Candidates of a scenario that the planning metrics look at; all where it has fewer.
const TOP: usize = 6;

/// Every metric over the imitated scenarios of a batch.
pub fn sums(predictions: &Predictions, batch: &Batch) -> MetricSums {
    let scenarios = batch.count(symbol::IMITATED);
    let mut sums = NONE;
    sums[..3].iter_mut().for_each(|sum| sum.2 = scenarios as f64);
    for scenario in 0..scenarios {
        let errors = Errors { predictions, batch, scenario, rows: most_probable(predictions, batch, scenario) };
        sums[0].1 += min_ade::of(&errors);
        sums[1].1 += min_fde::of(&errors);
        sums[2].1 += miss_rate::of(&errors);
    }
    for agent in 0..batch.count(symbol::AGENTS) {
        let errors = AgentErrors { predictions, batch, agent };
        for (total, (sum, count)) in sums[3..].iter_mut().zip([pred_avg_ade::of(&errors), pred_avg_fde::of(&errors)]) {
            *total = (total.0, total.1 + sum, total.2 + count);
        }
    }
    sums
}

/// The rows with the highest logits of a scenario, best first, and how many there are.
fn most_probable(predictions: &Predictions, batch: &Batch, scenario: usize) -> ([usize; TOP], usize) {
    let lines = &batch.lines[scenario];
    let (mut best, mut count) = ([0; TOP], 0);
    for row in lines.start * predictions.modes..lines.end * predictions.modes {
        let logit = predictions.logits.get(row);
        let place = best[..count].iter().position(|&b| logit > predictions.logits.get(b)).unwrap_or(count);
        if place < TOP {
            count = (count + 1).min(TOP);
            best.copy_within(place..count - 1, place + 1);
            best[place] = row;
        }
    }
    (best, count)
}

/// Distances of the best candidates of a scenario to what the ego did.
struct Errors<'a> {
    predictions: &'a Predictions<'a>,
    batch: &'a Batch,
    scenario: usize,
    rows: ([usize; TOP], usize),
}

impl Errors<'_> {
    fn steps(&self) -> usize {
        self.predictions.steps
    }
    /// Rows of the candidates.
    fn rows(&self) -> &[usize] {
        &self.rows.0[..self.rows.1]
    }
    /// Metres between candidate and truth at a step.
    fn at(&self, row: usize, step: usize) -> f64 {
        let guess = (row * self.steps() + step) * 6;
        let truth = &self.batch.ego_future[(self.scenario * self.steps() + step) * 3..];
        let trajectory = self.predictions.trajectory;
        (trajectory.get(guess) - truth[0]).hypot(trajectory.get(guess + 1) - truth[1])
    }
}

/// Distances of an agent's predicted future to what it did.
struct AgentErrors<'a> {
    predictions: &'a Predictions<'a>,
    batch: &'a Batch,
    agent: usize,
}

impl AgentErrors<'_> {
    fn steps(&self) -> usize {
        self.predictions.steps
    }
    /// Element of an input slot.
    fn input(&self, slot: Input, element: usize) -> f64 {
        let feed = &self.batch.feed;
        feed.reals.view().get(feed.real_slots[slot as usize].start + element)
    }
    /// Metres between prediction and truth at a step; none where the truth is not known.
    fn at(&self, step: usize) -> Option<f64> {
        let step = self.agent * self.steps() + step;
        (self.input(Input::AgentValid, step) != 0.0).then(|| {
            let truth = [self.input(Input::AgentTarget, step * 6), self.input(Input::AgentTarget, step * 6 + 1)];
            let guess = self.predictions.prediction;
            (guess.get(step * 6) - truth[0]).hypot(guess.get(step * 6 + 1) - truth[1])
        })
    }
}

/// Values by logged name, in the order in which they were logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricTable(pub Vec<(String, f64)>);

impl MetricTable {
    /// Value of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
    /// Sets or adds a value.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.0.push((name, value)),
        }
    }
}

/// As a mapping; what is not finite is null.
impl serde::Serialize for MetricTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(n, v)| (n, v)))
    }
}

impl<'de> serde::Deserialize<'de> for MetricTable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = serde_json::Map::deserialize(deserializer)?;
        Ok(Self(values.into_iter().map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect()))
    }
}
