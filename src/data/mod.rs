//! From scenarios to batches: splits, order, packing, loading ahead.

pub mod batch;
pub mod cache;
pub mod catalogue;
mod check;
pub mod collate;
pub mod datamodule;
mod filter;
pub mod loader;
pub mod memory_cache;
mod pack;
pub mod rejections;
pub mod sampler;
pub mod splitter;
mod stop;
pub mod supply;

pub use batch::Batch;
pub use catalogue::Catalogue;
pub use collate::{collate, collate_into};
pub use datamodule::DataModule;
pub use loader::{Loaded, Loader, Skipped};
pub use rejections::Rejections;
pub use stop::StopHandle;
