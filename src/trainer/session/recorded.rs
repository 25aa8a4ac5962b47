//! The graphs that a session runs, and what is told of their nodes.

use crate::{
    backend::NonFinite,
    config::{ModelConfig, ObjectiveConfig},
    data::batch::Batch,
    error::{Error, Result},
    graph::{Builder, Graph, Mode, Node, Parameters, Pass, Plan, autodiff},
    metrics, model, objectives,
    trainer::trace::{Phase, Trace},
};
use std::time::Instant;

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Losses and gradients.
    Train,
    /// Losses without gradients.
    Evaluate,
    /// The network alone.
    Predict,
}

/// A recorded graph with its memory plan.
pub struct Recorded {
    pub plan: Plan,
    pub outputs: model::Outputs,
    pub losses: objectives::Losses,
    pub cost_map_size: usize,
}

/// Takes note of every node and of the two passes: `times` has the start, and the end of each node.
pub fn note_nodes(trace: &Trace, plan: &Plan, times: &[Instant]) {
    let nodes = &plan.graph.nodes;
    let mut start = 0;
    // A device may change from one pass to the other more than once.
    for run in nodes.chunk_by(|a, b| pass(a) == pass(b)) {
        let phase = if run[0].pass == Pass::Forward { Phase::Forward } else { Phase::Backward };
        trace.span(phase, times[start], times[start + run.len()]);
        start += run.len();
    }
    for (node, time) in nodes.iter().zip(times.windows(2)) {
        trace.operation(&node.name, pass(node), time[0], time[1]);
    }
}

fn pass(node: &Node) -> &'static str {
    match node.pass {
        Pass::Forward => "forward",
        Pass::Again | Pass::Backward => "backward",
    }
}

/// Names what was not finite.
pub fn anomaly(found: NonFinite, plan: &Plan, parameters: &Parameters, batch: &Batch) -> Error {
    let what = match found {
        NonFinite::Node(node) => {
            let node = &plan.graph.nodes[node];
            format!("{} of '{}'", if node.pass == Pass::Backward { "a gradient" } else { "the value" }, node.name)
        }
        NonFinite::Gradient(element) => format!("the gradient of parameter '{}'", parameters.name_at(element).unwrap_or("?")),
    };
    Error::NotFinite(format!("{what}, with scenarios {}", batch.tokens.join(", ")))
}

/// Records a graph.
pub fn record(
    purpose: Purpose,
    parameters: &Parameters,
    frozen: &[String],
    config: &ModelConfig,
    options: &ObjectiveConfig,
    cost_map_size: usize,
) -> Result<(Graph, model::Outputs, objectives::Losses)> {
    let mut b = Builder::new(if purpose == Purpose::Train { Mode::Train } else { Mode::Evaluate });
    b.freeze(frozen);
    let outputs = model::record(&mut b, parameters, config)?;
    let mut losses = objectives::Losses::new();
    if purpose != Purpose::Predict {
        losses = objectives::record(&mut b, &outputs, parameters, config, options, cost_map_size)?;
        losses.iter().filter_map(|(name, loss)| Some((name, (*loss)?))).for_each(|(name, loss)| b.result(name, loss));
        let sums = metrics::record(&mut b, &outputs, metrics::wanted(options), config.future_steps)?;
        sums.into_iter().for_each(|sums| b.result("metrics", sums));
    }
    let named = [("trajectory", outputs.trajectory), ("probability", outputs.logits), ("prediction", outputs.prediction)];
    named.into_iter().for_each(|(name, tensor)| b.result(name, tensor));
    let optional = [("hidden", outputs.hidden), ("ref_free_trajectory", outputs.ref_free_trajectory)];
    optional.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).for_each(|(name, tensor)| b.result(name, tensor));

    let mut graph = b.finish();
    if let (Purpose::Train, Some((_, Some(loss)))) = (purpose, losses.last()) {
        let idle = objectives::idle(options, config);
        let without_gradient: Vec<&str> = idle.into_iter().chain(frozen.iter().map(String::as_str)).collect();
        autodiff::differentiate(&mut graph, *loss, parameters, &without_gradient)?;
    }
    Ok((graph, outputs, losses))
}
