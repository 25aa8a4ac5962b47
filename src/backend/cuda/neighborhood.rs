//! 1-D neighborhood attention.

use super::recorder::Recorder;
use crate::{backend::cuda::missing, error::Result, graph::Vector};

pub fn forward(r: &mut Recorder, _length: usize, _heads: usize, _window: usize, _bias: Vector) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _length: usize, _heads: usize, _window: usize, _bias: Vector) -> Result<()> {
    missing(r)
}
