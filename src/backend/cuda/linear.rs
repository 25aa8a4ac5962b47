//! Linear layers.

use super::recorder::Recorder;
use crate::{
    backend::cuda::missing,
    error::Result,
    graph::{Activation, Matrix, Vector},
};

/// The parameters of a [`crate::graph::Op::LinearPair`].
#[derive(Clone, Copy)]
pub struct Pair {
    pub inner: Matrix,
    pub inner_bias: Vector,
    pub outer: Matrix,
    pub outer_bias: Vector,
}

pub fn forward(r: &mut Recorder, _weight: Matrix, _bias: Option<Vector>, _activation: Activation) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _weight: Matrix, _bias: Option<Vector>, _activation: Activation) -> Result<()> {
    missing(r)
}

pub fn pair_forward(r: &mut Recorder, _pair: Pair, _index: usize) -> Result<()> {
    missing(r)
}

pub fn pair_backward(r: &mut Recorder, _pair: Pair, _index: usize) -> Result<()> {
    missing(r)
}
