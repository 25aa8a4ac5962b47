//! Imitation of poses.

use super::{
    losses::{self, Divisor},
    recorder::{Recorder, Reference, RowCount, blocks},
};
use crate::{error::Result, graph::Op};
use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Imitation {
    x: Reference,
    target: Reference,
    valid: Reference,
    weight: Reference,
    factors: [f64; 2],
    rows: RowCount,
    steps: i32,
    square: [i32; 2],
    decay: i32,
}

/// The sum itself.
const SUM: Divisor = Divisor { least: 1.0, extra: 0.0 };

impl Imitation {
    /// With the number of steps at capacity.
    fn new(r: &Recorder) -> (Self, usize) {
        let Op::Imitation { steps, square, factors, decay } = r.node.op else { unreachable!("imitation") };
        let [x, target, valid, weight] = [0, 1, 2, 3].map(|i| r.input(i));
        let rows = r.rows(r.node.input(0));
        let (square, decay) = (square.map(i32::from), i32::from(decay));
        (Self { x, target, valid, weight, factors, rows, steps: steps as i32, square, decay }, losses::terms(r, steps))
    }
}

pub fn forward(r: &mut Recorder) -> Result<()> {
    let (of, terms) = Imitation::new(r);
    losses::forward(r, "imitation_forward", terms, SUM, of);
    Ok(())
}

pub fn backward(r: &mut Recorder) -> Result<()> {
    let (of, terms) = Imitation::new(r);
    losses::backward(r, "imitation_backward", blocks(terms, 256), SUM, of);
    Ok(())
}
