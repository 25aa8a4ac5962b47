//! From scenarios to batches: splits, order, packing, loading ahead.

pub mod batch;
mod check;
pub mod collate;
pub mod datamodule;
pub mod loader;
pub mod memory_cache;
mod pack;
pub mod sampler;
pub mod splitter;

pub use batch::Batch;
pub use collate::{collate, collate_into};
pub use datamodule::DataModule;
pub use loader::{Loaded, Loader, Skipped};
