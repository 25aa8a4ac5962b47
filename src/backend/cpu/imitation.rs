//! Imitation of poses; in double precision, as all losses.

use super::{
    call::{Call, block},
    losses::{result, scale},
    math::Real,
};
use crate::graph::Op;

/// Channels of a step.
const CHANNELS: usize = 6;

/// The operands and options of a call; see [`Op::Imitation`].
struct Imitation<'a, T> {
    x: &'a [T],
    target: &'a [T],
    valid: &'a [T],
    weight: &'a [T],
    rows: usize,
    steps: usize,
    square: [bool; 2],
    factors: [f64; 2],
    decay: bool,
}

impl<'a, T: Real> Imitation<'a, T> {
    fn of(call: &Call<'a, T>) -> Self {
        let Op::Imitation { steps, square, factors, decay } = call.node.op else { unreachable!("imitation") };
        let [x, target, valid, weight] = std::array::from_fn(|i| call.input(i).0);
        Self { x, target, valid, weight, rows: call.input_rows(0), steps, square, factors, decay }
    }

    /// What position and heading of a step count, if it is known.
    fn weights(&self, row: usize, step: usize) -> Option<[f64; 2]> {
        let decay = if self.decay { (-(step as f64) / self.steps as f64).exp() } else { 1.0 };
        let weight = self.weight[row].f64() * decay;
        (self.valid[row * self.steps + step] != T::ZERO).then(|| self.factors.map(|factor| weight * factor))
    }

    /// Differences in x, y and heading.
    fn difference(&self, row: usize, step: usize) -> [f64; 3] {
        let pose = |values: &[T]| {
            let [x, y, cos, sin] = std::array::from_fn(|i| values[(row * self.steps + step) * CHANNELS + i].f64());
            [x, y, sin.atan2(cos)]
        };
        let (a, b) = (pose(self.x), pose(self.target));
        std::array::from_fn(|i| a[i] - b[i])
    }
}

pub fn forward<T: Real>(call: &mut Call<T>) {
    let o = Imitation::of(call);
    let power = |square: bool, d: f64| if square { d * d } else { d.abs() };
    let mut total = 0.0;
    for row in 0..o.rows {
        for step in 0..o.steps {
            let Some([position, heading]) = o.weights(row, step) else { continue };
            let [dx, dy, turn] = o.difference(row, step);
            total += position * (power(o.square[0], dx) + power(o.square[0], dy)) + heading * power(o.square[1], turn);
        }
    }
    result(call, total);
}

pub fn backward<T: Real>(call: &mut Call<T>) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (o, scale) = (Imitation::of(call), scale(call));
    let width = o.steps * CHANNELS;
    let slope = |square: bool, d: f64| {
        if square {
            2.0 * d
        } else if d == 0.0 {
            0.0
        } else {
            d.signum()
        }
    };
    call.for_rows(o.rows, block(8 * width), [dx], 0, |range, [dx], _| {
        for (row, dx) in range.zip(dx.chunks_exact_mut(width)) {
            for (step, dx) in dx.chunks_exact_mut(CHANNELS).enumerate() {
                let mut slopes = [0.0; CHANNELS];
                if let Some([position, heading]) = o.weights(row, step) {
                    let [x, y, turn] = o.difference(row, step);
                    let [cos, sin] = [2, 3].map(|i| o.x[row * width + step * CHANNELS + i].f64());
                    let square = cos * cos + sin * sin;
                    // dθ = (cos d sin - sin d cos) / (cos² + sin²).
                    let turning = if square > 0.0 { scale * heading * slope(o.square[1], turn) / square } else { 0.0 };
                    slopes[0] = scale * position * slope(o.square[0], x);
                    slopes[1] = scale * position * slope(o.square[0], y);
                    slopes[2] = -turning * sin;
                    slopes[3] = turning * cos;
                }
                for (dx, slope) in dx.iter_mut().zip(slopes) {
                    *dx = if accumulate { *dx + T::of(slope) } else { T::of(slope) };
                }
            }
        }
    });
}
