//! y = activation(x Wᵀ + b).

use super::{
    call::{Call, Out, block, sum_block},
    gemm::{View, gemm},
    math::{Real, add_to, gelu, gelu_slope, relu},
};
use crate::graph::{Activation, Matrix, Vector};

/// Rows that go through the product at a time.
const ROWS: usize = 256;

/// The part of the parameters that a matrix spans.
fn span(weight: Matrix) -> Vector {
    let len = if weight.rows == 0 { 0 } else { (weight.rows - 1) * weight.stride + weight.columns };
    Vector { offset: weight.offset, len }
}

pub fn forward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Option<Vector>, activation: Activation) {
    let (x, k) = call.input(0);
    let n = weight.rows;
    let w = View::rows(call.parameter(span(weight)), weight.stride).transposed();
    let bias = bias.map(|b| call.parameter(b));
    let y = call.output(0);
    let before = if activation == Activation::Gelu { call.output(1) } else { Out::none() };
    call.for_rows(call.input_rows(0), ROWS, [y, before], 0, |rows, [y, before], _| {
        let gelu_kept = activation == Activation::Gelu;
        let x = View::rows(&x[rows.start * k..rows.end * k], k);
        let target = if gelu_kept { &mut *before } else { &mut *y };
        gemm([rows.len(), k, n], T::ONE, x, w, T::ZERO, target, n);
        if let Some(bias) = bias {
            target.chunks_exact_mut(n).for_each(|row| add_to(row, bias));
        }
        match activation {
            Activation::None => {}
            Activation::Relu => y.iter_mut().for_each(|y| *y = relu(*y)),
            Activation::Gelu => y.iter_mut().zip(before).for_each(|(y, x)| *y = gelu(*x)),
        }
    });
}

pub fn backward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Option<Vector>, activation: Activation) {
    let (x, k) = call.input(0);
    let n = weight.rows;
    let (dy, _) = call.dy();
    let read = match activation {
        Activation::None => &[],
        Activation::Relu => call.input(1).0,
        Activation::Gelu => call.input(2).0,
    };
    let w = View::rows(call.parameter(span(weight)), weight.stride);
    let (dx, accumulate) = call.dx(0).unwrap_or((Out::none(), false));
    let has_dx = call.dx(0).is_some();
    let rows = call.dy_rows();
    let gradients = call.parameter_gradients();
    let bias_len = if bias.is_some() { n } else { 0 };
    let step = ROWS.min(block(n + k));
    let sums = call.sum_rows(
        rows,
        sum_block(rows, (n + k) / 2).next_multiple_of(step),
        [dx],
        [n * k + bias_len, step * n],
        |rows, [dx], sums, scratch| {
            let (dw, db) = sums.split_at_mut(n * k);
            for start in rows.clone().step_by(step) {
                let part = start..rows.end.min(start + step);
                let elements = part.start * n..part.end * n;
                let before = &mut scratch[..part.len() * n];
                // Gradient of the value before the activation.
                let dy = &dy[elements.clone()];
                let before = match activation {
                    Activation::None => dy,
                    Activation::Relu => {
                        let y = &read[elements];
                        before.iter_mut().zip(dy).zip(y).for_each(|((b, &dy), &y)| *b = if y > T::ZERO { dy } else { T::ZERO });
                        before
                    }
                    Activation::Gelu => {
                        let x = &read[elements];
                        before.iter_mut().zip(dy).zip(x).for_each(|((b, &dy), &x)| *b = dy * gelu_slope(x));
                        before
                    }
                };
                let size = part.len();
                if has_dx {
                    let dx = &mut dx[(part.start - rows.start) * k..(part.end - rows.start) * k];
                    let beta = if accumulate { T::ONE } else { T::ZERO };
                    gemm([size, n, k], T::ONE, View::rows(before, n), w, beta, dx, k);
                }
                let x = View::rows(&x[part.start * k..part.end * k], k);
                gemm([n, size, k], T::ONE, View::rows(before, n).transposed(), x, T::ONE, dw, k);
                if !db.is_empty() {
                    before.chunks_exact(n).for_each(|row| add_to(db, row));
                }
            }
        },
    );
    let (dw, db) = sums.split_at(n * k);
    for (r, row) in dw.chunks_exact(k.max(1)).enumerate() {
        gradients.add(Vector { offset: weight.offset + r * weight.stride, len: k }, row);
    }
    if let Some(bias) = bias {
        gradients.add(bias, db);
    }
}
