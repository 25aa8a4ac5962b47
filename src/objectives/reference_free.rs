//! Imitation without a reference line: positions and heading alone.

use crate::graph::{Builder, Op, TensorId};

/// free `[B, F * 4]`, target `[B, F * 6]`, valid `[B, F]` -> scalar.
pub fn record(b: &mut Builder, free: TensorId, target: TensorId, valid: TensorId, steps: usize) -> TensorId {
    b.loss(Op::SmoothL1 { steps, channels: 4, target_channels: 6 }, &[free, target, valid])
}
