//! Multi-head attention over segments of rows.

use super::{
    device::Address,
    dropout::Mask,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
    rows::fill,
};
use crate::{
    error::{Error, Result},
    graph::Attention,
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block; rows of a tile.
const BLOCK: u32 = 128;
const TILE: usize = 64;
/// Set in the stream of the numbers that mask whole keys.
const KEYS: u32 = 0x8000_0000;
/// Blocks of a head for few rows, whose segments may be small, and at most for many.
const FEW: usize = 512;

/// Mirrors `Attention` of `attention.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    step: Address,
    operands: [Reference; 3],
    list: IndexReference,
    dropout: Mask,
    key_dropout: Mask,
    strides: [i32; 3],
    columns: [i32; 3],
    heads: i32,
    width: i32,
    masked_from: i32,
    scale: f32,
}

impl Arguments {
    fn new(r: &Recorder, spec: &Attention) -> Self {
        let (from, rate) = spec.key_dropout.unwrap_or((0, 0.0));
        let stream = r.node.stream;
        Self {
            step: r.step(),
            operands: std::array::from_fn(|i| r.input(i)),
            list: r.index(spec.segments),
            dropout: Mask::new(stream, spec.dropout),
            key_dropout: Mask::new(stream | KEYS, rate),
            strides: std::array::from_fn(|i| r.width(r.node.operands[i]) as i32),
            columns: spec.offsets.map(|offset| offset as i32),
            heads: spec.heads as i32,
            width: spec.head_width as i32,
            masked_from: from as i32,
            scale: (1.0 / (spec.head_width as f64).sqrt()) as f32,
        }
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

/// Blocks for tiles of rows in segments, of each head.
fn grid(spec: &Attention, rows: usize) -> [u32; 3] {
    [blocks(rows, 4).min(FEW.max(rows / 32) as u32), spec.heads as u32, 1]
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Clear {
    step: Address,
    list: IndexReference,
    y: Reference,
    lse: Reference,
    rows: RowCount,
    width: i32,
    heads: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    of: Arguments,
    y: Reference,
    lse: Reference,
}

pub fn forward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let (id, head) = (r.node.input(0), head(spec)?);
    let (of, y, lse, rows) = (Arguments::new(r, spec), r.output(0), r.output(1), r.rows(id));
    let (capacity, width) = (r.capacity(id), spec.heads * spec.head_width);
    let clear = Clear { step: of.step, list: of.list, y, lse, rows, width: width as i32, heads: of.heads };
    r.launch("attention_clear", [blocks(capacity * width, 1024), 1, 1], 256, 0, &clear);
    let kernel = format!("attention_forward_{head}_{}", r.multiply.suffix());
    r.launch(&kernel, grid(spec, capacity), BLOCK, tiles(4, head), &Forward { of, y, lse });
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Backward {
    of: Arguments,
    y: Reference,
    lse: Reference,
    dy: Reference,
    gradients: [Reference; 3],
    d: Address,
}

pub fn backward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let head = head(spec)?;
    let [queries, keys] = [0, 1].map(|i| r.capacity(r.node.operands[i]));
    for i in 0..3 {
        if let (Some(id), false) = (r.node.outputs[i], r.node.accumulate[i]) {
            fill(r, id, 0.0);
        }
    }
    let d = r.scratch(queries * spec.heads);
    let gradients: [Reference; 3] = std::array::from_fn(|i| r.dx(i).map_or(Reference::none(), |(dx, _)| dx));
    let arguments = Backward { of: Arguments::new(r, spec), y: r.input(3), lse: r.input(4), dy: r.dy(), gradients, d };
    let kernel = |name: &str| format!("attention_{name}_{head}_{}", r.multiply.suffix());
    let (dq, dkv) = (kernel("dq"), kernel("dkv"));
    r.launch(&dq, grid(spec, queries), BLOCK, tiles(5, head), &arguments);
    let [q, k, v] = gradients;
    let none = Reference::none();
    let one_by_one = k == v && spec.offsets[1].abs_diff(spec.offsets[2]) < spec.heads * spec.head_width;
    let rounds = if one_by_one { vec![[q, k, none], [q, none, v]] } else { vec![gradients] };
    for gradients in rounds.into_iter().filter(|[_, k, v]| *k != none || *v != none) {
        r.launch(&dkv, grid(spec, keys), BLOCK, tiles(5, head), &Backward { gradients, ..arguments });
    }
    Ok(())
}
