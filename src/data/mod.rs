//! From scenarios to batches: splits, order, packing, loading ahead.

pub mod batch;
mod check;
pub mod collate;
mod pack;

pub use batch::Batch;
pub use collate::{collate, collate_into};
