//! Imitation: the trajectory of the right line and mode against what the ego did.

use crate::graph::{Builder, Op, TensorId};

/// chosen `[imitated, F * 6]`, target `[B, F * 6]`, valid `[B, F]` -> scalar: smooth L1, mean over valid steps; with `regulate_yaw`
/// also how far the heading vectors are from unit length.
pub fn record(b: &mut Builder, chosen: TensorId, target: TensorId, valid: TensorId, steps: usize, regulate_yaw: bool) -> TensorId {
    let distance = b.loss(Op::SmoothL1 { steps, channels: 6, target_channels: 6 }, &[chosen, target, valid]);
    if !regulate_yaw {
        return distance;
    }
    let norm = b.loss(Op::UnitNorm { steps, channels: 6 }, &[chosen]);
    b.loss(Op::Sum, &[distance, norm])
}
