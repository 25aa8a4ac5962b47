//! y = activation(x Wᵀ + b), and two layers as one product.

use super::{
    chain::Kind,
    device::Address,
    product::{self, Forward, Gradient, OF_GELU, OF_RELU, PLAIN, Slope, Sums, Weight},
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks, bytes},
    rows::scatter_add,
};
use crate::{
    error::Result,
    graph::{Activation, Matrix, Vector},
};
use bytemuck::{Pod, Zeroable};

/// A weight on the device.
pub fn weight(r: &Recorder, matrix: Matrix) -> Weight {
    Weight { at: r.parameter(matrix), rows: matrix.rows, columns: matrix.columns, stride: matrix.stride }
}

/// x Wᵀ into y and nothing more; `y_stride` lies between rows of y.
fn plain(r: &Recorder, rows: RowCount, x: Reference, w: Weight, y: Reference, y_stride: usize) -> Forward {
    Forward {
        step: r.step(),
        weight: w.at,
        bias: 0,
        factors: 0,
        x,
        y,
        before: Reference::none(),
        z: Reference::none(),
        index: IndexReference::at(0),
        rows,
        k: w.columns as i32,
        n: w.rows as i32,
        weight_stride: w.stride as i32,
        y_stride: y_stride as i32,
        activation: 0,
        accumulate: 0,
    }
}

pub fn forward(r: &mut Recorder, matrix: Matrix, bias: Option<Vector>, activation: Activation) -> Result<()> {
    let id = r.node.input(0);
    let mut arguments = plain(r, r.rows(id), r.input(0), weight(r, matrix), r.output(0), matrix.rows);
    arguments.bias = bias.map_or(0, |bias| r.parameter(bias));
    match activation {
        Activation::None => {}
        Activation::Relu => arguments.activation = 1,
        Activation::Gelu => (arguments.activation, arguments.before) = (2, r.output(1)),
    }
    product::chain_forward(r, &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Gelu {
    step: Address,
    x: Reference,
    y: Reference,
    rows: RowCount,
    width: i32,
    pad: i32,
}

/// y from what was before the activation.
pub fn gelu_again(r: &mut Recorder) -> Result<()> {
    let id = r.node.input(2);
    let arguments = Gelu { step: r.step(), x: r.input(2), y: r.output(0), rows: r.rows(id), width: r.width(id) as i32, pad: 0 };
    r.link(Kind::GeluAgain, 0, &arguments);
    Ok(())
}

pub fn backward(r: &mut Recorder, matrix: Matrix, bias: Option<Vector>, activation: Activation) -> Result<()> {
    let (kind, by) = match activation {
        Activation::None => (PLAIN, Reference::none()),
        Activation::Relu => (OF_RELU, r.input(1)),
        Activation::Gelu => (OF_GELU, r.input(2)),
    };
    let slope = Slope { by, kind, ..Slope::plain(r.dy(), matrix.rows) };
    let id = r.dy_id();
    if let Some(dx) = r.dx(0) {
        product::chain_dx(r, r.rows(id), slope, weight(r, matrix), dx);
    }
    let gradient = Gradient::new(r, (r.rows(id), r.capacity(id)), slope, r.input(0), 0, sums(r, matrix, bias));
    r.gradients.push(gradient);
    Ok(())
}

/// Where the gradients of W and b go.
pub fn sums(r: &Recorder, matrix: Matrix, bias: Option<Vector>) -> Sums {
    let (weight, bias) = ((r.gradient(matrix), matrix.stride), bias.map_or(0, |bias| r.gradient(bias)));
    Sums { n: matrix.rows, k: matrix.columns, weight, bias, totals: 0 }
}

/// The parameters of a [`crate::graph::Op::LinearPair`].
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

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PairBias {
    outer: Address,
    inner_bias: Address,
    outer_bias: Address,
    s: Address,
    n: i32,
    m: i32,
    stride: i32,
    pad: i32,
}

/// P = B A and s = B a + b are kept; y = x Pᵀ + s + z\[index\].
pub fn pair_forward(r: &mut Recorder, pair: Pair, index: usize) -> Result<()> {
    let Pair { inner, inner_bias, outer, outer_bias } = pair;
    let (n, m, k) = (outer.rows, inner.rows, inner.columns);
    let kept = r.output(1);
    let s = kept.address() + bytes(n * k);
    let b = Slope::plain(Reference::at(r.parameter(outer)), outer.stride);
    product::dx(r, (RowCount::fixed(n), n), b, weight(r, inner), (kept, false));
    let [n_, m_, stride] = [n, m, outer.stride].map(|n| n as i32);
    let [outer, inner_bias, outer_bias] = [r.parameter(outer), r.parameter(inner_bias), r.parameter(outer_bias)];
    r.launch("pair_bias", [blocks(n, 8), 1, 1], 256, 0, &PairBias { outer, inner_bias, outer_bias, s, n: n_, m: m_, stride, pad: 0 });
    let id = r.node.input(0);
    let w = Weight { at: kept.address(), rows: n, columns: k, stride: k };
    let (z, index) = (r.input(1), r.index(index));
    let arguments = Forward { bias: s, z, index, ..plain(r, r.rows(id), r.input(0), w, r.output(0), n) };
    product::forward(r, r.capacity(id), &arguments);
    Ok(())
}

/// With dP = dyᵀ x and ds the sum of the rows of dy: dB = dP Aᵀ + ds aᵀ, dA = Bᵀ dP, da = Bᵀ ds, db = ds.
pub fn pair_backward(r: &mut Recorder, pair: Pair, index: usize) -> Result<()> {
    let Pair { inner, inner_bias, outer, outer_bias } = pair;
    let (n, m, k) = (outer.rows, inner.rows, inner.columns);
    let id = r.dy_id();
    let (rows, dy) = ((r.rows(id), r.capacity(id)), r.dy());
    if let Some(dz) = r.dx(1) {
        scatter_add(r, dz, r.node.operands[1], dy, id, index);
    }
    let slope = Slope::plain(dy, n);
    if let Some(dx) = r.dx(0) {
        let product = r.input(3).address();
        product::dx(r, rows, slope, Weight { at: product, rows: n, columns: k, stride: k }, dx);
    }
    let dp = r.scratch(n * k + n);
    let ds = dp + bytes(n * k);
    let sums = Sums { n, k, weight: (0, k), bias: r.gradient(outer_bias), totals: dp };
    let gradient = Gradient::new(r, rows, slope, r.input(0), 0, sums);
    product::gradients(r, vec![gradient]);
    let (fixed, dp) = (RowCount::fixed(n), Reference::at(dp));
    let mut arguments = plain(r, fixed, dp, weight(r, inner), Reference::at(r.gradient(outer)), outer.stride);
    (arguments.bias, arguments.factors, arguments.accumulate) = (r.parameter(inner_bias), ds, 1);
    product::forward(r, n, &arguments);
    let b = Slope::plain(Reference::at(r.parameter(outer)), outer.stride);
    let sums = Sums { n: m, k, weight: (r.gradient(inner), inner.stride), bias: r.gradient(inner_bias), totals: 0 };
    let gradient = Gradient::new(r, (fixed, n), b, dp, ds, sums);
    product::gradients(r, vec![gradient]);
    Ok(())
}
