//! Column maxima of segments of rows.

use super::recorder::Recorder;
use crate::{
    backend::cuda::missing,
    error::Result,
    graph::{Matrix, Vector},
};

pub fn forward(r: &mut Recorder, _segments: usize) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _segments: usize) -> Result<()> {
    missing(r)
}

pub fn linear_forward(r: &mut Recorder, _weight: Matrix, _bias: Vector, _segments: usize) -> Result<()> {
    missing(r)
}

pub fn linear_backward(r: &mut Recorder, _weight: Matrix, _bias: Vector, _segments: usize) -> Result<()> {
    missing(r)
}
