//! Layer and batch normalisation, each with the activation that follows.

use super::{
    call::{Call, Out, block, sum_block},
    math::{Real, dot, relu, sum},
};
use crate::graph::{Activation, Vector};

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

pub fn layer_forward<T: Real>(call: &mut Call<T>, gamma: Vector, beta: Vector, activation: Activation) {
    let (x, n) = call.input(0);
    let (gamma, beta) = (call.parameter(gamma), call.parameter(beta));
    let outs = [call.output(0), call.output(1)];
    call.for_rows(call.input_rows(0), block(2 * n), outs, 0, |rows, [y, kept], _| {
        let x = &x[rows.start * n..rows.end * n];
        for ((x, y), kept) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(kept.chunks_exact_mut(2)) {
            let mean = sum(x) / T::of(n as f64);
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
            let scale = T::ONE / (dot(y, y) / T::of(n as f64) + T::of(EPSILON)).sqrt();
            for ((y, &gamma), &beta) in y.iter_mut().zip(gamma).zip(beta) {
                *y = *y * scale * gamma + beta;
            }
            activate(y, activation);
            kept.copy_from_slice(&[mean, scale]);
        }
    });
}

/// With h = (x - mean) s and g = dh: dx = s (g - mean(g) - h mean(g h)).
pub fn layer_backward<T: Real>(call: &mut Call<T>, gamma: Vector, beta: Vector, activation: Activation) {
    let (x, n) = call.input(0);
    let y = if activation == Activation::Relu { call.input(1).0 } else { &[] };
    let (kept, _) = call.input(2);
    let (dy, _) = call.dy();
    let weights = call.parameter(gamma);
    let gradients = call.parameter_gradients();
    let (dx, accumulate) = call.dx(0).unwrap_or((Out::none(), false));
    let has_dx = call.dx(0).is_some();
    let rows = call.dy_rows();
    let sums = call.sum_rows(rows, sum_block(rows, 3 * n), [dx], [2 * n, 2 * n], |rows, [dx], sums, scratch| {
        let (dgamma, dbeta) = sums.split_at_mut(n);
        let (h, g) = scratch.split_at_mut(n);
        for (i, row) in rows.enumerate() {
            let place = row * n..(row + 1) * n;
            let (mean, scale) = (kept[2 * row], kept[2 * row + 1]);
            before(&dy[place.clone()], if y.is_empty() { y } else { &y[place.clone()] }, g);
            for (((h, g), &x), (dgamma, dbeta)) in h.iter_mut().zip(&*g).zip(&x[place]).zip(dgamma.iter_mut().zip(dbeta.iter_mut())) {
                *h = (x - mean) * scale;
                *dgamma += *g * *h;
                *dbeta += *g;
            }
            if !has_dx {
                continue;
            }
            g.iter_mut().zip(weights).for_each(|(g, &w)| *g *= w);
            let (a, b) = (sum(g) / T::of(n as f64), dot(g, h) / T::of(n as f64));
            for ((dx, &g), &h) in dx[i * n..(i + 1) * n].iter_mut().zip(&*g).zip(&*h) {
                let d = scale * (g - a - h * b);
                *dx = if accumulate { *dx + d } else { d };
            }
        }
    });
    gradients.add(gamma, &sums[..n]);
    gradients.add(beta, &sums[n..]);
}

/// Batch statistics come from the mean and the sum of squares of each block, joined in the order of blocks (Chan, Golub &
/// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
pub fn batch_forward<T: Real>(call: &mut Call<T>, [gamma, beta]: [Vector; 2], running: [Vector; 2], train: bool, activation: Activation) {
    let rows = call.input_rows(0);
    if rows == 0 {
        return;
    }
    let (x, n) = call.input(0);
    // SAFETY: no task runs.
    let kept = unsafe { call.output(1).rows(0..2) };
    let (means, scales) = kept.split_at_mut(n);
    if train {
        let per = block(n).max(rows.div_ceil(64));
        // SAFETY: only this call touches the pending statistics.
        let [old_mean, old_var] = running.map(|v| unsafe { call.pending.part(v.range()) });
        let blocks = call.each_rows(rows, per, 2 * n, |rows, sums| {
            let (mean, squares) = sums.split_at_mut(n);
            let x = &x[rows.start * n..rows.end * n];
            x.chunks_exact(n).for_each(|x| mean.iter_mut().zip(x).for_each(|(m, &x)| *m += x));
            let count = T::of(rows.len() as f64);
            mean.iter_mut().for_each(|m| *m = *m / count);
            for x in x.chunks_exact(n) {
                squares.iter_mut().zip(&*mean).zip(x).for_each(|((s, &m), &x)| *s += (x - m) * (x - m));
            }
        });
        for column in 0..n {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (i, sums) in blocks.chunks_exact(2 * n).enumerate() {
                let more = per.min(rows - i * per) as f64;
                let step = sums[column].f64() - mean;
                squares += sums[n + column].f64() + step * step * count * more / (count + more);
                mean += step * more / (count + more);
                count += more;
            }
            let unbiased = squares / (rows.max(2) - 1) as f64;
            means[column] = T::of(mean);
            scales[column] = T::of(1.0 / (squares / count + EPSILON).sqrt());
            old_mean[column] = T::of((1.0 - MOMENTUM) * old_mean[column].f64() + MOMENTUM * mean);
            old_var[column] = T::of((1.0 - MOMENTUM) * old_var[column].f64() + MOMENTUM * unbiased);
        }
    } else {
        let [mean, var] = running.map(|v| &call.statistics[v.range()]);
        means.copy_from_slice(mean);
        scales.iter_mut().zip(var).for_each(|(s, &v)| *s = T::ONE / (v + T::of(EPSILON)).sqrt());
    }
    let (means, scales, gamma, beta) = (&*means, &*scales, call.parameter(gamma), call.parameter(beta));
    let y = call.output(0);
    call.for_rows(rows, block(2 * n), [y], 0, |rows, [y], _| {
        let x = &x[rows.start * n..rows.end * n];
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            for i in 0..n {
                y[i] = (x[i] - means[i]) * scales[i] * gamma[i] + beta[i];
            }
            activate(y, activation);
        }
    });
}

/// In training as [`layer_backward`] along columns; otherwise dx = s g.
pub fn batch_backward<T: Real>(call: &mut Call<T>, [gamma, beta]: [Vector; 2], train: bool, activation: Activation) {
    let rows = call.dy_rows();
    if rows == 0 {
        return;
    }
    let (x, n) = call.input(0);
    let y = if activation == Activation::Relu { call.input(1).0 } else { &[] };
    let (means, scales) = call.input(2).0.split_at(n);
    let (dy, _) = call.dy();
    let weights = call.parameter(gamma);
    let gradients = call.parameter_gradients();
    let at = |row: usize| row * n..(row + 1) * n;
    let y_at = |row: usize| if y.is_empty() { y } else { &y[at(row)] };
    let dx = call.dx(0);
    let sums = call.sum_rows(rows, sum_block(rows, 3 * n), [], [2 * n, n], |rows, [], sums, g| {
        let (dgamma, dbeta) = sums.split_at_mut(n);
        for row in rows {
            before(&dy[at(row)], y_at(row), g);
            let x = &x[at(row)];
            for i in 0..n {
                dgamma[i] += g[i] * ((x[i] - means[i]) * scales[i]);
                dbeta[i] += g[i];
            }
        }
    });
    gradients.add(gamma, &sums[..n]);
    gradients.add(beta, &sums[n..]);
    let Some((dx, accumulate)) = dx else { return };
    // dx = factor (g - a - h b), h = (x - mean) scale.
    let count = T::of(rows as f64);
    sums.iter_mut().for_each(|s| *s = if train { *s / count } else { T::ZERO });
    let sums = Out::of(sums);
    call.for_rows(rows, block(4 * n), [dx], n, |rows, [dx], g| {
        // SAFETY: only read, and `sum_rows` is not called meanwhile.
        let (b, a) = unsafe { sums.part(0..2 * n) }.split_at(n);
        for (row, dx) in rows.zip(dx.chunks_exact_mut(n)) {
            before(&dy[at(row)], y_at(row), g);
            let x = &x[at(row)];
            for i in 0..n {
                let d = weights[i] * scales[i] * (g[i] - a[i] - (x[i] - means[i]) * scales[i] * b[i]);
                dx[i] = if accumulate { dx[i] + d } else { d };
            }
        }
    });
}

fn activate<T: Real>(y: &mut [T], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Relu => y.iter_mut().for_each(|y| *y = relu(*y)),
        Activation::Gelu => y.iter_mut().for_each(|y| *y = super::math::gelu(*y)),
    }
}

/// Gradient before the activation; `y` is empty without one.
fn before<T: Real>(dy: &[T], y: &[T], g: &mut [T]) {
    if y.is_empty() {
        g.copy_from_slice(dy);
    } else {
        g.iter_mut().zip(dy).zip(y).for_each(|((g, &dy), &y)| *g = if y > T::ZERO { dy } else { T::ZERO });
    }
}
