//! Fourier features of one column.

use super::{
    chain::Kind,
    device::Address,
    partials,
    recorder::{Recorder, Reference, RowCount},
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
    r.link(Kind::FourierForward, 0, &arguments);
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
    let partials = partials::of_gradients(r, r.chain_blocks(), &[frequencies]);
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
    r.link(Kind::FourierBackward, 0, &arguments);
    Ok(())
}
