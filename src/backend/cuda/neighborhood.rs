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
/// Shared memory for sequences: about as much as products take.
const ROOM: usize = 38 * 1024;

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
    together: i32,
    scale: f32,
    pad: i32,
}

impl Arguments {
    /// With `bytes` of shared memory for each sequence.
    fn new(r: &Recorder, length: usize, heads: usize, window: usize, bias: Vector, bytes: usize) -> Result<Self> {
        let x = r.node.input(0);
        let size = r.width(x) / 3 / heads;
        if size > LANES * COLUMNS {
            return Err(Error::Backend(format!("heads of {size} columns are wider than {}", LANES * COLUMNS)));
        }
        if r.chain.is_none() {
            return Err(Error::Backend(format!("a sequence of {length} rows of {} columns is too large for shared memory", r.width(x))));
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
            together: together(bytes) as i32,
            scale: (1.0 / (size as f64).sqrt()) as f32,
            pad: 0,
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
    let bytes = 4 * length * stride(r.width(r.node.input(0)));
    let arguments = Forward { of: Arguments::new(r, length, heads, window, bias, bytes)?, y: r.output(0) };
    r.link(Kind::NeighborhoodForward, together(bytes) * bytes, &arguments);
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

/// Floats of a row in shared memory.
fn stride(width: usize) -> usize {
    width.next_multiple_of(4) + 4
}

/// Sequences that a block has at a time.
fn together(bytes: usize) -> usize {
    (ROOM / bytes).max(1)
}

/// Bytes of shared memory of the backward pass for each sequence, of `width` columns: its rows, their gradients, probabilities and slopes, and sums for
/// the `biases`.
pub fn shared(width: usize, length: usize, heads: usize, window: usize, biases: usize) -> usize {
    4 * (length * (stride(width) + stride(width / 3) + 2 * heads * window) + biases)
}

pub fn backward(r: &mut Recorder, length: usize, heads: usize, window: usize, bias: Vector) -> Result<()> {
    let bytes = shared(r.width(r.node.operands[0]), length, heads, window, bias.len);
    let of = Arguments::new(r, length, heads, window, bias, bytes)?;
    let (dx, accumulate) = r.dx(0).unwrap_or((Reference::none(), false));
    let partials = of_gradients(r, r.chain_blocks(), &[bias]);
    let arguments = Backward { of, dy: r.dy(), dx, partials, accumulate: i32::from(accumulate), pad: 0 };
    r.link(Kind::NeighborhoodBackward, together(bytes) * bytes, &arguments);
    Ok(())
}
