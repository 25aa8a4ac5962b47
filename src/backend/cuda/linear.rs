//! y = activation(x Wᵀ + b), and two layers as one product.

use super::{
    chain::{self, Kind, Shape},
    device::Address,
    product::{self, Forward, Gradient, OF_GELU, OF_RELU, PLAIN, Slope, Sums, Weight},
    recorder::{IndexReference, Recorder, Reference, RowCount, bytes},
    rows::scatter_add,
    weights::{self, factor},
};
use crate::{
    error::Result,
    graph::{Activation, Matrix, Node, Op, Pass, Vector},
};
use bytemuck::{Pod, Zeroable};

/// A weight among the parameters.
pub fn parameter(r: &Recorder, matrix: Matrix) -> Weight {
    Weight { at: r.parameter(matrix), rows: matrix.rows, columns: matrix.columns, stride: matrix.stride }
}

/// The same as products read it.
pub fn weight(r: &Recorder, matrix: Matrix) -> Weight {
    factor(r, parameter(r, matrix))
}

/// x Wᵀ into y and nothing more; `y_stride` lies between rows of y.
pub fn plain(r: &Recorder, rows: RowCount, x: Reference, w: Weight, y: Reference, y_stride: usize) -> Forward {
    Forward {
        step: r.step(),
        weight: w.at,
        bias: 0,
        statistics: 0,
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

impl Pair {
    /// That of a node, if it is of one.
    fn of(node: &Node) -> Option<Self> {
        let Op::LinearPair { inner, inner_bias, outer, outer_bias, .. } = node.op else { return None };
        Some(Self { inner, inner_bias, outer, outer_bias })
    }
}

/// Rows of a pair's product that a block computes.
const SLICE: usize = 64;

/// Slices of matrices of parameters, which blocks compute: first row and number of rows.
fn slices(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(SLICE).map(move |first| (first, SLICE.min(rows - first)))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PairBias {
    outer: Address,
    inner_bias: Address,
    outer_bias: Address,
    s: Address,
    rows: RowCount,
    width: i32,
    stride: i32,
}

/// What pairs of layers need of their parameters alone, P = B A and s = B a + b; in one launch before the first node.
pub fn pair_products(r: &mut Recorder) -> Result<()> {
    let graph = &r.plan.graph;
    let pairs = graph.nodes.iter().filter(|node| node.pass == Pass::Forward).filter_map(|node| Some((node, Pair::of(node)?)));
    let slices: Vec<_> = pairs.flat_map(|(node, pair)| slices(pair.outer.rows).map(move |slice| (node, pair, slice))).collect();
    chain::launch(r, Shape::Full, &vec![chain::ONE; slices.len()], |r, branch| {
        let (node, Pair { inner, inner_bias, outer, outer_bias }, (first, rows)) = slices[branch];
        let product = r.reference(node.output(1)).address();
        let from = |width: usize, at: Address| at + bytes(first * width);
        let b = from(outer.stride, r.parameter(outer));
        let to = Reference::at(from(inner.columns, product));
        product::chain_dx(r, RowCount::fixed(rows), Slope::plain(Reference::at(b), outer.stride), weight(r, inner), (to, false));
        let [width, stride] = [inner.rows, outer.stride].map(|n| n as i32);
        let [inner_bias, outer_bias] = [r.parameter(inner_bias), from(1, r.parameter(outer_bias))];
        let s = from(1, product + bytes(outer.rows * inner.columns));
        r.link(Kind::PairBias, 0, &PairBias { outer: b, inner_bias, outer_bias, s, rows: RowCount::fixed(rows), width, stride });
        Ok(())
    })?;
    let products = slices.iter().map(|(node, pair, _)| {
        let (rows, columns) = (pair.outer.rows, pair.inner.columns);
        Weight { at: r.reference(node.output(1)).address(), rows, columns, stride: columns }
    });
    let products: Vec<Weight> = products.collect();
    weights::pack(r, &products);
    Ok(())
}

/// y = x Pᵀ + s + z\[index\].
pub fn pair_forward(r: &mut Recorder, Pair { inner, outer, .. }: Pair, index: usize) -> Result<()> {
    let (n, k) = (outer.rows, inner.columns);
    let product = r.output(1).address();
    let id = r.node.input(0);
    let w = factor(r, Weight { at: product, rows: n, columns: k, stride: k });
    let (z, index) = (r.input(1), r.index(index));
    let arguments = Forward { bias: product + bytes(n * k), z, index, ..plain(r, r.rows(id), r.input(0), w, r.output(0), n) };
    let (y, capacity) = (r.node.output(0), r.capacity(id));
    // A batch norm behind it need not read y for its statistics.
    if r.plan.graph.nodes.iter().any(|node| matches!(node.op, Op::NormLinearMax { train: true, .. }) && node.operands[0] == y) {
        let statistics = product::forward_with_statistics(r, capacity, &arguments);
        r.statistics.insert(y, statistics);
    } else {
        product::forward(r, capacity, &arguments);
    }
    Ok(())
}

/// Where the sums of a pair's gradients are: dP = dyᵀ x, and behind it ds, the sum of the rows of dy.
pub struct PairSums {
    pair: Pair,
    dp: Address,
}

/// The gradients of x and z now, those of P and s with those of other weights.
pub fn pair_backward(r: &mut Recorder, pair: Pair, index: usize) -> Result<()> {
    let (n, k) = (pair.outer.rows, pair.inner.columns);
    let id = r.dy_id();
    let (rows, dy) = ((r.rows(id), r.capacity(id)), r.dy());
    if let Some(dz) = r.dx(1) {
        scatter_add(r, dz, r.node.operands[1], dy, id, index);
    }
    let slope = Slope::plain(dy, n);
    if let Some(dx) = r.dx(0) {
        let product = r.input(3).address();
        let w = factor(r, Weight { at: product, rows: n, columns: k, stride: k });
        product::dx(r, rows, slope, w, dx);
    }
    let dp = r.lasting_scratch(n * k + n);
    let sums = Sums { n, k, weight: (0, k), bias: r.gradient(pair.outer_bias), totals: dp };
    let gradient = Gradient::new(r, rows, slope, r.input(0), 0, sums);
    r.gradients.push(gradient);
    r.pairs.push(PairSums { pair, dp });
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct OuterSum {
    u: Address,
    v: Address,
    y: Address,
    rows: RowCount,
    width: i32,
    stride: i32,
}

/// Given dP and ds: dB = dP Aᵀ + ds aᵀ, dA = Bᵀ dP, da = Bᵀ ds, of all pairs; db = ds has been added.
pub fn pair_gradients(r: &mut Recorder) -> Result<()> {
    let pairs = std::mem::take(&mut r.pairs);
    let slices: Vec<_> = pairs.iter().flat_map(|sums| slices(sums.pair.outer.rows).map(move |slice| (sums, slice))).collect();
    chain::launch(r, Shape::Full, &vec![chain::ONE; slices.len()], |r, branch| {
        let (&PairSums { pair: Pair { inner, inner_bias, outer, .. }, dp }, (first, rows)) = slices[branch];
        let k = inner.columns;
        let y = r.gradient(outer) + bytes(first * outer.stride);
        let count = RowCount::fixed(rows);
        let slice = plain(r, count, Reference::at(dp + bytes(first * k)), weight(r, inner), Reference::at(y), outer.stride);
        product::chain_forward(r, &Forward { accumulate: 1, ..slice });
        let [width, stride] = [inner.rows, outer.stride].map(|n| n as i32);
        let (u, v) = (dp + bytes(outer.rows * k + first), r.parameter(inner_bias));
        r.link(Kind::OuterSum, 0, &OuterSum { u, v, y, rows: count, width, stride });
        Ok(())
    })?;
    let gradients = pairs.iter().map(|&PairSums { pair: Pair { inner, inner_bias, outer, .. }, dp }| {
        let n = outer.rows;
        let b = Slope::plain(Reference::at(r.parameter(outer)), outer.stride);
        let sums =
            Sums { n: inner.rows, k: inner.columns, weight: (r.gradient(inner), inner.stride), bias: r.gradient(inner_bias), totals: 0 };
        Gradient::new(r, (RowCount::fixed(n), n), b, Reference::at(dp), dp + bytes(n * inner.columns), sums)
    });
    let gradients = gradients.collect();
    let sums = product::partial_gradients(r, gradients);
    r.sums.extend(sums);
    Ok(())
}
