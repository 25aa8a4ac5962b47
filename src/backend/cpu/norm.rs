//! Layer and batch normalisation, each with the activation that follows.

use super::{
    call::{Call, Out, block, sum_block},
    math::{Real, dot, relu, simd, sum},
};
use crate::graph::{Activation, Vector};
use std::ops::Range;

pub const EPSILON: f64 = 1e-5;
pub const MOMENTUM: f64 = 0.1;

/// Whether the activation is ReLU; norms know no other.
pub fn has_relu(activation: Activation) -> bool {
    assert!(activation != Activation::Gelu, "norms are followed by ReLU or nothing");
    activation == Activation::Relu
}

simd! {
    /// A row: y, and its mean and scale.
    fn layer_row<T: Real>(x: &[T], y: &mut [T], kept: &mut [T], gamma: &[T], beta: &[T], positive: bool) {
        let n = T::of(x.len() as f64);
        let mean = sum(x) / n;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x - mean;
        }
        let scale = T::ONE / (dot(y, y) / n + T::of(EPSILON)).sqrt();
        for ((y, &gamma), &beta) in y.iter_mut().zip(gamma).zip(beta) {
            let value = *y * scale * gamma + beta;
            *y = if positive { relu(value) } else { value };
        }
        kept[0] = mean;
        kept[1] = scale;
    }

    /// h = (x - mean) scale; g = dy where the result was positive; their sums for gamma and beta.
    fn layer_back_row<T: Real>(
        x: &[T], dy: &[T], kept: &[T], gamma: &[T], beta: &[T], positive: bool,
        h: &mut [T], g: &mut [T], dgamma: &mut [T], dbeta: &mut [T],
    ) {
        let (mean, scale) = (kept[0], kept[1]);
        let n = x.len();
        let (dy, gamma, beta, h, g, dgamma, dbeta) = (&dy[..n], &gamma[..n], &beta[..n], &mut h[..n], &mut g[..n], &mut dgamma[..n], &mut dbeta[..n]);
        for i in 0..n {
            let hat = (x[i] - mean) * scale;
            let d = if !positive || hat * gamma[i] + beta[i] > T::ZERO { dy[i] } else { T::ZERO };
            h[i] = hat;
            g[i] = d * gamma[i];
            dgamma[i] += d * hat;
            dbeta[i] += d;
        }
    }

    /// dx = scale (g - mean(g) - h mean(g h)).
    fn layer_back_dx<T: Real>(dx: &mut [T], g: &[T], h: &[T], scale: T, accumulate: bool) {
        let n = T::of(g.len() as f64);
        let (a, b) = (sum(g) / n, dot(g, h) / n);
        for ((dx, &g), &h) in dx.iter_mut().zip(g).zip(h) {
            let d = scale * (g - a - h * b);
            *dx = if accumulate { *dx + d } else { d };
        }
    }

    /// Mean of every column of a block, and the sum of squares about it; both are 0 before.
    fn batch_statistics<T: Real>(x: &[T], mean: &mut [T], squares: &mut [T]) {
        let n = mean.len();
        for x in x.chunks_exact(n) {
            for (m, &x) in mean.iter_mut().zip(x) {
                *m += x;
            }
        }
        let count = T::of((x.len() / n) as f64);
        for m in mean.iter_mut() {
            *m = *m / count;
        }
        for x in x.chunks_exact(n) {
            for ((s, &m), &x) in squares.iter_mut().zip(&*mean).zip(x) {
                *s += (x - m) * (x - m);
            }
        }
    }

    fn batch_row<T: Real>(y: &mut [T], x: &[T], mean: &[T], scale: &[T], gamma: &[T], beta: &[T], positive: bool) {
        let n = y.len();
        let (x, mean, scale, gamma, beta) = (&x[..n], &mean[..n], &scale[..n], &gamma[..n], &beta[..n]);
        for i in 0..n {
            let value = (x[i] - mean[i]) * scale[i] * gamma[i] + beta[i];
            y[i] = if positive { relu(value) } else { value };
        }
    }

    fn batch_back_sums<T: Real>(
        x: &[T], dy: &[T], mean: &[T], scale: &[T], gamma: &[T], beta: &[T], positive: bool, dgamma: &mut [T], dbeta: &mut [T],
    ) {
        let n = x.len();
        let (dy, mean, scale, gamma, beta) = (&dy[..n], &mean[..n], &scale[..n], &gamma[..n], &beta[..n]);
        let (dgamma, dbeta) = (&mut dgamma[..n], &mut dbeta[..n]);
        for i in 0..n {
            let hat = (x[i] - mean[i]) * scale[i];
            let d = if !positive || hat * gamma[i] + beta[i] > T::ZERO { dy[i] } else { T::ZERO };
            dgamma[i] += d * hat;
            dbeta[i] += d;
        }
    }

    /// dx = gamma scale (g - a - h b).
    fn batch_back_dx<T: Real>(
        dx: &mut [T], x: &[T], dy: &[T], mean: &[T], scale: &[T], gamma: &[T], beta: &[T], positive: bool, a: &[T], b: &[T], accumulate: bool,
    ) {
        let n = x.len();
        let (dy, mean, scale, gamma, beta, a, b) = (&dy[..n], &mean[..n], &scale[..n], &gamma[..n], &beta[..n], &a[..n], &b[..n]);
        let dx = &mut dx[..n];
        for i in 0..n {
            let hat = (x[i] - mean[i]) * scale[i];
            let g = if !positive || hat * gamma[i] + beta[i] > T::ZERO { dy[i] } else { T::ZERO };
            let d = gamma[i] * scale[i] * (g - a[i] - hat * b[i]);
            dx[i] = if accumulate { dx[i] + d } else { d };
        }
    }
}

pub fn layer_forward<T: Real>(call: &mut Call<T>, gamma: Vector, beta: Vector, activation: Activation) {
    let (x, n) = call.input(0);
    let positive = has_relu(activation);
    let (gamma, beta) = (call.parameter(gamma), call.parameter(beta));
    let outs = [call.output(0), call.output(1)];
    call.for_rows(call.input_rows(0), block(2 * n), outs, 0, |rows, [y, kept], _| {
        let x = &x[rows.start * n..rows.end * n];
        for ((x, y), kept) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(kept.chunks_exact_mut(2)) {
            layer_row(x, y, kept, gamma, beta, positive);
        }
    });
}

/// With h = (x - mean) s and g = dh: dx = s (g - mean(g) - h mean(g h)).
pub fn layer_backward<T: Real>(call: &mut Call<T>, gamma: Vector, beta: Vector, activation: Activation) {
    let (x, n) = call.input(0);
    let positive = has_relu(activation);
    let (kept, _) = call.input(2);
    let (dy, _) = call.dy();
    let [weights, biases] = [gamma, beta].map(|v| call.parameter(v));
    let gradients = call.parameter_gradients();
    let has_dx = call.dx(0).is_some();
    let (dx, accumulate) = call.dx(0).unwrap_or((Out::none(), false));
    let rows = call.dy_rows();
    let sums = call.sum_rows(rows, sum_block(rows, 3 * n), [dx], [2 * n, 2 * n], |rows, [dx], sums, scratch| {
        let (dgamma, dbeta) = sums.split_at_mut(n);
        let (h, g) = scratch.split_at_mut(n);
        for (i, row) in rows.enumerate() {
            let place = row * n..(row + 1) * n;
            let kept = &kept[2 * row..2 * row + 2];
            layer_back_row(&x[place.clone()], &dy[place], kept, weights, biases, positive, h, g, dgamma, dbeta);
            if has_dx {
                layer_back_dx(&mut dx[i * n..(i + 1) * n], g, h, kept[1], accumulate);
            }
        }
    });
    gradients.add(gamma, &sums[..n]);
    gradients.add(beta, &sums[n..]);
}

pub fn batch_forward<T: Real>(call: &mut Call<T>, parameters: [Vector; 2], running: [Vector; 2], train: bool, activation: Activation) {
    if call.input_rows(0) > 0 {
        let kept = keep_statistics(call, 1, running, train);
        BatchNorm::new(call, kept, parameters, has_relu(activation)).forward(call);
    }
}

/// y from the statistics that were kept.
pub fn batch_again<T: Real>(call: &mut Call<T>, parameters: [Vector; 2], activation: Activation) {
    if call.input_rows(0) > 0 {
        BatchNorm::new(call, call.input(2).0, parameters, has_relu(activation)).forward(call);
    }
}

/// In training as [`layer_backward`] along columns; otherwise dx = s g.
pub fn batch_backward<T: Real>(call: &mut Call<T>, parameters: [Vector; 2], train: bool, activation: Activation) {
    let norm = BatchNorm::new(call, call.input(2).0, parameters, has_relu(activation));
    let (dy, _) = call.dy();
    norm.backward(call, parameters, train, Some(dy), call.dx(0));
}

/// Writes mean and scale of the columns of x, of the batch or the running ones, to an output, and gives them; x has rows.
///
/// Batch statistics come from the mean and the sum of squares of each block, joined in the order of blocks (Chan, Golub &
/// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
pub fn keep_statistics<'a, T: Real>(call: &mut Call<'a, T>, output: usize, running: [Vector; 2], train: bool) -> &'a [T] {
    let (rows, (x, n)) = (call.input_rows(0), call.input(0));
    // SAFETY: no task writes the kept statistics.
    let kept: &'a mut [T] = unsafe { call.output(output).rows(0..2) };
    let (means, scales) = kept.split_at_mut(n);
    if train {
        let per = block(n).max(rows.div_ceil(128));
        // SAFETY: only this call touches the pending statistics.
        let [old_mean, old_var] = running.map(|v| unsafe { call.pending.part(v.range()) });
        let blocks = call.each_rows(rows, per, 2 * n, |rows, sums| {
            let (mean, squares) = sums.split_at_mut(n);
            batch_statistics(&x[rows.start * n..rows.end * n], mean, squares);
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
    kept
}

/// Columns of an operand with their statistics and parameters.
#[derive(Clone, Copy)]
pub struct BatchNorm<'a, T> {
    x: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    gamma: &'a [T],
    beta: &'a [T],
    /// ReLU follows.
    positive: bool,
}

impl<'a, T: Real> BatchNorm<'a, T> {
    /// Of operand 0 with statistics that were kept.
    pub fn new(call: &Call<'a, T>, kept: &'a [T], parameters: [Vector; 2], positive: bool) -> Self {
        let (x, n) = call.input(0);
        let ((mean, scale), [gamma, beta]) = (kept.split_at(n), parameters.map(|v| call.parameter(v)));
        Self { x, mean, scale, gamma, beta, positive }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Results of some rows.
    pub fn rows(&self, rows: Range<usize>, y: &mut [T]) {
        let n = self.width();
        for (x, y) in self.x[rows.start * n..rows.end * n].chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            batch_row(y, x, self.mean, self.scale, self.gamma, self.beta, self.positive);
        }
    }

    fn forward(&self, call: &mut Call<T>) {
        let y = call.output(0);
        call.for_rows(call.input_rows(0), block(2 * self.width()), [y], 0, |rows, [y], _| self.rows(rows, y));
    }

    /// Adds to the gradients of the parameters and, where x has one, to its gradient; dy may lie in dx, which it is not added to then.
    pub fn backward(&self, call: &mut Call<T>, [gamma, beta]: [Vector; 2], train: bool, dy: Option<&[T]>, dx: Option<(Out<T>, bool)>) {
        let (n, rows) = (self.width(), self.x.len() / self.width().max(1));
        if rows == 0 {
            return;
        }
        let Self { x, mean, scale, gamma: weights, beta: biases, positive } = *self;
        let gradients = call.parameter_gradients();
        // SAFETY: nobody writes dx while the sums are computed.
        let in_dx = |rows: Range<usize>| unsafe { &*dx.map_or(Out::none(), |(dx, _)| dx).part(rows) };
        let sums = call.sum_rows(rows, sum_block(rows, 2 * n), [], [2 * n, 0], |rows, [], sums, _| {
            let (dgamma, dbeta) = sums.split_at_mut(n);
            for row in rows {
                let place = row * n..(row + 1) * n;
                let dy = dy.map_or_else(|| in_dx(place.clone()), |dy| &dy[place.clone()]);
                batch_back_sums(&x[place], dy, mean, scale, weights, biases, positive, dgamma, dbeta);
            }
        });
        gradients.add(gamma, &sums[..n]);
        gradients.add(beta, &sums[n..]);
        let Some((dx, accumulate)) = dx else { return };
        // dx = gamma s (g - a - h b), h = (x - mean) s.
        let count = T::of(rows as f64);
        sums.iter_mut().for_each(|s| *s = if train { *s / count } else { T::ZERO });
        let sums = Out::of(sums);
        // SAFETY: only read, and `sum_rows` is not called meanwhile.
        let (b, a) = unsafe { sums.part(0..2 * n) }.split_at(n);
        call.for_rows(rows, block(3 * n), [dx], n, |rows, [dx], scratch| {
            for (row, dx) in rows.zip(dx.chunks_exact_mut(n)) {
                let place = row * n..(row + 1) * n;
                let dy = dy.map_or_else(
                    || {
                        scratch.copy_from_slice(dx);
                        &*scratch
                    },
                    |dy| &dy[place.clone()],
                );
                batch_back_dx(dx, &x[place], dy, mean, scale, weights, biases, positive, a, b, accumulate);
            }
        });
    }
}
