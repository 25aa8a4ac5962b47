//! Ends training when a monitored value improves no more.

use super::{Context, Hook};
use crate::{
    config::{EarlyStoppingConfig, Mode},
    error::{Error, Result},
    scenario::Split,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Watches a value. Semantics are those of Lightning 2.0.
pub struct EarlyStopping {
    config: EarlyStoppingConfig,
    monitor: String,
    memory: Memory,
}

/// What is known of the value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// Checks since the last improvement.
    wait_count: usize,
    /// Epoch in which training was ended; none if it was not.
    stopped_epoch: Option<usize>,
    /// The best value; none if there was none.
    best_score: Option<f64>,
    /// Checks without improvement that end training.
    patience: usize,
}

impl EarlyStopping {
    /// The hook, if a value is to be watched.
    pub fn new(config: &EarlyStoppingConfig) -> Option<Self> {
        let monitor = config.monitor.clone()?;
        let memory = Memory { patience: config.patience, ..Memory::default() };
        Some(Self { config: config.clone(), monitor, memory })
    }

    fn checks_at_epoch_end(&self, context: &Context) -> bool {
        self.config.check_on_train_epoch_end.unwrap_or(context.limits.judges_at_epoch_end)
    }

    fn check(&mut self, context: &mut Context) -> Result<()> {
        let Some(value) = context.metric(&self.monitor) else {
            if !self.config.strict {
                return Ok(());
            }
            let known: Vec<&str> = context.state.metrics.0.iter().map(|(name, _)| name.as_str()).collect();
            let reason = format!("'{}' is not logged; logged are {}", self.monitor, known.join(", "));
            return Err(Error::config("callbacks.early_stopping.monitor", reason));
        };
        if let Some(reason) = self.judge(value) {
            self.memory.stopped_epoch = Some(context.state.epoch);
            context.stop(&reason);
        }
        Ok(())
    }

    /// Takes a value into account; the reason to stop, if there is one.
    fn judge(&mut self, value: f64) -> Option<String> {
        let (config, memory, monitor) = (&self.config, &mut self.memory, &self.monitor);
        let sign = if config.mode == Mode::Max { 1.0 } else { -1.0 };
        if config.check_finite && !value.is_finite() {
            return Some(format!("early stopping: {monitor} is {value}"));
        }
        if config.stopping_threshold.is_some_and(|threshold| config.mode.better(value, threshold)) {
            return Some(format!("early stopping: {monitor} is {value}, as good as it has to be"));
        }
        if config.divergence_threshold.is_some_and(|threshold| config.mode.better(threshold, value)) {
            return Some(format!("early stopping: {monitor} is {value}, beyond the threshold"));
        }
        let worst = -sign * f64::INFINITY;
        if config.mode.better(value - sign * config.min_delta, memory.best_score.unwrap_or(worst)) {
            (memory.best_score, memory.wait_count) = (Some(value), 0);
            return None;
        }
        memory.wait_count += 1;
        (memory.wait_count >= config.patience)
            .then(|| format!("early stopping: {monitor} has not improved in the last {} checks", memory.wait_count))
    }
}

impl Hook for EarlyStopping {
    fn name(&self) -> &'static str {
        "early_stopping"
    }

    fn fit_start(&mut self, context: &mut Context) -> Result<()> {
        // A run that was ended stays so, unless it is given more patience.
        if self.memory.stopped_epoch.is_some() {
            context.stop("early stopping: the run was ended before");
        }
        Ok(())
    }

    fn evaluation_end(&mut self, context: &mut Context, split: Split) -> Result<()> {
        if context.fitting && split == Split::Validation && !self.checks_at_epoch_end(context) { self.check(context) } else { Ok(()) }
    }

    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        if self.checks_at_epoch_end(context) { self.check(context) } else { Ok(()) }
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.memory).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> std::result::Result<(), String> {
        self.memory = Memory::deserialize(state).map_err(|e| e.to_string())?;
        if self.config.patience > self.memory.patience {
            (self.memory.patience, self.memory.stopped_epoch) = (self.config.patience, None);
        }
        Ok(())
    }
}
