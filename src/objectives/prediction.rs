//! The other agents' futures.

use crate::{
    data::batch::{Input, symbol},
    graph::{Builder, Op, Rows, TensorId},
};

/// prediction `[A, F * 6]` -> scalar: smooth L1, mean over valid steps.
pub fn record(b: &mut Builder, prediction: TensorId, steps: usize) -> TensorId {
    let agents = Rows::of(symbol::AGENTS);
    let target = b.input("agent target", Input::AgentTarget as usize, agents, steps * 6);
    let valid = b.input("agent valid", Input::AgentValid as usize, agents, steps);
    b.loss(Op::SmoothL1 { steps, channels: 6, target_channels: 6 }, &[prediction, target, valid])
}
