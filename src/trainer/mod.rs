//! Training: loops, checkpoints, what the host is told. Read [`fit`] first.
//!
//! - [`fit`]: epochs of training and validation; `evaluate`: one pass without training.
//! - [`session`]: the one place that runs the network; [`module`]: the network with its optimiser.
//! - [`state`], [`checkpoint`], `keeper`, `file_name`, `files`: how far a run is, and how that gets to disk and back.
//! - [`host`], `run`: events, log records, reports, requests to stop. `progress`, [`summary`]: for people.
//! - [`predict`]: one scenario to trajectories.

pub mod checkpoint;
mod evaluate;
mod file_name;
mod files;
pub mod fit;
pub mod host;
mod keeper;
pub mod module;
pub mod predict;
mod progress;
mod run;
pub mod session;
pub mod state;
pub mod summary;
mod tally;

pub use fit::Trainer;
pub use host::{EvaluationReport, Event, EventSink, FitReport, Flow, Host, LogLevel, LogSink, StopHandle};
pub use module::TrainingModule;
pub use session::Session;
