//! Multi-head attention over segments of rows.

use super::recorder::Recorder;
use crate::{backend::cuda::missing, error::Result, graph::Attention};

pub fn forward(r: &mut Recorder, _spec: &Attention) -> Result<()> {
    missing(r)
}

pub fn backward(r: &mut Recorder, _spec: &Attention) -> Result<()> {
    missing(r)
}
