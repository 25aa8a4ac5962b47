//! y = activation(x Wᵀ + b), and two layers as one product.

use super::{
    call::{Call, Out, block, sum_block},
    gemm::{View, gemm, gemm_at},
    math::{Real, add_rows_to, add_to_rows, gelu, gelu_slope, relu, simd},
    rows::scatter_add,
};
use crate::graph::{Activation, Matrix, Vector};

/// Rows that go through the product at a time.
pub const ROWS: usize = 256;

/// The part of the parameters that a matrix spans.
pub fn span(weight: Matrix) -> Vector {
    let len = if weight.rows == 0 { 0 } else { (weight.rows - 1) * weight.stride + weight.columns };
    Vector { offset: weight.offset, len }
}

/// A weight to read.
pub fn view<'a, T: Real>(call: &Call<'a, T>, weight: Matrix) -> View<'a, T> {
    View::rows(call.parameter(span(weight)), weight.stride)
}

/// Rows of a block: enough tasks for many threads where there are rows for them, without packing the weight too often.
pub fn rows_of_block(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(32).clamp(64, ROWS)
}

simd! {
    pub fn add_bias_relu<T: Real>(y: &mut [T], bias: &[T]) {
        for row in y.chunks_exact_mut(bias.len().max(1)) {
            for (y, &b) in row.iter_mut().zip(bias) {
                *y = relu(*y + b);
            }
        }
    }
    fn relu_all<T: Real>(y: &mut [T]) {
        for y in y.iter_mut() {
            *y = relu(*y);
        }
    }
    fn gelu_all<T: Real>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = gelu(x);
        }
    }
    pub fn relu_back<T: Real>(d: &mut [T], dy: &[T], y: &[T]) {
        for ((d, &dy), &y) in d.iter_mut().zip(dy).zip(y) {
            *d = if y > T::ZERO { dy } else { T::ZERO };
        }
    }
    fn gelu_back<T: Real>(d: &mut [T], dy: &[T], x: &[T]) {
        for ((d, &dy), &x) in d.iter_mut().zip(dy).zip(x) {
            *d = dy * gelu_slope(x);
        }
    }
}

pub fn forward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Option<Vector>, activation: Activation) {
    let (x, k) = call.input(0);
    let n = weight.rows;
    let w = view(call, weight).transposed();
    let bias = bias.map(|b| call.parameter(b));
    let y = call.output(0);
    let before = if activation == Activation::Gelu { call.output(1) } else { Out::none() };
    let rows = call.input_rows(0);
    call.for_rows(rows, rows_of_block(rows), [y, before], 0, |rows, [y, before], _| {
        let x = View::rows(&x[rows.start * k..rows.end * k], k);
        let target = if activation == Activation::Gelu { &mut *before } else { &mut *y };
        gemm([rows.len(), k, n], T::ONE, x, w, T::ZERO, target, n);
        match (activation, bias) {
            (Activation::Relu, Some(bias)) => add_bias_relu(y, bias),
            (Activation::Relu, None) => relu_all(y),
            (_, Some(bias)) => add_to_rows(target, bias),
            _ => {}
        }
        if activation == Activation::Gelu {
            gelu_all(y, before);
        }
    });
}

/// y from what was before the activation.
pub fn gelu_again<T: Real>(call: &mut Call<T>) {
    let (before, n) = call.input(2);
    let y = call.output(0);
    call.for_rows(call.input_rows(2), block(2 * n), [y], 0, |rows, [y], _| gelu_all(y, &before[rows.start * n..rows.end * n]));
}

pub fn backward<T: Real>(call: &mut Call<T>, weight: Matrix, bias: Option<Vector>, activation: Activation) {
    let read = match activation {
        Activation::None => &[],
        Activation::Relu => call.input(1).0,
        Activation::Gelu => call.input(2).0,
    };
    let before = |dy: &[T], place: std::ops::Range<usize>, d: &mut [T]| match activation {
        Activation::None => {}
        Activation::Relu => relu_back(d, dy, &read[place]),
        Activation::Gelu => gelu_back(d, dy, &read[place]),
    };
    let (n, k) = (weight.rows, weight.columns);
    let w = view(call, weight);
    let gradients = call.parameter_gradients();
    let sums = product_backward(call, w, [n, k], activation != Activation::None, bias.is_some(), before);
    let (dw, db) = sums.split_at(n * k);
    for (r, row) in dw.chunks_exact(k.max(1)).enumerate() {
        gradients.add(Vector { offset: weight.offset + r * weight.stride, len: k }, row);
    }
    if let Some(bias) = bias {
        gradients.add(bias, db);
    }
}

/// dx = d W, and gives dW `[n, k]` and the column sums of d: d is dy, or what `before` makes of rows of it.
pub fn product_backward<'c, T: Real>(
    call: &'c mut Call<T>,
    w: View<T>,
    [n, k]: [usize; 2],
    activated: bool,
    biased: bool,
    before: impl Fn(&[T], std::ops::Range<usize>, &mut [T]) + Sync,
) -> &'c mut [T] {
    let (x, _) = call.input(0);
    let (dy, _) = call.dy();
    let (dx, accumulate) = call.dx(0).unwrap_or((Out::none(), false));
    let has_dx = call.dx(0).is_some();
    let rows = call.dy_rows();
    let step = rows_of_block(rows);
    let scratch = if activated { step * n } else { 0 };
    let sizes = [n * k + if biased { n } else { 0 }, scratch];
    let task = sum_block(rows, (n + k) / 2).next_multiple_of(step);
    call.sum_rows(rows, task, [dx], sizes, |rows, [dx], sums, scratch| {
        let (dw, db) = sums.split_at_mut(n * k);
        for (i, start) in rows.clone().step_by(step).enumerate() {
            let part = start..rows.end.min(start + step);
            let size = part.len();
            let mut d = &dy[part.start * n..part.end * n];
            if activated {
                let scratch = &mut scratch[..size * n];
                before(d, part.start * n..part.end * n, scratch);
                d = scratch;
            }
            let d_rows = View::rows(d, n);
            if has_dx {
                let dx = &mut dx[(part.start - rows.start) * k..(part.end - rows.start) * k];
                gemm([size, n, k], T::ONE, d_rows, w, if accumulate { T::ONE } else { T::ZERO }, dx, k);
            }
            let x = View::rows(&x[part.start * k..part.end * k], k);
            gemm([n, size, k], T::ONE, d_rows.transposed(), x, if i == 0 { T::ZERO } else { T::ONE }, dw, k);
            if biased {
                add_rows_to(db, d);
            }
        }
    })
}

/// The two layers of [`crate::graph::Op::LinearPair`].
#[derive(Clone, Copy)]
pub struct Pair {
    /// A `[m, k]`.
    pub inner: Matrix,
    /// a `[m]`.
    pub inner_bias: Vector,
    /// B `[n, m]`.
    pub outer: Matrix,
    /// b `[n]`.
    pub outer_bias: Vector,
}

/// Rows of B A that a task makes.
const PRODUCT_ROWS: usize = 32;

pub fn pair_forward<T: Real>(call: &mut Call<T>, pair: Pair, index: usize) {
    let ((x, k), (z, n)) = (call.input(0), call.input(1));
    let m = pair.inner.rows;
    let list = call.index(index);
    let (a, b) = (view(call, pair.inner), view(call, pair.outer));
    let [a_bias, b_bias] = [pair.inner_bias, pair.outer_bias].map(|v| call.parameter(v));
    let (y, kept) = (call.output(0), call.output(1));
    call.for_rows(n, PRODUCT_ROWS, [kept.with_width(k)], 0, |rows, [product], _| {
        let b = View::rows(&b.data[rows.start * b.strides[0]..], b.strides[0]);
        gemm([rows.len(), m, k], T::ONE, b, a, T::ZERO, product, k);
        // SAFETY: each task has other rows, and other elements behind the product.
        let bias = unsafe { kept.part(n * k + rows.start..n * k + rows.end) };
        for (i, (bias, &b_bias)) in bias.iter_mut().zip(&b_bias[rows]).enumerate() {
            *bias = super::math::dot(&b.data[i * b.strides[0]..][..m], a_bias) + b_bias;
        }
    });
    // SAFETY: only read from here on.
    let (product, bias) = unsafe { kept.part(0..n * (k + 1)) }.split_at(n * k);
    let product = View::rows(product, k).transposed();
    let rows = call.input_rows(0);
    call.for_rows(rows, rows_of_block(rows), [y], 0, |rows, [y], _| {
        gemm([rows.len(), k, n], T::ONE, View::rows(&x[rows.start * k..rows.end * k], k), product, T::ZERO, y, n);
        for (y, &group) in y.chunks_exact_mut(n).zip(&list[rows]) {
            add_both(y, bias, &z[group as usize * n..][..n]);
        }
    });
}

simd! {
    /// y += a + b.
    fn add_both<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y += a + b;
        }
    }
}

/// With P = B A, s = B a + b, and their gradients dP, ds: dB = dP Aᵀ + ds aᵀ, dA = Bᵀ dP, da = Bᵀ ds, db = ds.
pub fn pair_backward<T: Real>(call: &mut Call<T>, pair: Pair, index: usize) {
    let Pair { inner, inner_bias, outer, outer_bias } = pair;
    let (m, k, n) = (inner.rows, inner.columns, outer.rows);
    let (dy, _) = call.dy();
    let list = call.index(index);
    if let Some((dz, accumulate)) = call.dx(1) {
        scatter_add(call, dz, accumulate, dy, &list[..call.dy_rows()]);
    }
    let (a, b) = (view(call, inner), view(call, outer));
    let a_bias = call.parameter(inner_bias);
    let gradients = call.parameter_gradients();
    let [da, db] = [span(inner), span(outer)].map(|v| gradients.of(v));
    let product = View::rows(&call.input(3).0[..n * k], k);
    let sums = product_backward(call, product, [n, k], false, true, |_, _, _| {});
    gradients.add(outer_bias, &sums[n * k..]);
    let sums = Out::of(sums);
    // SAFETY: only read, and `sum_rows` is not called meanwhile.
    let (dp, ds) = unsafe { sums.part(0..sums.len()) }.split_at(n * k);
    let dp = View::rows(dp, k);
    // SAFETY: tasks write different rows of the gradients of A and of B.
    call.tasks(n.div_ceil(PRODUCT_ROWS), 0, |i, _| unsafe {
        let rows = i * PRODUCT_ROWS..n.min((i + 1) * PRODUCT_ROWS);
        let dp = View::rows(&dp.data[rows.start * k..], k);
        gemm_at([rows.len(), k, m], T::ONE, dp, a.transposed(), T::ONE, db, rows.start * outer.stride, outer.stride);
        for row in rows {
            super::math::add_scaled(db.part(row * outer.stride..row * outer.stride + m), a_bias, ds[row]);
        }
    });
    // SAFETY: as above.
    call.tasks(m.div_ceil(PRODUCT_ROWS), 0, |i, _| unsafe {
        let rows = i * PRODUCT_ROWS..m.min((i + 1) * PRODUCT_ROWS);
        let b = View { data: &b.data[rows.start..], strides: [1, b.strides[0]] };
        gemm_at([rows.len(), n, k], T::ONE, b, dp, T::ONE, da, rows.start * inner.stride, inner.stride);
    });
    // SAFETY: no task runs.
    let da_bias = unsafe { gradients.of(inner_bias).part(0..m) };
    for (row, &ds) in ds.iter().enumerate() {
        super::math::add_scaled(da_bias, &b.data[row * b.strides[0]..][..m], ds);
    }
}
