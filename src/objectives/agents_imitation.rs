//! nuPlan's imitation of the other agents: mean over scenarios of the mean squared error of x, y and heading over the scenario's
//! agents and known steps. Headings as for the ego; a scenario in which nothing is known does not count.

use crate::{
    data::batch::{Input, symbol},
    graph::{Builder, Op, Rows, TensorId},
};

/// prediction `[A, F * 6]` -> scalar.
pub fn record(b: &mut Builder, prediction: TensorId, steps: usize, weight: f64) -> TensorId {
    let agents = Rows::of(symbol::AGENTS);
    let target = b.input("agent target", Input::AgentTarget as usize, agents, steps * 6);
    let valid = b.input("agent valid", Input::AgentValid as usize, agents, steps);
    // 1 / number of known steps in the scenario / number of scenarios.
    let share = b.input("agent weight", Input::AgentWeight as usize, agents, 1);
    let factors = [weight / 3.0; 2];
    b.loss(Op::Imitation { steps, square: [true, true], factors, decay: false }, &[prediction, target, valid, share])
}
