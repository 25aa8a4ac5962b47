//! The projected ego token of an anchor is nearer to that of its positive than to that of its negative
//! (T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020).

use crate::{
    data::batch::Index,
    graph::{Builder, Op, TensorId},
};

const TEMPERATURE: f64 = 0.1;

/// hidden `[B, D]` -> scalar.
pub fn record(b: &mut Builder, hidden: TensorId) -> TensorId {
    b.loss(Op::Triplet { triplets: Index::Triplets as usize, temperature: TEMPERATURE }, &[hidden])
}
