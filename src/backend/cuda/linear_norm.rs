//! A linear layer of an input with the batch norm behind it; see `linear_norm.cu`.

use super::{
    device::Address,
    linear::plain,
    norm::relu,
    partials::{self, runs},
    product::{self, Forward, Gradient, OF_RELU, PLAIN, Slope, Sums, Weight},
    recorder::{Multiply, Recorder, Reference, RowCount, blocks, bytes},
};
use crate::{
    error::Result,
    graph::{Folded, Op},
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block that folds, and of one that makes gradients.
const FOLD: usize = 1024;
const BLOCK: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Moments {
    step: Address,
    x: Reference,
    partials: Address,
    rows: RowCount,
    width: i32,
    pairs: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinearNorm {
    step: Address,
    weight: Address,
    bias: Address,
    gamma: Address,
    beta: Address,
    running: [Address; 2],
    kept: Address,
    partials: Address,
    rows: RowCount,
    n: i32,
    k: i32,
    weight_stride: i32,
    pairs: i32,
    blocks: i32,
    pad: i32,
}

/// The node's, with what it keeps; in training from these partial sums of moments.
fn arguments(r: &Recorder, kept: Reference, partials: Address, blocks: usize) -> LinearNorm {
    let Op::LinearNorm { weight, bias, gamma, beta, running, train, .. } = r.node.op else { unreachable!("linear_norm") };
    let [n, k, weight_stride, pairs, blocks] =
        [weight.rows, weight.columns, weight.stride, pairs(weight.columns), blocks].map(|n| n as i32);
    LinearNorm {
        step: r.step(),
        weight: r.parameter(weight),
        bias: r.parameter(bias),
        gamma: r.parameter(gamma),
        beta: r.parameter(beta),
        running: running.map(|v| if train { r.pending(v) } else { r.running(v) }),
        kept: kept.address(),
        partials,
        rows: r.rows(r.node.operands[0]),
        n,
        k,
        weight_stride,
        pairs,
        blocks,
        pad: 0,
    }
}

/// Sums of columns, and of products of two.
fn pairs(width: usize) -> usize {
    width + width * (width + 1) / 2
}

pub fn forward(r: &mut Recorder) -> Result<()> {
    let Op::LinearNorm { weight, train, activation, .. } = r.node.op else { unreachable!("linear_norm") };
    let (id, n, k) = (r.node.input(0), weight.rows, weight.columns);
    let (rows, capacity, count) = (r.rows(id), r.capacity(id), runs(r.capacity(id)));
    let kept = r.output(1);
    let mut partials = 0;
    if train {
        partials = r.scratch(2 * count * pairs(k));
        let arguments = Moments { step: r.step(), x: r.input(0), partials, rows, width: k as i32, pairs: pairs(k) as i32 };
        r.launch("moments", [count as u32, 1, 1], 256, 0, &arguments);
    }
    let folding = arguments(r, kept, partials, count);
    r.launch("fold_norm", [blocks(n, FOLD), 1, 1], FOLD as u32, 0, &folding);
    let (at, places) = (kept.address(), Folded::new(n, k));
    let w = Weight { at, rows: n, columns: k, stride: k };
    let bias = at + bytes(places.bias.start);
    let product = Forward { bias, activation: relu(activation)?, ..plain(r, rows, r.input(0), w, r.output(0), n) };
    exactly(r, |r| product::forward(r, capacity, &product));
    Ok(())
}

/// Products as exact as single precision whatever is asked of others: these are small, and the norm's mean leaves little of their numbers.
fn exactly<T>(r: &mut Recorder, products: impl FnOnce(&mut Recorder) -> T) -> T {
    let multiply = std::mem::replace(&mut r.multiply, Multiply::Tf32x3);
    let result = products(r);
    r.multiply = multiply;
    result
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Rest {
    of: LinearNorm,
    products: Address,
    weight: Address,
    bias: Address,
    gamma: Address,
    weight_stride: i32,
    pad: i32,
}

/// Gradients that wait for the group that settles those of weights: the product of dy and x, and what follows from it.
pub struct NormGradient {
    product: Gradient,
    rest: Rest,
}

/// Leaves both to [`settle`].
pub fn backward(r: &mut Recorder) -> Result<()> {
    let Op::LinearNorm { weight, bias, gamma, beta, train, activation, .. } = r.node.op else { unreachable!("linear_norm") };
    let (id, n, k) = (r.dy_id(), weight.rows, weight.columns);
    let kind = if relu(activation)? == 1 { OF_RELU } else { PLAIN };
    let slope = Slope { by: r.input(1), kind, ..Slope::plain(r.dy(), n) };
    let products = r.lasting_scratch(n * k + n);
    let sums = Sums { n, k, weight: (0, k), bias: r.gradient(beta), totals: products };
    let product = Gradient::new(r, (r.rows(id), r.capacity(id)), slope, r.input(0), 0, sums);
    // Only whether there are partial sums is looked at.
    let of = arguments(r, r.input(2), if train { products } else { 0 }, 0);
    let [weight_gradient, bias, gamma] = [r.gradient(weight), r.gradient(bias), r.gradient(gamma)];
    let weight_stride = weight.stride as i32;
    let rest = Rest { of, products, weight: weight_gradient, bias, gamma, weight_stride, pad: 0 };
    r.norms.push(NormGradient { product, rest });
    Ok(())
}

/// Gradients of all weights that wait, with those of norms of inputs.
pub fn settle(r: &mut Recorder) {
    let weights = std::mem::take(&mut r.gradients);
    let (products, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut r.norms).into_iter().map(|norm| (norm.product, norm.rest)).unzip();
    let mut sums = product::partial_gradients(r, weights);
    sums.extend(exactly(r, |r| product::partial_gradients(r, products)));
    partials::add_up(r, sums);
    if let Some(widest) = rest.iter().map(|rest| rest.of.n as usize).max() {
        let all = r.constants(&rest);
        r.launch("linear_norm_gradients", [blocks(widest, BLOCK), rest.len() as u32, 1], BLOCK as u32, 0, &all);
    }
}
