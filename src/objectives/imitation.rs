//! nuPlan's imitation of the ego: with N steps and the weight s of the scenario's type,
//! mean(s ‖Δ(x, y)‖² / 2) + mean(s |Δθ|), or with decay mean(s e^(-i/N) (|Δx| + |Δy|) / 2) + mean(s e^(-i/N) |Δθ|) over scenarios and
//! steps i from 0. Headings lie in (-π, π], and their difference is not wrapped. Steps that are not known do not count.

use crate::{
    config::module::{Objective, Term},
    data::batch::{Input, symbol},
    graph::{Builder, Op, Rows, TensorId},
};

/// chosen `[imitated, F * 6]`, target `[B, F * 6]`, valid `[B, F]` -> scalar.
pub fn record(b: &mut Builder, chosen: TensorId, target: TensorId, valid: TensorId, steps: usize, term: &Term) -> TensorId {
    let decay = term.objective == Objective::DecayingImitation;
    // Type weight / number of known steps in the batch.
    let weight = b.input("imitation weight", Input::ImitationWeight as usize, Rows::of(symbol::IMITATED), 1);
    let factors = [term.weight / 2.0, term.weight];
    b.loss(Op::Imitation { steps, square: [!decay, false], factors, decay }, &[chosen, target, valid, weight])
}
