//! Training.

pub mod session;

pub use session::Session;
