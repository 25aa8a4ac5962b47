//! Multi-head attention over segments of rows.

use super::{
    device::Address,
    dropout::Mask,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
    rows::fill,
};
use crate::{
    error::{Error, Result},
    graph::{Attention, Graph, Node, TensorId},
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block; rows of a tile.
const BLOCK: u32 = 128;
const TILE: usize = 64;
/// Set in the stream of the numbers that mask whole keys.
const KEYS: u32 = 0x8000_0000;
/// Blocks of a head for few rows: where several belong to a unit, as the modes of a line, segments may be as small; else they are a scenario's.
const FEW_OF_UNITS: usize = 512;
const FEW: usize = 64;

/// What all attention has; mirrors `heads.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Heads {
    step: Address,
    operands: [Reference; 3],
    dropout: Mask,
    scale: f32,
    strides: [i32; 3],
    columns: [i32; 3],
    heads: i32,
    width: i32,
}

impl Heads {
    /// Those of the recorder's node.
    pub fn new(r: &Recorder, spec: &Attention) -> Self {
        Self {
            step: r.step(),
            operands: std::array::from_fn(|i| r.input(i)),
            dropout: Mask::new(r.node.stream, spec.dropout),
            scale: (1.0 / (spec.head_width as f64).sqrt()) as f32,
            strides: std::array::from_fn(|i| r.width(r.node.operands[i]) as i32),
            columns: spec.offsets.map(|offset| offset as i32),
            heads: spec.heads as i32,
            width: spec.head_width as i32,
        }
    }
}

/// Where gradients go; null: nowhere.
pub fn gradients(r: &Recorder, of: impl Fn(usize) -> bool) -> [Reference; 3] {
    std::array::from_fn(|i| r.dx(i).filter(|_| of(i)).map_or(Reference::none(), |(dx, _)| dx))
}

/// Mirrors `Attention` of `attention.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    heads: Heads,
    list: IndexReference,
    key_dropout: Mask,
    masked_from: i32,
}

impl Arguments {
    fn new(r: &Recorder, spec: &Attention) -> Self {
        let (from, rate) = spec.key_dropout.unwrap_or((0, 0.0));
        let key_dropout = Mask::new(r.node.stream | KEYS, rate);
        Self { heads: Heads::new(r, spec), list: r.index(spec.segments), key_dropout, masked_from: from as i32 }
    }
}

/// Width of heads that kernels are made for.
fn head(spec: &Attention) -> Result<usize> {
    [32, 64]
        .into_iter()
        .find(|&width| spec.head_width <= width)
        .ok_or_else(|| Error::Backend(format!("heads of {} columns are wider than 64", spec.head_width)))
}

/// Bytes of tiles of rows of a head.
fn tiles(count: usize, head: usize) -> usize {
    4 * count * TILE * (head + 4)
}

/// Blocks for tiles of a tensor's rows in segments, of each head.
fn grid(r: &Recorder, spec: &Attention, id: TensorId) -> [u32; 2] {
    let (rows, times) = (r.capacity(id), r.plan.graph.tensor(id).rows.times);
    let few = if times > 1 { FEW_OF_UNITS } else { FEW };
    [blocks(rows, 4).min(few.max(rows / 32) as u32), spec.heads as u32]
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    of: Arguments,
    y: Reference,
    lse: Reference,
    rows: RowCount,
}

pub fn forward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let (id, head) = (r.node.input(0), head(spec)?);
    let arguments = Forward { of: Arguments::new(r, spec), y: r.output(0), lse: r.output(1), rows: r.rows(id) };
    let [blocks, heads] = grid(r, spec, id);
    let kernel = format!("attention_forward_{head}_{}", r.multiply.suffix());
    r.launch(&kernel, [blocks, heads, 1], BLOCK, tiles(4, head), &arguments);
    Ok(())
}

/// Whether gradients `i` and `k` go to the same columns of a matrix.
fn overlap(node: &Node, spec: &Attention, i: usize, k: usize) -> bool {
    node.outputs[i].is_some()
        && node.outputs[i] == node.outputs[k]
        && spec.offsets[i].abs_diff(spec.offsets[k]) < spec.heads * spec.head_width
}

/// Whether gradient `i` has columns of its own in its matrix, and the matrix is added to or each of its columns is overwritten.
pub fn fills(graph: &Graph, node: &Node, spec: &Attention, i: usize) -> bool {
    let Some(id) = node.outputs[i] else { return true };
    let beside: Vec<usize> = (0..3).filter(|&k| node.outputs[k] == Some(id)).collect();
    let apart = beside.iter().all(|&k| beside.iter().all(|&l| k == l || !overlap(node, spec, k, l)));
    apart && (node.accumulate[beside[0]] || beside.len() * spec.heads * spec.head_width == graph.tensor(id).width)
}

/// Whether gradient `i`, which [`fills`] its matrix with those beside it, is added to what is there.
pub fn adds(node: &Node, i: usize) -> bool {
    (0..3).find(|&k| node.outputs[k] == node.outputs[i]).is_some_and(|first| node.accumulate[first])
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Backward {
    of: Arguments,
    y: Reference,
    lse: Reference,
    dy: Reference,
    gradients: [Reference; 3],
    rows: [RowCount; 2],
    accumulate: [i32; 3],
    query_blocks: i32,
}

pub fn backward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let (node, head) = (r.node, head(spec)?);
    let [queries, keys] = [0, 1].map(|i| node.operands[i]);
    let filled: [bool; 3] = std::array::from_fn(|i| fills(&r.plan.graph, node, spec, i));
    for i in (0..3).filter(|&i| !filled[i] && !node.accumulate[i]) {
        node.outputs[i].into_iter().for_each(|id| fill(r, id, 0.0));
    }
    // Gradients of the same columns come one after the other.
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for i in (0..3).filter(|&i| node.outputs[i].is_some()) {
        match rounds.iter_mut().find(|round| round.iter().all(|&k| !overlap(node, spec, i, k))) {
            Some(round) => round.push(i),
            None => rounds.push(vec![i]),
        }
    }
    for round in rounds {
        let blocks = |operand: TensorId, asked: bool| if asked { grid(r, spec, operand)[0] } else { 0 };
        let [of_queries, of_keys] = [blocks(queries, round.contains(&0)), blocks(keys, round.iter().any(|&i| i > 0))];
        let arguments = Backward {
            of: Arguments::new(r, spec),
            y: r.input(3),
            lse: r.input(4),
            dy: r.dy(),
            gradients: gradients(r, |i| round.contains(&i)),
            rows: [queries, keys].map(|id| r.rows(id)),
            accumulate: std::array::from_fn(|i| i32::from(!filled[i] || adds(node, i))),
            query_blocks: of_queries as i32,
        };
        let mut launch = |name: &str, blocks: u32| {
            let kernel = format!("attention_{name}_{head}_{}", r.multiply.suffix());
            r.launch(&kernel, [blocks, spec.heads as u32, 1], BLOCK, tiles(5, head), &arguments);
        };
        if head == 32 {
            launch("backward", of_queries + of_keys);
        } else {
            [("dq", of_queries), ("dkv", of_keys)]
                .into_iter()
                .filter(|&(_, blocks)| blocks > 0)
                .for_each(|(name, blocks)| launch(name, blocks));
        }
    }
    Ok(())
}
