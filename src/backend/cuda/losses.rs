//! Losses, and arithmetic of scalars.

use super::recorder::Recorder;
use crate::{backend::cuda::missing, error::Result};

pub fn sum_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn sum_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn largest_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn largest_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn scale_forward(r: &mut Recorder, _factor: f64) -> Result<()> {
    missing(r)
}

pub fn scale_backward(r: &mut Recorder, _factor: f64) -> Result<()> {
    missing(r)
}

pub fn smooth_l1_forward(r: &mut Recorder, _steps: usize, _channels: usize, _target_channels: usize) -> Result<()> {
    missing(r)
}

pub fn smooth_l1_backward(r: &mut Recorder, _steps: usize, _channels: usize, _target_channels: usize) -> Result<()> {
    missing(r)
}

pub fn unit_norm_forward(r: &mut Recorder, _steps: usize, _channels: usize) -> Result<()> {
    missing(r)
}

pub fn unit_norm_backward(r: &mut Recorder, _steps: usize, _channels: usize) -> Result<()> {
    missing(r)
}

pub fn cross_entropy_forward(r: &mut Recorder, _segments: usize, _target: usize) -> Result<()> {
    missing(r)
}

pub fn cross_entropy_backward(r: &mut Recorder, _segments: usize, _target: usize) -> Result<()> {
    missing(r)
}

pub fn collision_forward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn collision_backward(r: &mut Recorder) -> Result<()> {
    missing(r)
}

pub fn triplet_forward(r: &mut Recorder, _triplets: usize, _temperature: f64) -> Result<()> {
    missing(r)
}

pub fn triplet_backward(r: &mut Recorder, _triplets: usize, _temperature: f64) -> Result<()> {
    missing(r)
}
