//! A linear layer of an input with the batch norm behind it, by the moments of the input.

use super::{
    call::Call,
    gemm::{View, gemm},
    linear::{add_bias_relu, product_backward, relu_back, rows_of_block, span},
    math::{Real, add_to_rows},
    norm::{EPSILON, MOMENTUM, has_relu},
};
use crate::graph::{Folded, MOST_MOMENTS, Op, Vector};

/// y = x W'ᵀ + b', or its positive part: W' and b' do what the layer and the norm do.
pub fn forward<T: Real>(call: &mut Call<T>) {
    let Op::LinearNorm { weight, bias, gamma, beta, running, train, activation } = call.node.op else { unreachable!("linear_norm") };
    let (rows, (x, k), n) = (call.input_rows(0), call.input(0), weight.rows);
    if rows == 0 {
        return;
    }
    let (mean, covariance) = if train { moments(call, rows, x, k) } else { Default::default() };
    let (places, kept) = (Folded::new(n, k), call.output(1));
    // SAFETY: no task writes what is kept, and only this call touches the pending statistics.
    let (kept, pending) = unsafe { (kept.part(0..kept.len()), running.map(|v| call.pending.part(v.range()))) };
    let [bias, gamma, beta] = [bias, gamma, beta].map(|v| call.parameter(v));
    let statistics = running.map(|v| &call.statistics[v.range()]);
    for (row, w) in call.parameter(span(weight)).chunks(weight.stride).enumerate() {
        let product = |m: &[f64]| m.iter().zip(w).map(|(m, w)| m * w.f64()).sum::<f64>();
        let (offset, variance) = if train {
            let mean = product(&mean[..k]);
            let variance = covariance[..k].iter().zip(w).map(|(c, w)| w.f64() * product(&c[..k])).sum::<f64>().max(0.0);
            let unbiased = variance * rows as f64 / (rows.max(2) - 1) as f64;
            let [old_mean, old_var] = [&pending[0][row], &pending[1][row]].map(|old| (1.0 - MOMENTUM) * old.f64());
            pending[0][row] = T::of(old_mean + MOMENTUM * (mean + bias[row].f64()));
            pending[1][row] = T::of(old_var + MOMENTUM * unbiased);
            (-mean, variance)
        } else {
            (bias[row].f64() - statistics[0][row].f64(), statistics[1][row].f64())
        };
        let scale = 1.0 / (variance + EPSILON).sqrt();
        // One row is its mean: beta remains, which rounding would not leave.
        let gain = if train && rows == 1 { 0.0 } else { gamma[row].f64() * scale };
        kept[places.weight.start + row * k..][..k].iter_mut().zip(w).for_each(|(to, w)| *to = T::of(gain * w.f64()));
        kept[places.bias.start + row] = T::of(beta[row].f64() + gain * offset);
        kept[places.scale.start + row] = T::of(scale);
    }
    kept[places.mean].iter_mut().zip(&mean).for_each(|(to, &m)| *to = T::of(m));
    kept[places.covariance].iter_mut().zip(covariance.iter().flat_map(|c| &c[..k])).for_each(|(to, &c)| *to = T::of(c));

    let (w, b) = (View::rows(&kept[..n * k], k).transposed(), &kept[places.bias]);
    let y = call.output(0);
    call.for_rows(rows, rows_of_block(rows), [y], 0, |rows, [y], _| {
        gemm([rows.len(), k, n], T::ONE, View::rows(&x[rows.start * k..rows.end * k], k), w, T::ZERO, y, n);
        if has_relu(activation) { add_bias_relu(y, b) } else { add_to_rows(y, b) }
    });
}

/// Mean and covariance of the rows of x `[rows, k]`.
fn moments<T: Real>(call: &mut Call<T>, rows: usize, x: &[T], k: usize) -> ([f64; MOST_MOMENTS], [[f64; MOST_MOMENTS]; MOST_MOMENTS]) {
    let (room, per) = (k + k * k, rows.div_ceil(128).max(64));
    let blocks = call.each_rows(rows, per, room, |rows, out| {
        let (mut sums, mut products) = ([0.0; MOST_MOMENTS], [[0.0; MOST_MOMENTS]; MOST_MOMENTS]);
        for row in x[rows.start * k..rows.end * k].chunks_exact(k) {
            let mut values = [0.0; MOST_MOMENTS];
            values.iter_mut().zip(row).for_each(|(to, x)| *to = x.f64());
            for i in 0..k {
                sums[i] += values[i];
                products[i].iter_mut().zip(&values).for_each(|(sum, x)| *sum += values[i] * x);
            }
        }
        // About the mean of these rows, as single precision has to hold them.
        let count = rows.len() as f64;
        for i in 0..k {
            out[i] = T::of(sums[i] / count);
            for j in 0..k {
                out[k + i * k + j] = T::of(products[i][j] - sums[i] * sums[j] / count);
            }
        }
    });
    let size = |block: usize| per.min(rows - block * per) as f64;
    let (mut mean, mut covariance) = ([0.0; MOST_MOMENTS], [[0.0; MOST_MOMENTS]; MOST_MOMENTS]);
    for (b, block) in blocks.chunks_exact(room).enumerate() {
        (0..k).for_each(|i| mean[i] += block[i].f64() * size(b) / rows as f64);
    }
    for (b, block) in blocks.chunks_exact(room).enumerate() {
        let away: [f64; MOST_MOMENTS] = std::array::from_fn(|i| if i < k { block[i].f64() - mean[i] } else { 0.0 });
        for i in 0..k {
            (0..k).for_each(|j| covariance[i][j] += (block[k + i * k + j].f64() + size(b) * away[i] * away[j]) / rows as f64);
        }
    }
    (mean, covariance)
}

/// With d = dy where y is positive, D = dᵀ x, e = Σ d, and D less e times the mean of x where statistics are those of the batch:
/// dγ = scale Σ W D, dβ = e, dW = γ scale (D - dγ scale W C), C being the covariance of x. Running statistics: dγ has e (b - mean) more
/// inside, dW no C, db = γ scale e.
pub fn backward<T: Real>(call: &mut Call<T>) {
    let Op::LinearNorm { weight, bias, gamma, beta, running, train, activation } = call.node.op else { unreachable!("linear_norm") };
    let rows = call.dy_rows();
    if rows == 0 {
        return;
    }
    let (n, k, places) = (weight.rows, weight.columns, Folded::new(weight.rows, weight.columns));
    let ((y, _), (kept, _)) = (call.input(1), call.input(2));
    let relu = has_relu(activation);
    let w = View::rows(&kept[..n * k], k);
    let (parameters, gradients) = (call.parameter(span(weight)), call.parameter_gradients());
    let [b, gains] = [bias, gamma].map(|v| call.parameter(v));
    let running = &call.statistics[running[0].range()];
    let sums = product_backward(call, w, [n, k], relu, true, |dy, place, d| {
        if relu {
            relu_back(d, dy, &y[place]);
        }
    });
    let (products, totals) = sums.split_at(n * k);
    gradients.add(beta, totals);
    if train && rows == 1 {
        return;
    }
    let (scales, mean, covariance) = (&kept[places.scale], &kept[places.mean], &kept[places.covariance]);
    for row in 0..n {
        let w = &parameters[row * weight.stride..][..k];
        let (scale, total) = (scales[row].f64(), totals[row].f64());
        let mut d = [0.0; MOST_MOMENTS];
        d.iter_mut().zip(&products[row * k..][..k]).for_each(|(to, p)| *to = p.f64());
        if train {
            d.iter_mut().zip(mean).for_each(|(d, m)| *d -= total * m.f64());
        }
        let inside: f64 = w.iter().zip(&d).map(|(w, d)| w.f64() * d).sum();
        let offset = if train { 0.0 } else { total * (b[row] - running[row]).f64() };
        let dgamma = scale * (inside + offset);
        if train {
            for (d, c) in d.iter_mut().zip(covariance.chunks_exact(k)) {
                *d -= dgamma * scale * c.iter().zip(w).map(|(c, w)| c.f64() * w.f64()).sum::<f64>();
            }
        }
        let gain = gains[row].f64() * scale;
        let dw = d.map(|d| T::of(gain * d));
        gradients.add(Vector { offset: weight.offset + row * weight.stride, len: k }, &dw[..k]);
        gradients.add(Vector { offset: gamma.offset + row, len: 1 }, &[T::of(dgamma)]);
        if !train {
            gradients.add(Vector { offset: bias.offset + row, len: 1 }, &[T::of(gain * total)]);
        }
    }
}
