//! Metrics, one per file: sums and counts over a batch; an epoch's value is total sum / total count. (The published trainer
//! takes the mean over batches of each batch's value, in which a short last batch and a batch with few agents count too much.)

mod displacement;
mod heading;
mod min_ade;
mod min_fde;
mod miss_rate;
mod pred_avg_ade;
mod pred_avg_fde;

use crate::{
    config::{
        ObjectiveConfig,
        module::{Metric, ModuleKind},
    },
    data::batch::{Batch, Input, symbol},
    graph::RealsRef,
};
use arrayvec::ArrayVec;
use std::ops::Range;

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

/// Name, sum and count of every metric that is wanted, without an allocation.
pub type MetricSums = ArrayVec<(&'static str, f64, f64), { Metric::ALL.len() }>;

/// The metrics of PLUTO's trainer.
const PLUTO: [Metric; 5] = [Metric::MinAde, Metric::MinFde, Metric::MissRate, Metric::PredAvgAde, Metric::PredAvgFde];

/// The metrics of a module.
pub fn wanted(objectives: &ObjectiveConfig) -> &[Metric] {
    match objectives.module {
        ModuleKind::Pluto => &PLUTO,
        ModuleKind::Standard => &objectives.metrics,
    }
}

/// The name under which a metric of a pass is logged: `val/minADE`, `metrics/val_avg_displacement_error`.
pub fn logged_name(prefix: &str, name: &str) -> String {
    if PLUTO.iter().any(|metric| metric.name() == name) { format!("{prefix}/{name}") } else { format!("metrics/{prefix}_{name}") }
}

/// Candidates of a scenario that the planning metrics look at; all where it has fewer.
const TOP: usize = 6;

/// Every metric that is wanted, over the imitated scenarios of a batch.
pub fn sums(predictions: &Predictions, batch: &Batch, wanted: &[Metric]) -> MetricSums {
    let mut sums: MetricSums = wanted.iter().map(|metric| (metric.name(), 0.0, 0.0)).collect();
    let mut add = |of: &dyn Fn(Metric) -> Option<(f64, f64)>| {
        for (metric, (_, sum, count)) in wanted.iter().zip(&mut sums) {
            let (value, weight) = of(*metric).unwrap_or_default();
            *sum += value;
            *count += weight;
        }
    };
    for scenario in 0..batch.count(symbol::IMITATED) {
        let errors = Errors { predictions, batch, scenario, rows: most_probable(predictions, batch, scenario) };
        let agents = AgentsOf { predictions, batch, agents: batch.agents[scenario].clone() };
        add(&|metric| match metric {
            Metric::MinAde => Some((min_ade::of(&errors), 1.0)),
            Metric::MinFde => Some((min_fde::of(&errors), 1.0)),
            Metric::MissRate => Some((miss_rate::of(&errors), 1.0)),
            Metric::AverageDisplacement => Some((displacement::average(&errors), 1.0)),
            Metric::FinalDisplacement => Some((displacement::last(&errors), 1.0)),
            Metric::AverageHeading => Some((heading::average(&errors), 1.0)),
            Metric::FinalHeading => Some((heading::last(&errors), 1.0)),
            Metric::AgentsAverageDisplacement => displacement::agents(&agents, agents.steps()),
            Metric::AgentsFinalDisplacement => displacement::agents(&agents, agents.last()),
            Metric::AgentsAverageHeading => heading::agents(&agents, agents.steps()),
            Metric::AgentsFinalHeading => heading::agents(&agents, agents.last()),
            Metric::PredAvgAde | Metric::PredAvgFde => None,
        });
    }
    if wanted.iter().any(|metric| matches!(metric, Metric::PredAvgAde | Metric::PredAvgFde)) {
        for agent in 0..batch.count(symbol::AGENTS) {
            let errors = AgentErrors { predictions, batch, agent };
            add(&|metric| match metric {
                Metric::PredAvgAde => Some(pred_avg_ade::of(&errors)),
                Metric::PredAvgFde => Some(pred_avg_fde::of(&errors)),
                _ => None,
            });
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
    /// The most probable candidate; none without a line.
    fn best(&self) -> Option<usize> {
        self.rows().first().copied()
    }
    /// Radians between candidate and truth at a step: absolute, not wrapped, of headings in (-π, π].
    fn turn(&self, row: usize, step: usize) -> f64 {
        let guess = (row * self.steps() + step) * 6;
        let (sin, cos) = self.batch.ego_future[(self.scenario * self.steps() + step) * 3 + 2].sin_cos();
        let trajectory = self.predictions.trajectory;
        (trajectory.get(guess + 3).atan2(trajectory.get(guess + 2)) - sin.atan2(cos)).abs()
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
    /// True where the truth is known.
    fn known(&self, step: usize) -> bool {
        self.input(Input::AgentValid, self.agent * self.steps() + step) != 0.0
    }
    /// Metres between prediction and truth at a step; none where the truth is not known.
    fn at(&self, step: usize) -> Option<f64> {
        let element = (self.agent * self.steps() + step) * 6;
        self.known(step).then(|| {
            let truth = [0, 1].map(|i| self.input(Input::AgentTarget, element + i));
            let guess = self.predictions.prediction;
            (guess.get(element) - truth[0]).hypot(guess.get(element + 1) - truth[1])
        })
    }
    /// Radians between prediction and truth at a step, as [`Errors::turn`]; none where the truth is not known.
    fn turn(&self, step: usize) -> Option<f64> {
        let element = (self.agent * self.steps() + step) * 6;
        self.known(step).then(|| {
            let [cos, sin] = [2, 3].map(|i| self.input(Input::AgentTarget, element + i));
            let guess = self.predictions.prediction;
            (guess.get(element + 3).atan2(guess.get(element + 2)) - sin.atan2(cos)).abs()
        })
    }
}

/// All agents of a scenario.
struct AgentsOf<'a> {
    predictions: &'a Predictions<'a>,
    batch: &'a Batch,
    agents: Range<usize>,
}

impl<'a> AgentsOf<'a> {
    /// All steps.
    fn steps(&self) -> Range<usize> {
        0..self.predictions.steps
    }
    /// The last step.
    fn last(&self) -> Range<usize> {
        self.predictions.steps - 1..self.predictions.steps
    }
    /// Mean over agents and steps of what `of` gives, and 1; none if it gives nothing.
    fn mean(&self, steps: Range<usize>, of: impl Fn(&AgentErrors<'a>, usize) -> Option<f64>) -> Option<(f64, f64)> {
        let (mut sum, mut count) = (0.0, 0.0);
        for agent in self.agents.clone() {
            let errors = AgentErrors { predictions: self.predictions, batch: self.batch, agent };
            for error in steps.clone().filter_map(|step| of(&errors, step)) {
                sum += error;
                count += 1.0;
            }
        }
        (count > 0.0).then(|| (sum / count, 1.0))
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
