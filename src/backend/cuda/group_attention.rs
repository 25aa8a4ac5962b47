//! Attention within groups of few consecutive rows, as a link of a chain.

use super::{
    attention::{adds, fills},
    chain::{BLOCK, Kind},
    device::Address,
    dropout::Mask,
    recorder::{Recorder, Reference, RowCount},
};
use crate::{
    error::Result,
    graph::{Attention, Graph, Node, Pass},
};
use bytemuck::{Pod, Zeroable};

/// Most rows of a group; mirrors `group_attention.cuh`.
const MOST_GROUP: usize = 16;

/// Whether a node is such an attention: its gradients must fill what they are written to.
pub fn is_one(graph: &Graph, node: &Node, spec: &Attention) -> bool {
    let whole = |size: usize| size <= MOST_GROUP && node.operands.iter().all(|&id| graph.tensor(id).rows.times.is_multiple_of(size));
    spec.group.is_some_and(whole)
        && spec.key_dropout.is_none()
        && (node.pass == Pass::Forward || (0..3).all(|i| fills(graph, node, spec, i)))
}

/// Mirrors `GroupAttention` of `group_attention.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    step: Address,
    operands: [Reference; 3],
    rows: RowCount,
    dropout: Mask,
    strides: [i32; 3],
    columns: [i32; 3],
    heads: i32,
    width: i32,
    size: i32,
    pad: i32,
    scale: f32,
}

impl Arguments {
    fn new(r: &Recorder, spec: &Attention) -> Self {
        Self {
            step: r.step(),
            operands: std::array::from_fn(|i| r.input(i)),
            rows: r.rows(r.node.operands[0]),
            dropout: Mask::new(r.node.stream, spec.dropout),
            strides: std::array::from_fn(|i| r.width(r.node.operands[i]) as i32),
            columns: spec.offsets.map(|offset| offset as i32),
            heads: spec.heads as i32,
            width: spec.head_width as i32,
            size: spec.group.unwrap_or(1) as i32,
            pad: 0,
            scale: (1.0 / (spec.head_width as f64).sqrt()) as f32,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    of: Arguments,
    y: Reference,
    lse: Reference,
}

pub fn forward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let arguments = Forward { of: Arguments::new(r, spec), y: r.output(0), lse: r.output(1) };
    r.link(Kind::GroupAttentionForward, 0, &arguments);
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
    accumulate: [i32; 3],
    pad: i32,
}

pub fn backward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let arguments = Backward {
        of: Arguments::new(r, spec),
        y: r.input(3),
        lse: r.input(4),
        dy: r.dy(),
        gradients: std::array::from_fn(|i| r.dx(i).map_or(Reference::none(), |(dx, _)| dx)),
        accumulate: std::array::from_fn(|i| i32::from(adds(r.node, i))),
        pad: 0,
    };
    let warps = BLOCK as usize / 32;
    r.link(Kind::GroupAttentionBackward, 4 * warps * 2 * MOST_GROUP * MOST_GROUP, &arguments);
    Ok(())
}
