//! The factor of the loss's gradient: it lives on the device, which decides on it from update to update.

use super::device::Address;
use crate::backend::LossScale;
use bytemuck::{Pod, Zeroable};

/// A [`LossScale`] on the device; mirrors `LossScale` of `optimizer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct Block {
    growth_factor: f64,
    backoff_factor: f64,
    scale: f32,
    growth_interval: i32,
    growth_tracker: i32,
    pad: i32,
}

/// Where the factor lies in a [`Block`], in bytes.
pub const FACTOR: Address = std::mem::offset_of!(Block, scale) as Address;

impl From<&LossScale> for Block {
    fn from(of: &LossScale) -> Self {
        let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        Self {
            growth_factor: of.growth_factor,
            backoff_factor: of.backoff_factor,
            scale: of.scale as f32,
            growth_interval: count(of.growth_interval),
            growth_tracker: count(of.growth_tracker),
            pad: 0,
        }
    }
}

impl From<Block> for LossScale {
    fn from(of: Block) -> Self {
        Self {
            scale: f64::from(of.scale),
            growth_factor: of.growth_factor,
            backoff_factor: of.backoff_factor,
            growth_interval: of.growth_interval.unsigned_abs(),
            growth_tracker: of.growth_tracker.unsigned_abs(),
        }
    }
}
