//! What a run tells its host, and how the host ends it.

pub use crate::data::StopHandle;

use super::session::Losses;
use crate::metrics::MetricTable;
use std::{collections::BTreeMap, sync::Arc};

/// Severity of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The run cannot go on, or a result is lost.
    Error = 1,
    /// Something was skipped or replaced.
    Warning = 2,
    /// Progress.
    Info = 3,
    /// Details.
    Debug = 4,
}

/// What happened; handed to the host's event callback.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "events are passed by reference, and steps must not allocate")]
pub enum Event {
    /// A training step was applied.
    Step {
        /// 0-based epoch.
        epoch: usize,
        /// Optimiser steps so far.
        step: usize,
        /// Steps of the whole run, as far as known.
        total_steps: usize,
        /// Total loss of the step's batch.
        loss: f64,
        /// Learning rate used.
        learning_rate: f64,
        /// Every loss of the step's batch by name; the last is the total.
        losses: Losses,
    },
    /// A training step was not applied since its loss or gradient was not finite.
    StepSkipped {
        /// 0-based epoch.
        epoch: usize,
        /// Optimiser steps so far.
        step: usize,
        /// Tokens of the batch.
        tokens: Vec<String>,
    },
    /// A scenario was skipped.
    ScenarioSkipped {
        /// Its token.
        token: String,
        /// Why.
        reason: String,
    },
    /// A validation within training ended.
    Validation {
        /// 0-based epoch.
        epoch: usize,
        /// Optimiser steps so far.
        step: usize,
        /// Its losses and metrics by name, as logged.
        metrics: MetricTable,
    },
    /// An epoch ended, its validation included.
    Epoch {
        /// 0-based epoch.
        epoch: usize,
        /// Optimiser steps so far.
        step: usize,
        /// Losses and metrics by name, as logged.
        metrics: MetricTable,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Its path.
        path: String,
    },
}

/// What the host says to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the run after this step, on a GPU after up to two more that have begun; `fit` then returns with `stopped` set.
    Stop,
}

/// Receives log records; called from any thread, one call at a time.
pub type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;
/// Receives events; called on the thread that called the engine.
pub type EventSink = Arc<dyn Fn(&Event) -> Flow + Send + Sync>;

/// The host's ears: both may be absent.
#[derive(Clone, Default)]
pub struct Host {
    /// For log records.
    pub log: Option<LogSink>,
    /// For events.
    pub event: Option<EventSink>,
}

impl Host {
    /// Hands over a log record.
    pub fn log(&self, level: LogLevel, message: &str) {
        if let Some(sink) = &self.log {
            sink(level, message);
        }
    }

    /// Hands over an event.
    pub fn event(&self, event: &Event) -> Flow {
        self.event.as_ref().map_or(Flow::Continue, |sink| sink(event))
    }
}

/// What `fit` did.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct FitReport {
    /// Epochs completed, resumed ones included.
    pub epochs: usize,
    /// Optimiser steps applied, resumed ones included; in `16-mixed` those that were skipped too, as in Lightning.
    pub steps: usize,
    /// Steps not applied since loss or gradient was not finite, in this run.
    pub skipped_steps: usize,
    /// Scenarios skipped, in this run.
    pub skipped_scenarios: usize,
    /// How many of them each rule left out, by its name.
    pub skipped_by_rule: BTreeMap<&'static str, usize>,
    /// True if the host or `max_time` ended the run before it was over.
    pub stopped: bool,
    /// Best value of the monitored metric, if one was seen.
    pub best_score: Option<f64>,
    /// Path of the best checkpoint, empty if none was written.
    pub best_checkpoint: String,
    /// Path of the last checkpoint, empty if none was written.
    pub last_checkpoint: String,
    /// Losses and metrics of the last epoch by logged name (`loss/train_loss`, `val/minFDE`, ...).
    pub metrics: MetricTable,
}

/// What `cache` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheReport {
    /// Folder of the cache.
    pub path: String,
    /// Scenarios to be cached by this node.
    pub scenarios: usize,
    /// Those whose features were computed.
    pub computed: usize,
    /// Those whose features were there.
    pub present: usize,
    /// Entries that were damaged; they are among those computed, where that was possible.
    pub damaged: usize,
    /// Scenarios without features.
    pub failed: usize,
    /// How many of them for each reason.
    pub failures: std::collections::BTreeMap<String, usize>,
    /// True if the host ended the call.
    pub stopped: bool,
}

/// What `validate` and `test` found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct EvaluationReport {
    /// Scenarios evaluated.
    pub scenarios: usize,
    /// Scenarios skipped.
    pub skipped_scenarios: usize,
    /// How many of them each rule left out, by its name.
    pub skipped_by_rule: BTreeMap<&'static str, usize>,
    /// Losses and metrics by logged name.
    pub metrics: MetricTable,
    /// The same by scenario type, with `evaluation.by_type`: means over single scenarios, also of losses that a batch takes over all
    /// its agents together.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_type: BTreeMap<String, TypeReport>,
}

/// What an evaluation found on the scenarios of one type.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct TypeReport {
    /// Scenarios evaluated.
    pub scenarios: usize,
    /// Losses and metrics by logged name; not a number for one of which these scenarios have nothing.
    pub metrics: MetricTable,
}
