//! Fourier features of one column.

use super::recorder::Recorder;
use crate::{backend::cuda::missing, error::Result, graph::Vector};

pub fn forward(r: &mut Recorder, _frequencies: Vector, _channel: usize) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _frequencies: Vector, _channel: usize) -> Result<()> {
    missing(r)
}
