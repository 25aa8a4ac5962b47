//! Operations that move or add rows.

use super::recorder::Recorder;
use crate::{
    backend::cuda::missing,
    error::Result,
    graph::{RowMap, TensorId},
};

/// Sets all of a tensor to a value.
pub fn fill(_r: &mut Recorder, _tensor: TensorId, _value: f32) {}

pub fn gather_forward(r: &mut Recorder, _index: usize) -> Result<()> {
    missing(r)
}

pub fn gather_backward(r: &mut Recorder, _index: usize) -> Result<()> {
    missing(r)
}

pub fn concat_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn concat_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn add_forward(r: &mut Recorder, _map: RowMap) -> Result<()> {
    missing(r)
}

pub fn add_backward(r: &mut Recorder, _map: RowMap) -> Result<()> {
    missing(r)
}

pub fn outer_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn outer_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn unfold_forward(r: &mut Recorder, _length: usize, _positions: &[usize]) -> Result<()> {
    missing(r)
}

pub fn unfold_backward(r: &mut Recorder, _length: usize, _positions: &[usize]) -> Result<()> {
    missing(r)
}

pub fn mix_forward(r: &mut Recorder, _length: usize, _weights: &[Vec<(usize, f64)>]) -> Result<()> {
    missing(r)
}

pub fn mix_backward(r: &mut Recorder, _length: usize, _weights: &[Vec<(usize, f64)>]) -> Result<()> {
    missing(r)
}

pub fn interleave_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn interleave_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn join_steps_forward(r: &mut Recorder, _steps: usize) -> Result<()> {
    missing(r)
}

pub fn join_steps_backward(r: &mut Recorder, _steps: usize) -> Result<()> {
    missing(r)
}
