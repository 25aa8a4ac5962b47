//! 1-D neighborhood attention in short sequences.

use super::{
    chain::Kind,
    device::Address,
    partials::of_gradients,
    recorder::{Recorder, Reference, RowCount},
};
use crate::{
    error::{Error, Result},
    graph::Vector,
};
use bytemuck::{Pod, Zeroable};

/// Lanes of a warp, and most columns that each has of a head.
const LANES: usize = 32;
const COLUMNS: usize = 4;

/// Mirrors `Neighborhood` of `neighborhood.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    step: Address,
    bias: Address,
    x: Reference,
    rows: RowCount,
    length: i32,
    heads: i32,
    window: i32,
    size: i32,
    lanes: i32,
    scale: f32,
}

impl Arguments {
    fn new(r: &Recorder, length: usize, heads: usize, window: usize, bias: Vector) -> Result<Self> {
        let x = r.node.input(0);
        let size = r.width(x) / 3 / heads;
        if size > LANES * COLUMNS {
            return Err(Error::Backend(format!("heads of {size} columns are wider than {}", LANES * COLUMNS)));
        }
        Ok(Self {
            step: r.step(),
            bias: r.parameter(bias),
            x: r.input(0),
            rows: r.rows(x),
            length: length as i32,
            heads: heads as i32,
            window: window as i32,
            size: size as i32,
            // As few as can hold a head: a warp has more of them at a time.
            lanes: size.div_ceil(COLUMNS).next_power_of_two() as i32,
            scale: (1.0 / (size as f64).sqrt()) as f32,
        })
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    of: Arguments,
    y: Reference,
}

pub fn forward(r: &mut Recorder, length: usize, heads: usize, window: usize, bias: Vector) -> Result<()> {
    let arguments = Forward { of: Arguments::new(r, length, heads, window, bias)?, y: r.output(0) };
    r.link(Kind::NeighborhoodForward, 0, &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Backward {
    of: Arguments,
    dy: Reference,
    dx: Reference,
    partials: Address,
    accumulate: i32,
    pad: i32,
}

/// Bytes of shared memory of the backward pass: probabilities and slopes of a sequence, and sums for the `biases`.
pub fn shared(length: usize, heads: usize, window: usize, biases: usize) -> usize {
    4 * (2 * length * heads * window + biases)
}

pub fn backward(r: &mut Recorder, length: usize, heads: usize, window: usize, bias: Vector) -> Result<()> {
    let of = Arguments::new(r, length, heads, window, bias)?;
    let (dx, accumulate) = r.dx(0).unwrap_or((Reference::none(), false));
    let partials = of_gradients(r, r.chain_blocks(), &[bias]);
    let arguments = Backward { of, dy: r.dy(), dx, partials, accumulate: i32::from(accumulate), pad: 0 };
    r.link(Kind::NeighborhoodBackward, shared(length, heads, window, bias.len), &arguments);
    Ok(())
}
