//! Scores: cross entropy over all lines and modes of a scenario.

use crate::{
    data::batch::Index,
    graph::{Builder, Op, TensorId},
};

/// logits `[R * M, 1]` -> scalar.
pub fn record(b: &mut Builder, logits: TensorId) -> TensorId {
    b.loss(Op::CrossEntropy { segments: Index::ChoiceSegments as usize, target: Index::Choice as usize }, &[logits])
}
