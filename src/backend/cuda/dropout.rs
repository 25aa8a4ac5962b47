//! Dropout of elements, and the residual sum with dropout and drop path.

use super::{
    chain::Kind,
    device::Address,
    recorder::{IndexReference, Recorder, Reference, RowCount},
};
use crate::{
    error::Result,
    graph::{TensorId, random::threshold},
};
use bytemuck::{Pod, Zeroable};

/// What is dropped; mirrors `Mask` of `dropout.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct Mask {
    stream: u32,
    below: u32,
    scale: f32,
}

impl Mask {
    /// Drops with a probability, by the random numbers of a node's stream.
    pub fn new(stream: u32, rate: f64) -> Self {
        Self { stream, below: threshold(rate), scale: (1.0 / (1.0 - rate)) as f32 }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dropout {
    step: Address,
    x: Reference,
    y: Reference,
    rows: RowCount,
    width: i32,
    accumulate: i32,
    mask: Mask,
    pad: i32,
}

/// y = x f, or y += x f.
fn apply(r: &mut Recorder, rate: f64, id: TensorId, [x, y]: [Reference; 2], accumulate: bool) {
    let arguments = Dropout {
        step: r.step(),
        x,
        y,
        rows: r.rows(id),
        width: r.width(id) as i32,
        accumulate: i32::from(accumulate),
        mask: Mask::new(r.node.stream, rate),
        pad: 0,
    };
    r.link(Kind::Dropout, 0, &arguments);
}

pub fn forward(r: &mut Recorder, rate: f64) -> Result<()> {
    apply(r, rate, r.node.input(0), [r.input(0), r.output(0)], false);
    Ok(())
}

pub fn backward(r: &mut Recorder, rate: f64) -> Result<()> {
    if let Some((dx, accumulate)) = r.dx(0) {
        apply(r, rate, r.dy_id(), [r.dy(), dx], accumulate);
    }
    Ok(())
}

/// Factors of the second operand of a residual sum; mirrors `Dropped` of `residual.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Branch {
    groups: IndexReference,
    elements: Mask,
    paths: Mask,
    group: i32,
    pad: i32,
}

impl Branch {
    fn new(r: &Recorder, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) -> Self {
        let [elements, paths] = [dropout, drop_path].map(|rate| Mask::new(r.node.stream, rate));
        let groups = group_index.map_or(IndexReference::at(0), |slot| r.index(slot));
        Self { groups, elements, paths, group: group.max(1) as i32, pad: 0 }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ResidualForward {
    step: Address,
    x: Reference,
    z: Reference,
    y: Reference,
    branch: Branch,
    rows: RowCount,
    width: i32,
    pad: i32,
}

pub fn residual_forward(r: &mut Recorder, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) -> Result<()> {
    let id = r.node.input(0);
    let arguments = ResidualForward {
        step: r.step(),
        x: r.input(0),
        z: r.input(1),
        y: r.output(0),
        branch: Branch::new(r, dropout, drop_path, group, group_index),
        rows: r.rows(id),
        width: r.width(id) as i32,
        pad: 0,
    };
    r.link(Kind::ResidualForward, 0, &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ResidualBackward {
    step: Address,
    dy: Reference,
    dx: Reference,
    dz: Reference,
    branch: Branch,
    rows: RowCount,
    width: i32,
    accumulate_x: i32,
    accumulate_z: i32,
    pad: i32,
}

pub fn residual_backward(r: &mut Recorder, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) -> Result<()> {
    let gradients = [0, 1].map(|i| r.dx(i));
    if gradients.iter().all(Option::is_none) {
        return Ok(());
    }
    let id = r.dy_id();
    let [(dx, accumulate_x), (dz, accumulate_z)] = gradients.map(|gradient| gradient.unwrap_or((Reference::none(), false)));
    let arguments = ResidualBackward {
        step: r.step(),
        dy: r.dy(),
        dx,
        dz,
        branch: Branch::new(r, dropout, drop_path, group, group_index),
        rows: r.rows(id),
        width: r.width(id) as i32,
        accumulate_x: i32::from(accumulate_x),
        accumulate_z: i32::from(accumulate_z),
        pad: 0,
    };
    r.link(Kind::ResidualBackward, 0, &arguments);
    Ok(())
}
