//! The built whole: trainer, model and data, and the calls that the C ABI exposes.

use crate::{
    config::Config,
    error::{Error, Result},
    metrics::MetricTable,
    scenario::{Scenario, ScenarioSource},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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
    /// End the run after this step; `fit` then returns with `stopped` set.
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

/// Ends a run from any thread, or from a signal handler.
#[derive(Debug, Clone, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// Asks the run to end after the step in progress.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// True once asked.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Forgets the request; a run does this when it starts.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What `fit` did.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct FitReport {
    /// Epochs completed, resumed ones included.
    pub epochs: usize,
    /// Optimiser steps applied, resumed ones included.
    pub steps: usize,
    /// Steps not applied since loss or gradient was not finite, in this run.
    pub skipped_steps: usize,
    /// Scenarios skipped, in this run.
    pub skipped_scenarios: usize,
    /// True if the host ended the run.
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

/// What `validate` and `test` found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct EvaluationReport {
    /// Scenarios evaluated.
    pub scenarios: usize,
    /// Scenarios skipped.
    pub skipped_scenarios: usize,
    /// Losses and metrics by logged name.
    pub metrics: MetricTable,
}

/// One candidate of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Softmax over all candidates of the scenario.
    pub probability: f64,
    /// Reference line that it follows.
    pub reference_line: usize,
    /// Mode on that line.
    pub mode: usize,
    /// [80]: x, y, heading of the rear axle and velocity vx, vy; global frame.
    pub states: Vec<[f64; 5]>,
}

/// Predicted future of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPrediction {
    /// The host's id.
    pub id: String,
    /// [80]: x, y, heading of the box centre and velocity vx, vy; global frame.
    pub states: Vec<[f64; 5]>,
}

/// Answer of `predict`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the most probable candidate.
    pub best: usize,
    /// Every candidate: R reference lines times M modes.
    pub candidates: Vec<Candidate>,
    /// Agents that the model saw, nearest first.
    pub agents: Vec<AgentPrediction>,
}

/// An engine, immutable in its configuration once built; one thread uses it at a time.
pub struct Engine {
    config: Config,
    stop: StopHandle,
}

impl Engine {
    /// Builds trainer, model and data. `source` may be absent for an engine that only predicts.
    ///
    /// # Errors
    /// Whatever in the configuration cannot be had.
    pub fn build(config: Config, source: Option<Arc<dyn ScenarioSource>>, host: Host) -> Result<Self> {
        let _ = (source, host);
        Ok(Self { config, stop: StopHandle::default() })
    }

    /// Trains, validates after every epoch, writes checkpoints. Resumes first if the configuration names a checkpoint.
    pub fn fit(&mut self) -> Result<FitReport> {
        Err(Error::Backend("unfinished".into()))
    }

    /// Evaluates on the validation split.
    pub fn validate(&mut self) -> Result<EvaluationReport> {
        Err(Error::Backend("unfinished".into()))
    }

    /// Evaluates on the test split.
    pub fn test(&mut self) -> Result<EvaluationReport> {
        Err(Error::Backend("unfinished".into()))
    }

    /// Plans one scenario; its future, if there, is not read.
    pub fn predict(&mut self, scenario: &Scenario) -> Result<Prediction> {
        let _ = scenario;
        Err(Error::Backend("unfinished".into()))
    }

    /// Writes the weights by published name (safetensors), atomically.
    pub fn save_weights(&self, path: &Path) -> Result<()> {
        let _ = path;
        Err(Error::Backend("unfinished".into()))
    }

    /// Reads weights; a missing, extra or misshapen one is an error that names it and nothing is changed.
    pub fn load_weights(&mut self, path: &Path) -> Result<()> {
        let _ = path;
        Err(Error::Backend("unfinished".into()))
    }

    /// Ends a run in progress.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The final configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Table of the model's parts with their numbers of parameters.
    pub fn summary(&self) -> String {
        String::new()
    }
}
