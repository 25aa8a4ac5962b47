//! Layer and batch normalisation.

use super::{
    chain::{Kind, WIDEST_NORM},
    device::Address,
    partials::{self, runs},
    product::RunStatistics,
    recorder::{self, Recorder, Reference, RowCount, blocks},
};
use crate::{
    error::{Error, Result},
    graph::{Activation, Vector},
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block, and rows that it has at a time.
const BLOCK: u32 = 256;
const WARPS: usize = 8;
/// Threads of a block that joins statistics.
const JOIN: u32 = 1024;
/// Columns that a warp has at a time.
const CHUNK: usize = 128;

/// Whether the activation is ReLU; norms know no other.
pub fn relu(activation: Activation) -> Result<i32> {
    match activation {
        Activation::None => Ok(0),
        Activation::Relu => Ok(1),
        Activation::Gelu => Err(Error::Backend("norms are followed by ReLU or nothing".into())),
    }
}

/// Widest layer norm.
const WIDEST: usize = 1024;

/// Adds a layer norm to the chain, or launches it by itself where the rows are too wide.
fn layer<A: Pod>(r: &mut Recorder, width: usize, kinds: [Kind; 2], kernel: &str, blocks: usize, arguments: &A) -> Result<()> {
    if width > WIDEST {
        return Err(Error::Backend(format!("rows of {width} columns are wider than {WIDEST}")));
    }
    if width > WIDEST_NORM {
        r.launch(kernel, [blocks as u32, 1, 1], BLOCK, 0, arguments);
    } else {
        r.link(kinds[usize::from(width > CHUNK)], 0, arguments);
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LayerNormForward {
    step: Address,
    gamma: Address,
    beta: Address,
    x: Reference,
    y: Reference,
    kept: Reference,
    rows: RowCount,
    width: i32,
    relu: i32,
}

pub fn layer_forward(r: &mut Recorder, gamma: Vector, beta: Vector, activation: Activation) -> Result<()> {
    let id = r.node.input(0);
    let arguments = LayerNormForward {
        step: r.step(),
        gamma: r.parameter(gamma),
        beta: r.parameter(beta),
        x: r.input(0),
        y: r.output(0),
        kept: r.output(1),
        rows: r.rows(id),
        width: gamma.len as i32,
        relu: relu(activation)?,
    };
    let blocks = blocks(r.capacity(id), WARPS) as usize;
    layer(r, gamma.len, [Kind::LayerNormForward, Kind::LayerNormForwardWide], "layer_norm_forward", blocks, &arguments)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LayerNormBackward {
    step: Address,
    gamma: Address,
    beta: Address,
    x: Reference,
    kept: Reference,
    dy: Reference,
    dx: Reference,
    partials: Address,
    rows: RowCount,
    width: i32,
    relu: i32,
    accumulate: i32,
    pad: i32,
}

pub fn layer_backward(r: &mut Recorder, gamma: Vector, beta: Vector, activation: Activation) -> Result<()> {
    let id = r.node.input(0);
    let count = if gamma.len > WIDEST_NORM { runs(r.capacity(id)) } else { r.chain_blocks() };
    let partials = partials::of_gradients(r, count, &[gamma, beta]);
    let (dx, accumulate) = r.dx(0).unwrap_or((Reference::none(), false));
    let arguments = LayerNormBackward {
        step: r.step(),
        gamma: r.parameter(gamma),
        beta: r.parameter(beta),
        x: r.input(0),
        kept: r.input(2),
        dy: r.dy(),
        dx,
        partials,
        rows: r.rows(id),
        width: gamma.len as i32,
        relu: relu(activation)?,
        accumulate: i32::from(accumulate),
        pad: 0,
    };
    layer(r, gamma.len, [Kind::LayerNormBackward, Kind::LayerNormBackwardWide], "layer_norm_backward", count, &arguments)
}

/// The grid for `count` runs of rows and all columns.
fn tiles(count: usize, width: usize) -> [u32; 3] {
    [count as u32, blocks(width, CHUNK), 1]
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchNormStatistics {
    step: Address,
    x: Reference,
    partials: Address,
    rows: RowCount,
    width: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchNormJoin {
    step: Address,
    partials: Address,
    kept: Reference,
    pending_mean: Address,
    pending_variance: Address,
    rows: RowCount,
    width: i32,
    blocks: i32,
    run: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchNormForward {
    step: Address,
    gamma: Address,
    beta: Address,
    mean: Address,
    variance: Address,
    x: Reference,
    y: Reference,
    kept: Reference,
    rows: RowCount,
    width: i32,
    relu: i32,
}

pub fn batch_forward(r: &mut Recorder, parameters: [Vector; 2], running: [Vector; 2], train: bool, activation: Activation) -> Result<()> {
    let (y, kept, relu) = (r.output(0), r.output(1), relu(activation)?);
    if train {
        batch_statistics(r, kept, running);
    }
    let statistics = if train { [0; 2] } else { running.map(|v| r.running(v)) };
    normalise(r, y, kept, statistics, parameters, relu);
    Ok(())
}

/// y from the statistics that were kept.
pub fn batch_again(r: &mut Recorder, parameters: [Vector; 2], activation: Activation) -> Result<()> {
    let relu = relu(activation)?;
    normalise(r, r.output(0), r.input(2), [0; 2], parameters, relu);
    Ok(())
}

/// How a product's operand follows from what it reads; no norm without gamma. Mirrors `Norm` of `normalise.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Norm {
    kept: Reference,
    gamma: Address,
    beta: Address,
}

impl Norm {
    pub fn none() -> Self {
        Self { kept: Reference::none(), gamma: 0, beta: 0 }
    }
    /// With statistics that were kept; ReLU follows.
    pub fn new(r: &Recorder, kept: Reference, [gamma, beta]: [Vector; 2]) -> Self {
        Self { kept, gamma: r.parameter(gamma), beta: r.parameter(beta) }
    }
}

/// Keeps the statistics of operand 0, of the batch or the running ones, and nothing more.
pub fn keep_statistics(r: &mut Recorder, kept: Reference, parameters: [Vector; 2], running: [Vector; 2], train: bool) {
    if train {
        batch_statistics(r, kept, running);
    } else {
        let statistics = running.map(|v| r.running(v));
        normalise(r, Reference::none(), kept, statistics, parameters, 1);
    }
}

/// Keeps the statistics of the columns of operand 0, and moves the pending ones.
fn batch_statistics(r: &mut Recorder, kept: Reference, running: [Vector; 2]) {
    let (id, width) = (r.node.input(0), running[0].len);
    let rows = r.rows(id);
    let RunStatistics { partials, count, rows: run } = match r.statistics.get(&id) {
        Some(statistics) => *statistics,
        None => {
            let count = runs(r.capacity(id));
            let partials = r.scratch(2 * count * width);
            let arguments = BatchNormStatistics { step: r.step(), x: r.input(0), partials, rows, width: width as i32, pad: 0 };
            r.launch("batch_norm_statistics", tiles(count, width), BLOCK, 0, &arguments);
            RunStatistics { partials, count, rows: 0 }
        }
    };
    let [pending_mean, pending_variance] = running.map(|v| r.pending(v));
    let [width, blocks, run] = [width, count, run].map(|n| n as i32);
    let arguments = BatchNormJoin { step: r.step(), partials, kept, pending_mean, pending_variance, rows, width, blocks, run, pad: 0 };
    r.launch("batch_norm_join", [recorder::blocks(running[0].len, 32), 1, 1], JOIN, 0, &arguments);
}

/// y, if there is one, with the statistics in `kept`, or with running mean and variance, which are kept then.
fn normalise(r: &mut Recorder, y: Reference, kept: Reference, [mean, variance]: [Address; 2], [gamma, beta]: [Vector; 2], relu: i32) {
    let (id, width) = (r.node.input(0), gamma.len);
    let arguments = BatchNormForward {
        step: r.step(),
        gamma: r.parameter(gamma),
        beta: r.parameter(beta),
        mean,
        variance,
        x: r.input(0),
        y,
        kept,
        rows: r.rows(id),
        width: width as i32,
        relu,
    };
    let count = if y.is_none() { 1 } else { runs(r.capacity(id)) };
    r.launch("batch_norm_forward", tiles(count, width), BLOCK, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchNormBackward {
    step: Address,
    gamma: Address,
    beta: Address,
    totals: Address,
    x: Reference,
    kept: Reference,
    dy: Reference,
    dx: Reference,
    partials: Address,
    rows: RowCount,
    width: i32,
    relu: i32,
    accumulate: i32,
    pad: i32,
}

pub fn batch_backward(r: &mut Recorder, [gamma, beta]: [Vector; 2], train: bool, activation: Activation) -> Result<()> {
    let (id, width) = (r.node.input(0), gamma.len);
    let count = runs(r.capacity(id));
    let partials = r.scratch(2 * count * width);
    let dx = r.dx(0);
    let mut arguments = BatchNormBackward {
        step: r.step(),
        gamma: r.parameter(gamma),
        beta: r.parameter(beta),
        totals: 0,
        x: r.input(0),
        kept: r.input(2),
        dy: r.dy(),
        dx: Reference::none(),
        partials,
        rows: r.rows(id),
        width: width as i32,
        relu: relu(activation)?,
        accumulate: 0,
        pad: 0,
    };
    r.launch("batch_norm_sums", tiles(count, width), BLOCK, 0, &arguments);
    let totals = partials::add_to_gradients(r, partials, count, &[gamma, beta]);
    arguments.totals = if train { totals } else { 0 };
    if let Some((dx, accumulate)) = dx {
        (arguments.dx, arguments.accumulate) = (dx, i32::from(accumulate));
        r.launch("batch_norm_backward", tiles(count, width), BLOCK, 0, &arguments);
    }
    Ok(())
}
