//! The CUDA backend: every operation as kernels of our own, recorded once per plan and replayed for every batch.
//!
//! One file per family of operations, under the names of the CPU's and of the kernels in `kernels/`.
//! - [`device`]: what is needed of a device.
//! - [`recorder`]: plans become lists of launches.

mod attention;
pub mod device;
mod dispatch;
mod dropout;
mod fourier;
mod imitation;
mod linear;
mod losses;
mod neighborhood;
mod norm;
mod optimizer;
mod recorder;
mod rows;
mod segment_max;

pub use recorder::Multiply;

use crate::error::{Error, Result};

/// In place of an operation's launches, as long as there are none.
fn missing(r: &recorder::Recorder) -> Result<()> {
    Err(Error::Backend(format!("'{}' has no CUDA kernel yet", r.node.op.name())))
}
