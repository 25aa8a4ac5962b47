//! 1-D neighborhood attention in short sequences.

use super::{
    call::{Call, Out, block, sum_block},
    math::{Real, dot, simd, sum},
};
use crate::graph::Vector;

/// First token that token `i` sees.
fn first(i: usize, window: usize, length: usize) -> usize {
    i.saturating_sub(window / 2).min(length - window)
}

/// One head of a sequence `[length, 3 C]`.
struct Head<'a, T> {
    qkv: &'a [T],
    bias: &'a [T],
    length: usize,
    window: usize,
    /// C.
    width: usize,
    /// C / heads.
    size: usize,
    /// Its first column.
    column: usize,
}

impl<'a, T: Real> Head<'a, T> {
    #[inline(always)]
    fn part(&self, token: usize, which: usize) -> &'a [T] {
        &self.qkv[token * 3 * self.width + which * self.width + self.column..][..self.size]
    }
    /// Probabilities of the tokens that token `i` sees, the first of which it gives.
    #[inline(always)]
    fn probabilities(&self, i: usize, p: &mut [T]) -> usize {
        let from = first(i, self.window, self.length);
        let scale = T::of(1.0 / (self.size as f64).sqrt());
        let mut most = T::LOWEST;
        for (j, p) in (from..).zip(p.iter_mut()) {
            *p = dot(self.part(i, 0), self.part(j, 1)) * scale + self.bias[j + self.window - 1 - i];
            most = if *p > most { *p } else { most };
        }
        p.iter_mut().for_each(|p| *p = (*p - most).exp());
        let inverse = T::ONE / sum(p);
        p.iter_mut().for_each(|p| *p *= inverse);
        from
    }
}

simd! {
    fn head_forward<T: Real>(h: &Head<T>, y: &mut [T], p: &mut [T]) {
        for i in 0..h.length {
            let from = h.probabilities(i, p);
            let y = &mut y[i * h.width + h.column..][..h.size];
            y.fill(T::ZERO);
            for (j, &p) in (from..).zip(&*p) {
                for (y, &v) in y.iter_mut().zip(h.part(j, 2)) {
                    *y += p * v;
                }
            }
        }
    }
    /// Adds to the gradients of the sequence, if it has one, and of the head's bias.
    fn head_backward<T: Real>(h: &Head<T>, dy: &[T], dx: &mut [T], dbias: &mut [T], p: &mut [T], ds: &mut [T]) {
        let scale = T::of(1.0 / (h.size as f64).sqrt());
        let place = |token: usize, which: usize| token * 3 * h.width + which * h.width + h.column;
        for i in 0..h.length {
            let from = h.probabilities(i, p);
            let dy = &dy[i * h.width + h.column..][..h.size];
            for (j, ds) in (from..).zip(ds.iter_mut()) {
                *ds = dot(dy, h.part(j, 2));
            }
            let mean = dot(ds, p);
            for ((j, ds), &p) in (from..).zip(ds.iter_mut()).zip(&*p) {
                let slope = p * (*ds - mean);
                dbias[j + h.window - 1 - i] += slope;
                if dx.is_empty() {
                    continue;
                }
                let ds = slope * scale;
                for (d, &k) in dx[place(i, 0)..][..h.size].iter_mut().zip(h.part(j, 1)) {
                    *d += ds * k;
                }
                for (d, &q) in dx[place(j, 1)..][..h.size].iter_mut().zip(h.part(i, 0)) {
                    *d += ds * q;
                }
                for (d, &dy) in dx[place(j, 2)..][..h.size].iter_mut().zip(dy) {
                    *d += p * dy;
                }
            }
        }
    }
}

pub fn forward<T: Real>(call: &mut Call<T>, length: usize, heads: usize, window: usize, bias: Vector) {
    let (x, _) = call.input(0);
    let bias = call.parameter(bias);
    let y = call.output(0);
    let (width, size) = (y.width, y.width / heads);
    let sequences = call.input_rows(0) / length;
    call.for_rows(sequences, block(8 * length * width), [y.with_width(length * width)], window, |range, [y], p| {
        for (sequence, y) in range.zip(y.chunks_exact_mut(length * width)) {
            let qkv = &x[sequence * length * 3 * width..][..length * 3 * width];
            for head in 0..heads {
                let bias = &bias[head * (2 * window - 1)..][..2 * window - 1];
                let h = Head { qkv, bias, length, window, width, size, column: head * size };
                head_forward(&h, y, p);
            }
        }
    });
}

pub fn backward<T: Real>(call: &mut Call<T>, length: usize, heads: usize, window: usize, bias: Vector) {
    let (x, _) = call.input(0);
    let (dy, width) = call.dy();
    let size = width / heads;
    let biases = call.parameter(bias);
    let gradients = call.parameter_gradients();
    let sequences = call.dy_rows() / length;
    let has_dx = call.dx(0).is_some();
    let (dx, accumulate) = call.dx(0).unwrap_or((Out::none(), false));
    let whole = length * 3 * width;
    let dx = if has_dx { dx.with_width(whole) } else { dx };
    let per = sum_block(sequences, 4 * whole);
    let sums = call.sum_rows(sequences, per, [dx], [bias.len, 2 * window], |range, [dx], sums, scratch| {
        let (p, ds) = scratch.split_at_mut(window);
        for (i, sequence) in range.enumerate() {
            let dx = if has_dx { &mut dx[i * whole..(i + 1) * whole] } else { &mut [] };
            if !accumulate {
                dx.fill(T::ZERO);
            }
            let qkv = &x[sequence * whole..][..whole];
            let dy = &dy[sequence * length * width..][..length * width];
            for head in 0..heads {
                let table = head * (2 * window - 1);
                let h = Head { qkv, bias: &biases[table..][..2 * window - 1], length, window, width, size, column: head * size };
                head_backward(&h, dy, dx, &mut sums[table..][..2 * window - 1], p, ds);
            }
        }
    });
    gradients.add(bias, sums);
}
