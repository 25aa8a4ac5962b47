//! Attention within groups of few consecutive rows, as a link of a chain.

use super::{
    attention::{Heads, adds, fills, gradients},
    chain::{BLOCK, Kind},
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
    heads: Heads,
    rows: RowCount,
    size: i32,
    pad: i32,
}

impl Arguments {
    fn new(r: &Recorder, spec: &Attention) -> Self {
        let size = spec.group.unwrap_or(1) as i32;
        Self { heads: Heads::new(r, spec), rows: r.rows(r.node.operands[0]), size, pad: 0 }
    }
}

/// Bytes of so many matrices of a group's rows for each warp of a block.
fn matrices(count: usize) -> usize {
    4 * (BLOCK as usize / 32) * count * MOST_GROUP * MOST_GROUP
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
    r.link(Kind::GroupAttentionForward, matrices(1), &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Backward {
    of: Arguments,
    lse: Reference,
    dy: Reference,
    gradients: [Reference; 3],
    accumulate: [i32; 3],
    pad: i32,
}

pub fn backward(r: &mut Recorder, spec: &Attention) -> Result<()> {
    let arguments = Backward {
        of: Arguments::new(r, spec),
        lse: r.input(4),
        dy: r.dy(),
        gradients: gradients(r, |_| true),
        accumulate: std::array::from_fn(|i| i32::from(adds(r.node, i))),
        pad: 0,
    };
    r.link(Kind::GroupAttentionBackward, matrices(3), &arguments);
    Ok(())
}
