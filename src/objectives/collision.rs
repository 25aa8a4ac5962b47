//! The ego stays on the drivable area: discs that cover it are held against the signed distance to its edge.
//!
//! Disc k of step t has its centre c = (x, y) + offset_k (cos, sin). The distance d there is interpolated bilinearly in the map, whose
//! column grows with x, whose row falls with y, and in whose middle the ego stands (pixel centres half a pixel off the
//! corners, zero outside). A disc counts where radius - d > 0, both coordinates are within 0.95 of half the map, and the
//! scenario's ego stands on the drivable area. The loss is the sum of radius - d over the discs that count, divided by
//! (their number + 1e-6).

use crate::{
    data::batch::{Input, symbol},
    graph::{Builder, Op, Rows, TensorId},
};

const DISCS: usize = 3;
/// The ego's width, and how far it reaches before and behind the rear axle, metres.
const WIDTH: f64 = 2.297;
const FRONT: f64 = 4.049;
const REAR: f64 = 1.127;
/// Metres a pixel.
pub const RESOLUTION: f64 = 0.2;

/// chosen `[imitated, F * 6]` -> scalar.
pub fn record(b: &mut Builder, chosen: TensorId, steps: usize, size: usize) -> TensorId {
    let map = b.input("cost map", Input::CostMap as usize, Rows::of(symbol::IMITATED), size * size);
    let interval = (FRONT + REAR) / DISCS as f64;
    let discs = (0..DISCS).map(|k| interval / 2.0 * (2 * k + 1) as f64 - REAR).collect();
    let radius = (WIDTH * WIDTH + interval * interval).sqrt() / 2.0 - RESOLUTION;
    b.loss(Op::Collision { steps, channels: 6, size, discs, radius, resolution: RESOLUTION }, &[chosen, map])
}
