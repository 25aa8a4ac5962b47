//! Fourier features of one column: y = [cos(2π v f), sin(2π v f), v].

use super::{
    call::{Call, block, sum_block},
    math::Real,
};
use crate::graph::Vector;
use std::f64::consts::TAU;

pub fn forward<T: Real>(call: &mut Call<T>, frequencies: Vector, channel: usize) {
    let (x, width) = call.input(0);
    let f = call.parameter(frequencies);
    let bands = f.len();
    let y = call.output(0);
    call.for_rows(call.input_rows(0), block(8 * y.width), [y], 0, |rows, [y], _| {
        for (row, y) in rows.zip(y.chunks_exact_mut(2 * bands + 1)) {
            let v = x[row * width + channel];
            for (b, &f) in f.iter().enumerate() {
                let (sin, cos) = (T::of(TAU) * v * f).sin_cos();
                y[b] = cos;
                y[bands + b] = sin;
            }
            y[2 * bands] = v;
        }
    });
}

/// df = Σ 2π v (cos dsin - sin dcos).
pub fn backward<T: Real>(call: &mut Call<T>, frequencies: Vector, channel: usize) {
    let (x, width) = call.input(0);
    let (y, n) = call.input(1);
    let (dy, _) = call.dy();
    let rows = call.dy_rows();
    let bands = frequencies.len;
    let gradients = call.parameter_gradients();
    let sums = call.sum_rows(rows, sum_block(rows, n), [], [bands, 0], |rows, [], sums, _| {
        for row in rows {
            let v = T::of(TAU) * x[row * width + channel];
            let (y, dy) = (&y[row * n..(row + 1) * n], &dy[row * n..(row + 1) * n]);
            for (b, sum) in sums.iter_mut().enumerate() {
                *sum += v * (y[b] * dy[bands + b] - y[bands + b] * dy[b]);
            }
        }
    });
    gradients.add(frequencies, sums);
}
