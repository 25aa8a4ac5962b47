//! Fourier features of one column.

use super::{
    device::Address,
    partials::{self, runs},
    recorder::{Recorder, Reference, RowCount, blocks},
};
use crate::{error::Result, graph::Vector};
use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FourierForward {
    step: Address,
    frequencies: Address,
    x: Reference,
    y: Reference,
    rows: RowCount,
    width: i32,
    channel: i32,
    bands: i32,
    pad: i32,
}

pub fn forward(r: &mut Recorder, frequencies: Vector, channel: usize) -> Result<()> {
    let id = r.node.input(0);
    let arguments = FourierForward {
        step: r.step(),
        frequencies: r.parameter(frequencies),
        x: r.input(0),
        y: r.output(0),
        rows: r.rows(id),
        width: r.width(id) as i32,
        channel: channel as i32,
        bands: frequencies.len as i32,
        pad: 0,
    };
    r.launch("fourier_forward", [blocks(r.capacity(id), 8), 1, 1], 256, 0, &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FourierBackward {
    step: Address,
    x: Reference,
    y: Reference,
    dy: Reference,
    partials: Address,
    rows: RowCount,
    width: i32,
    channel: i32,
    bands: i32,
    pad: i32,
}

pub fn backward(r: &mut Recorder, frequencies: Vector, channel: usize) -> Result<()> {
    let id = r.node.input(0);
    let count = runs(r.capacity(id));
    let partials = partials::of_gradients(r, count, &[frequencies]);
    let arguments = FourierBackward {
        step: r.step(),
        x: r.input(0),
        y: r.input(1),
        dy: r.dy(),
        partials,
        rows: r.rows(id),
        width: r.width(id) as i32,
        channel: channel as i32,
        bands: frequencies.len as i32,
        pad: 0,
    };
    r.launch("fourier_backward", [count as u32, blocks(frequencies.len, 32), 1], 256, 0, &arguments);
    Ok(())
}
