//! From scenarios to batches: splits, order, packing, loading ahead.

pub mod batch;

pub use batch::{Batch, collate};
