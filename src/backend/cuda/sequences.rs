//! Operations on the rows of each sequence; what they do is in `rows.cuh`.

use super::{
    chain::Kind,
    device::Address,
    recorder::{Recorder, Reference, RowCount},
};
use crate::{
    error::Result,
    graph::{Rows, TensorId},
};
use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Unfold {
    x: Reference,
    y: Reference,
    positions: Address,
    step: Address,
    rows: RowCount,
    length: i32,
    count: i32,
    width: i32,
    accumulate: i32,
}

/// `sequences` of `length` rows each, of a tensor.
fn sequences(r: &Recorder, tensor: TensorId, length: usize) -> Rows {
    let rows = r.plan.graph.tensor(tensor).rows;
    Rows { symbol: rows.symbol, times: rows.times / length.max(1) }
}

/// Rows of a convolution with kernel 3 and padding 1 at some positions.
pub fn unfold_forward(r: &mut Recorder, length: usize, positions: &[usize]) -> Result<()> {
    let (x, y) = (r.input(0), r.output(0));
    unfold(r, Kind::UnfoldForward, [x, y], false, length, positions);
    Ok(())
}

pub fn unfold_backward(r: &mut Recorder, length: usize, positions: &[usize]) -> Result<()> {
    let Some((dx, accumulate)) = r.dx(0) else { return Ok(()) };
    let dy = r.dy();
    unfold(r, Kind::UnfoldBackward, [dx, dy], accumulate, length, positions);
    Ok(())
}

fn unfold(r: &mut Recorder, kind: Kind, [x, y]: [Reference; 2], accumulate: bool, length: usize, positions: &[usize]) {
    let operand = r.node.operands[0];
    let width = r.width(operand);
    let list: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
    let arguments = Unfold {
        x,
        y,
        positions: r.constants(&list),
        step: r.step(),
        rows: sequences(r, operand, length).into(),
        length: length as i32,
        count: positions.len() as i32,
        width: width as i32,
        accumulate: i32::from(accumulate),
    };
    r.link(kind, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Mix {
    x: Reference,
    y: Reference,
    starts: Address,
    sources: Address,
    weights: Address,
    step: Address,
    rows: RowCount,
    from: i32,
    to: i32,
    width: i32,
    accumulate: i32,
}

/// Weighted sums over the rows of each sequence.
pub fn mix_forward(r: &mut Recorder, length: usize, weights: &[Vec<(usize, f64)>]) -> Result<()> {
    let (x, y) = (r.input(0), r.output(0));
    mix(r, [x, y], false, length, length, weights);
    Ok(())
}

pub fn mix_backward(r: &mut Recorder, length: usize, weights: &[Vec<(usize, f64)>]) -> Result<()> {
    let Some((dx, accumulate)) = r.dx(0) else { return Ok(()) };
    let mut transposed = vec![Vec::new(); length];
    for (o, sources) in weights.iter().enumerate() {
        sources.iter().for_each(|&(i, weight)| transposed[i].push((o, weight)));
    }
    let dy = r.dy();
    mix(r, [dy, dx], accumulate, length, weights.len(), &transposed);
    Ok(())
}

/// Each row of y is a sum of rows of x, whose sequences have `from` rows; those of the operand have `length`.
fn mix(r: &mut Recorder, [x, y]: [Reference; 2], accumulate: bool, length: usize, from: usize, weights: &[Vec<(usize, f64)>]) {
    let operand = r.node.operands[0];
    let (width, sequences) = (r.width(operand), sequences(r, operand, length));
    let mut starts = vec![0];
    for sources in weights {
        starts.push(starts[starts.len() - 1] + sources.len() as i32);
    }
    let sources: Vec<i32> = weights.iter().flatten().map(|&(i, _)| i as i32).collect();
    let factors: Vec<f32> = weights.iter().flatten().map(|&(_, weight)| weight as f32).collect();
    let arguments = Mix {
        x,
        y,
        starts: r.constants(&starts),
        sources: r.constants(&sources),
        weights: r.constants(&factors),
        step: r.step(),
        rows: sequences.into(),
        from: from as i32,
        to: weights.len() as i32,
        width: width as i32,
        accumulate: i32::from(accumulate),
    };
    r.link(Kind::Mix, 0, &arguments);
}
