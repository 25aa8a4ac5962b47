//! Metrics: sums and counts over a batch, computed with the losses; an epoch's value is total sum / total count. (The published trainer
//! takes the mean over batches of each batch's value, in which a short last batch and a batch with few agents count too much.)

mod table;

use crate::{
    config::{
        ObjectiveConfig,
        module::{Metric, ModuleKind},
    },
    data::batch::{Index, Input, symbol},
    error::Result,
    graph::{Builder, Deviation, Measure, Rows, Subject, TensorId},
    model::Outputs,
};
use arrayvec::ArrayVec;
pub use table::MetricTable;

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

/// True if a value with this logged name, a loss or a metric, is one of a pass: `val/minADE` and `loss/val_loss` of `val`.
pub fn is_of(prefix: &str, name: &str) -> bool {
    name.split_once('/').is_some_and(|(group, rest)| {
        let grouped = ["loss", "objectives", "metrics"].contains(&group);
        group == prefix || (grouped && rest.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_')))
    })
}

/// Candidates of a scenario that PLUTO's metrics of the ego look at.
const TOP: usize = 6;
/// Metres from the truth at which a trajectory misses its end.
const MISS: f64 = 2.0;

/// What a metric measures. PLUTO's: the best of the most probable candidates, and every agent by itself. nuPlan's: the most probable
/// candidate, and the agents of a scenario together; its heading errors are published with headings on two sides of ±π counting
/// negatively.
fn measure(metric: Metric) -> Measure {
    use Deviation::{Beyond, Distance, Turn};
    let (subject, deviation, last) = match metric {
        Metric::MinAde => (Subject::Ego(TOP), Distance, false),
        Metric::MinFde => (Subject::Ego(TOP), Distance, true),
        Metric::MissRate => (Subject::Ego(TOP), Beyond(MISS), true),
        Metric::PredAvgAde => (Subject::Agent, Distance, false),
        Metric::PredAvgFde => (Subject::Agent, Distance, true),
        Metric::AverageDisplacement => (Subject::Ego(1), Distance, false),
        Metric::FinalDisplacement => (Subject::Ego(1), Distance, true),
        Metric::AverageHeading => (Subject::Ego(1), Turn, false),
        Metric::FinalHeading => (Subject::Ego(1), Turn, true),
        Metric::AgentsAverageDisplacement => (Subject::Agents, Distance, false),
        Metric::AgentsFinalDisplacement => (Subject::Agents, Distance, true),
        Metric::AgentsAverageHeading => (Subject::Agents, Turn, false),
        Metric::AgentsFinalHeading => (Subject::Agents, Turn, true),
    };
    Measure { subject, deviation, last }
}

/// Records the metrics that are wanted, over the imitated scenarios of a batch: sum and count of each, `[1, 2n]`; none if none is.
///
/// # Errors
/// [`Error::Graph`](crate::error::Error::Graph) if shapes do not fit.
pub fn record(b: &mut Builder, outputs: &Outputs, wanted: &[Metric], steps: usize) -> Result<Option<TensorId>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    b.enter("metrics");
    let (scenarios, agents) = (Rows::of(symbol::SCENARIOS), Rows::of(symbol::AGENTS));
    let ego = b.input("ego target", Input::EgoTarget as usize, scenarios, steps * 6);
    let target = b.input("agent target", Input::AgentTarget as usize, agents, steps * 6);
    let valid = b.input("agent valid", Input::AgentValid as usize, agents, steps);
    let operands = [outputs.trajectory, outputs.logits, outputs.prediction, ego, target, valid];
    let lists = [Index::ChoiceSegments, Index::AgentToken, Index::TokenScenario].map(|list| list as usize);
    let sums = b.metrics(operands, steps, lists, wanted.iter().copied().map(measure).collect())?;
    b.leave();
    Ok(Some(sums))
}
