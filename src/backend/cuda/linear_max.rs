//! Largest value of each column in each segment of rows of a linear layer's result.

use super::{
    device::Address,
    linear::{sums, weight},
    norm::{self, Norm},
    product::{self, Gradient, Maxima, OF_MAXIMA, Slope, Tile, stages, whole},
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
};
use crate::{
    error::Result,
    graph::{Matrix, Op, Pass, Vector},
};
use bytemuck::{Pod, Zeroable};

const BLOCK: usize = 256;
/// Most segments that a block has at a time; mirrors `linear_max.cu`.
const MOST_SEGMENTS: usize = 32;

/// A list of segments whose rows' segments are looked up; mirrors `SegmentOf` of `linear_max.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct SegmentOf {
    list: IndexReference,
    segment_of: Address,
    ordered: Address,
    rows: RowCount,
    segments: RowCount,
}

impl SegmentOf {
    fn is_of(&self, list: IndexReference, rows: RowCount, segments: RowCount) -> bool {
        (self.list, self.rows, self.segments) == (list, rows, segments)
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LookUp {
    step: Address,
    lists: Address,
}

/// Looks up the segment of each row of what maxima are of, once for each list that the gradients of maxima need.
pub fn look_up(r: &mut Recorder) {
    let nodes = r.plan.graph.nodes.iter().filter(|node| node.pass == Pass::Backward);
    let (mut lists, mut most): (Vec<SegmentOf>, _) = (Vec::new(), 0);
    for node in nodes {
        let (Op::LinearMax { segments, .. } | Op::NormLinearMax { segments, .. }) = node.op else { continue };
        let [x, y] = [node.operands[0], node.input(node.inputs.len() - 1)];
        let (list, rows, segments, capacity) = (r.index(segments), r.rows(x), r.rows(y), r.capacity(x));
        if lists.iter().all(|of| !of.is_of(list, rows, segments)) {
            let (segment_of, ordered) = (r.lasting_scratch(capacity), r.lasting_scratch(1));
            lists.push(SegmentOf { list, segment_of, ordered, rows, segments });
            most = most.max(capacity);
        }
    }
    if !lists.is_empty() {
        let arguments = LookUp { step: r.step(), lists: r.constants(&lists) };
        r.launch("segment_of", [blocks(most, BLOCK), lists.len() as u32, 1], BLOCK as u32, 0, &arguments);
    }
    r.segments = lists;
}

/// The segment of each row of the operand: what gradients of maxima need.
fn maxima(r: &Recorder, segments: usize) -> Maxima {
    let (list, rows, segments) = (r.index(segments), r.rows(r.node.operands[0]), r.rows(r.dy_id()));
    let of = r.segments.iter().find(|of| of.is_of(list, rows, segments));
    let (segment_of, ordered) = of.map_or((0, 0), |of| (of.segment_of, of.ordered));
    Maxima { list, kept: r.index_input(2), segment_of, ordered, segments }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    step: Address,
    weight: Address,
    bias: Address,
    x: Reference,
    norm: Norm,
    y: Reference,
    list: IndexReference,
    kept: Address,
    segments: RowCount,
    k: i32,
    n: i32,
    weight_stride: i32,
    group: i32,
}

pub fn forward(r: &mut Recorder, matrix: Matrix, bias: Vector, segments: usize) -> Result<()> {
    linear_maxima(r, Norm::none(), matrix, bias, segments);
    Ok(())
}

pub fn norm_forward(r: &mut Recorder) -> Result<()> {
    let Op::NormLinearMax { gamma, beta, running, train, weight, bias, segments } = r.node.op else { unreachable!("norm_linear_max") };
    let kept = r.output(2);
    norm::keep_statistics(r, kept, [gamma, beta], running, train);
    linear_maxima(r, Norm::new(r, kept, [gamma, beta]), weight, bias, segments);
    Ok(())
}

/// y and the rows of the maxima, of operand 0 or what the norm makes of it.
fn linear_maxima(r: &mut Recorder, norm: Norm, matrix: Matrix, bias: Vector, segments: usize) {
    let (x, y) = (r.node.input(0), r.node.output(0));
    let (rows, count) = (r.capacity(x), r.capacity(y));
    let (tile, w) = (Tile::Large, weight(r, matrix));
    let group = (tile.side() * count / rows.max(1)).clamp(1, MOST_SEGMENTS);
    let arguments = Forward {
        step: r.step(),
        weight: w.at,
        bias: r.parameter(bias),
        x: r.input(0),
        norm,
        y: r.output(0),
        list: r.index(segments),
        kept: r.index_output(1).address(),
        segments: r.rows(y),
        k: w.columns as i32,
        n: w.rows as i32,
        weight_stride: w.stride as i32,
        group: group as i32,
    };
    let grid = [tile.count(w.rows) as u32, blocks(count, group), 1];
    let shared = stages(tile.forward(r.multiply)).max(whole(tile));
    let kernel = format!("linear_max_forward_{}", r.multiply.suffix());
    r.launch(&kernel, grid, tile.threads(r.multiply), shared, &arguments);
}

/// The gradient of a linear layer's result of which maxima were taken.
fn slope(r: &Recorder, matrix: Matrix, segments: usize) -> Slope {
    Slope { maxima: maxima(r, segments), kind: OF_MAXIMA, ..Slope::plain(r.dy(), matrix.rows) }
}

pub fn backward(r: &mut Recorder, matrix: Matrix, bias: Vector, segments: usize) -> Result<()> {
    let (slope, id) = (slope(r, matrix, segments), r.node.operands[0]);
    let rows = (r.rows(id), r.capacity(id));
    if let Some(dx) = r.dx(0) {
        product::dx(r, rows, slope, weight(r, matrix), dx);
    }
    let gradient = Gradient::new(r, rows, slope, r.input(0), 0, sums(r, matrix, Some(bias)));
    r.gradients.push(gradient);
    Ok(())
}

/// The gradient of what is normalised is computed twice, for the sums over its columns and then for dx, which is less than to keep it.
pub fn norm_backward(r: &mut Recorder) -> Result<()> {
    let Op::NormLinearMax { gamma, beta, train, weight: matrix, bias, segments, .. } = r.node.op else { unreachable!("norm_linear_max") };
    let (slope, norm, id) = (slope(r, matrix, segments), Norm::new(r, r.input(3), [gamma, beta]), r.node.operands[0]);
    let rows = (r.rows(id), r.capacity(id));
    product::norm_dx(r, rows, slope, weight(r, matrix), norm, [gamma, beta], train);
    let gradient = Gradient::new(r, rows, slope, r.input(0), 0, sums(r, matrix, Some(bias)));
    r.gradients.push(gradient.normalised(norm));
    Ok(())
}
