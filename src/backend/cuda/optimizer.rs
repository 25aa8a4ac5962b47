//! Scaling and clipping of the whole gradient and the optimiser's step, without the host in between.

use super::device::{Address, Launch};
use crate::{
    backend::{Rule, Update},
    error::{Error, Result},
    graph::Vector,
};
use bytemuck::{Pod, Zeroable};

/// Where an update reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    pub parameters: Address,
    pub gradients: Address,
    pub moments: [Address; 2],
    pub statistics: Address,
    pub pending: Address,
    /// The [`UpdateBlock`].
    pub block: Address,
    /// An [`Outcome`].
    pub outcome: Address,
    /// Room for [`partial_bytes`] of any content.
    pub partials: Address,
    /// Elements of the parameters, and of the statistics.
    pub len: usize,
    pub statistics_len: usize,
}

/// Most runs of parameters that decay.
pub const MOST_DECAYED: usize = 512;

/// What differs from update to update; mirrors `UpdateBlock` of `optimizer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct UpdateBlock {
    pad: [i32; 4],
}

/// What an update did; mirrors `Outcome` of `optimizer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct Outcome {
    /// Norm of the whole scaled gradient before clipping.
    pub norm: f64,
    /// 0 if the norm was not finite and nothing was changed.
    pub applied: i32,
    pub pad: i32,
}

impl UpdateBlock {
    /// Of an update; `decayed` are the parts that decay, in the order of their places.
    ///
    /// # Errors
    /// More parts than [`MOST_DECAYED`].
    pub fn new(_update: &Update, _decayed: &[Vector]) -> Result<Self> {
        Err(Error::Backend("the optimizer has no CUDA kernel yet".into()))
    }
}

/// Bytes for the partial sums of the norm of `len` gradients.
pub fn partial_bytes(len: usize) -> usize {
    8 * len.div_ceil(1024)
}

/// The launches of an update by a rule: norm of the gradient, scale and clip, the rule, gradients to zero; statistics become the
/// pending ones. Where the norm is not finite: gradients to zero, pending statistics become those of before.
pub fn launches(_buffers: &Buffers, _rule: &Rule) -> Vec<Launch> {
    Vec::new()
}
