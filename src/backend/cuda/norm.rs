//! Layer and batch normalisation.

use super::recorder::Recorder;
use crate::{
    backend::cuda::missing,
    error::Result,
    graph::{Activation, Vector},
};

pub fn layer_forward(r: &mut Recorder, _gamma: Vector, _beta: Vector, _activation: Activation) -> Result<()> {
    missing(r)
}

pub fn layer_backward(r: &mut Recorder, _gamma: Vector, _beta: Vector, _activation: Activation) -> Result<()> {
    missing(r)
}

pub fn batch_forward(r: &mut Recorder, _scale: [Vector; 2], _running: [Vector; 2], _train: bool, _activation: Activation) -> Result<()> {
    missing(r)
}

pub fn batch_backward(r: &mut Recorder, _scale: [Vector; 2], _train: bool, _activation: Activation) -> Result<()> {
    missing(r)
}
