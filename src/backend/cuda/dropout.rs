//! Dropout of elements and of paths.

use super::recorder::Recorder;
use crate::{backend::cuda::missing, error::Result};

pub fn forward(r: &mut Recorder, _rate: f64) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _rate: f64) -> Result<()> {
    missing(r)
}

pub fn residual_forward(r: &mut Recorder, _dropout: f64, _drop_path: f64, _group: usize, _group_index: Option<usize>) -> Result<()> {
    missing(r)
}

pub fn residual_backward(r: &mut Recorder, _dropout: f64, _drop_path: f64, _group: usize, _group_index: Option<usize>) -> Result<()> {
    missing(r)
}
