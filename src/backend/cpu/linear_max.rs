//! Largest value of each column in each segment of rows of a linear layer's result.

use super::{
    call::{Call, Out, sum_block},
    gemm::{View, gemm},
    linear::{ROWS, view},
    math::{Real, simd},
    norm::{BatchNorm, keep_statistics},
};
use crate::graph::{Matrix, Op, Vector};
use std::ops::Range;

/// Rows of segment `s`, and whether zeros take part.
fn segment(list: &[i32], s: usize) -> (Range<usize>, bool) {
    let (start, count, flag) = (list[3 * s], list[3 * s + 1], list[3 * s + 2]);
    let (start, count) = (start.max(0) as usize, count.max(0) as usize);
    (start..start + count, flag != 0 || count == 0)
}

/// Value and row that every row of a segment is compared with at first.
fn begin<T: Real>(y: &mut [T], kept: &mut [i32], zeros: bool) {
    y.fill(if zeros { T::ZERO } else { T::LOWEST });
    kept.fill(-1);
}

simd! {
    /// Compares y with row `row` of x plus the bias. A value that is not a number wins and stays.
    fn compare<T: Real>(y: &mut [T], kept: &mut [i32], x: &[T], bias: &[T], row: i32) {
        for (((y, kept), &x), &b) in y.iter_mut().zip(kept.iter_mut()).zip(x).zip(bias) {
            let x = x + b;
            #[allow(clippy::eq_op)]
            let larger = (x > *y) | (x != x);
            *y = if larger { x } else { *y };
            *kept = if larger { row } else { *kept };
        }
    }
    /// For every column c whose maximum row r is kept: dx[r] += dy[c] W[c], dW[c] += dy[c] x[r]. Rows count from `start`.
    fn scatter<T: Real>(dx: &mut [T], dw: &mut [T], db: &mut [T], dy: &[T], kept: &[i32], x: &[T], w: &[T], stride: usize, start: usize) {
        let k = dw.len() / dy.len().max(1);
        let columns = dy.iter().zip(kept).zip(dw.chunks_exact_mut(k)).zip(db).enumerate();
        for (c, (((&g, &row), dw), db)) in columns {
            if row < 0 {
                continue;
            }
            let row = row as usize - start;
            let (x, w) = (&x[row * k..][..k], &w[c * stride..][..k]);
            *db += g;
            if dx.is_empty() {
                for (dw, &x) in dw.iter_mut().zip(x) {
                    *dw += g * x;
                }
                continue;
            }
            let dx = &mut dx[row * k..][..k];
            for (((dx, dw), &x), &w) in dx.iter_mut().zip(dw).zip(x).zip(w) {
                *dx += g * w;
                *dw += g * x;
            }
        }
    }
}

/// True if each of the first `count` segments starts behind the one before it.
fn disjoint(list: &[i32], count: usize) -> bool {
    let mut end = 0;
    (0..count).map(|s| segment(list, s).0).all(|rows| {
        let behind = rows.is_empty() || rows.start >= end;
        end = end.max(rows.end);
        behind
    })
}

/// Segments of a task so that it has enough rows.
fn per_task(rows: usize, segments: usize, want: usize) -> usize {
    want.div_ceil((rows / segments.max(1)).max(1))
}

/// The operand of a linear layer.
enum Rows<'a, T> {
    Kept(&'a [T], usize),
    Made(BatchNorm<'a, T>),
}

impl<T: Real> Rows<'_, T> {
    /// Elements that `part` needs room for.
    fn room(&self, rows: usize) -> usize {
        match self {
            Self::Kept(..) => 0,
            Self::Made(norm) => rows * norm.width(),
        }
    }
    /// Some rows.
    fn part<'b>(&'b self, rows: Range<usize>, room: &'b mut [T]) -> &'b [T] {
        match self {
            Self::Kept(x, width) => &x[rows.start * width..rows.end * width],
            Self::Made(norm) => {
                let room = &mut room[..rows.len() * norm.width()];
                norm.rows(rows, room);
                room
            }
        }
    }
}

pub fn forward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Vector, segments: usize) {
    let (x, k) = call.input(0);
    maxima(call, &Rows::Kept(x, k), weight, bias, segments);
}

pub fn norm_forward<T: Real>(call: &mut Call<T>) {
    let Op::NormLinearMax { gamma, beta, running, train, weight, bias, segments } = call.node.op else { unreachable!("norm_linear_max") };
    // Without rows there are no statistics, and nothing is read.
    let kept = if call.input_rows(0) > 0 { keep_statistics(call, 2, running, train) } else { &[] };
    let x = if kept.is_empty() { Rows::Kept(kept, weight.columns) } else { Rows::Made(BatchNorm::new(call, kept, [gamma, beta], true)) };
    maxima(call, &x, weight, bias, segments);
}

/// y and the rows of the maxima.
fn maxima<T: Real>(call: &mut Call<T>, x: &Rows<T>, weight: Matrix, bias: Vector, segments: usize) {
    let (n, k) = (weight.rows, weight.columns);
    let list = call.index(segments);
    let (w, bias) = (view(call, weight).transposed(), call.parameter(bias));
    let (y, kept) = (call.output(0), call.index_output(1));
    let count = y.len() / n.max(1);
    let per = per_task(call.input_rows(0), count, 2 * ROWS);
    call.for_rows(count, per, [y], ROWS * n + x.room(ROWS), |segments, [y], scratch| {
        let (products, room) = scratch.split_at_mut(ROWS * n);
        // SAFETY: the blocks of tasks do not overlap.
        let kept = unsafe { kept.rows(segments.clone()) };
        for ((s, y), kept) in segments.clone().zip(y.chunks_exact_mut(n)).zip(kept.chunks_exact_mut(n)) {
            begin(y, kept, segment(list, s).1);
        }
        // Rows that were multiplied last: segments usually follow one another, so that a product serves many.
        let mut done = 0..0;
        let end_of_run = |s: usize| {
            (s + 1..segments.end).fold(segment(list, s).0.end, |end, s| {
                let rows = segment(list, s).0;
                if rows.start == end { rows.end } else { end }
            })
        };
        for (i, s) in segments.clone().enumerate() {
            let (y, kept) = (&mut y[i * n..(i + 1) * n], &mut kept[i * n..(i + 1) * n]);
            for row in segment(list, s).0 {
                if !done.contains(&row) {
                    done = row..end_of_run(s).min(row + ROWS);
                    gemm([done.len(), k, n], T::ONE, View::rows(x.part(done.clone(), room), k), w, T::ZERO, products, n);
                }
                compare(y, kept, &products[(row - done.start) * n..][..n], bias, row as i32);
            }
        }
    });
}

pub fn backward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Vector, segments: usize) {
    let (x, k) = call.input(0);
    if let Some((dx, false)) = call.dx(0) {
        call.zero(dx);
    }
    maxima_backward(call, &Rows::Kept(x, k), weight, bias, segments, call.dx(0).map(|(dx, _)| dx));
}

/// The gradient of what is normalised lies in dx, unless that is added to.
pub fn norm_backward<T: Real>(call: &mut Call<T>) {
    let Op::NormLinearMax { gamma, beta, train, weight, bias, segments, .. } = call.node.op else { unreachable!("norm_linear_max") };
    let norm = BatchNorm::new(call, call.input(3).0, [gamma, beta], true);
    let mut own = Vec::new();
    let dh = match call.dx(0) {
        Some((dx, false)) => dx,
        _ => {
            own.resize(call.input(0).0.len(), T::ZERO);
            Out::of(&mut own).with_width(weight.columns)
        }
    };
    call.zero(dh);
    maxima_backward(call, &Rows::Made(norm), weight, bias, segments, Some(dh));
    norm.backward(call, [gamma, beta], train, (!own.is_empty()).then_some(&own), call.dx(0));
}

/// Adds to the gradients of the parameters and to dx: only the rows that hold a maximum have a gradient, about one in `rows / segments` of
/// the elements.
fn maxima_backward<T: Real>(call: &mut Call<T>, x: &Rows<T>, weight: Matrix, bias: Vector, segments: usize, dx: Option<Out<T>>) {
    let (n, k) = (weight.rows, weight.columns);
    let list = call.index(segments);
    let kept = call.index_input(2);
    let (dy, _) = call.dy();
    let w = view(call, weight);
    let gradients = call.parameter_gradients();
    let count = call.dy_rows();
    let per = if disjoint(list, count) { sum_block(count, 8 * n) } else { count };
    let longest = (0..count).map(|s| segment(list, s).0.len()).max().unwrap_or(0);
    let sums = call.sum_rows(count, per, [], [n * k + n, x.room(longest)], |segments, [], sums, room| {
        let (dw, db) = sums.split_at_mut(n * k);
        for s in segments {
            let (rows, _) = segment(list, s);
            let (start, x) = (rows.start, x.part(rows.clone(), room));
            // SAFETY: segments of different tasks do not overlap, as `disjoint` has seen.
            let dx = dx.map_or(&mut [][..], |dx| unsafe { dx.rows(rows) });
            scatter(dx, dw, db, &dy[s * n..(s + 1) * n], &kept[s * n..(s + 1) * n], x, w.data, w.strides[0], start);
        }
    });
    for (r, row) in sums[..n * k].chunks_exact(k.max(1)).enumerate() {
        gradients.add(Vector { offset: weight.offset + r * weight.stride, len: k }, row);
    }
    gradients.add(bias, &sums[n * k..]);
}
