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
    /// Mode and name of the value.
    #[serde(default)]
    watched: String,
}

impl EarlyStopping {
    /// The hook, if a value is to be watched.
    pub fn new(config: &EarlyStoppingConfig) -> Option<Self> {
        let monitor = config.monitor.clone()?;
        let watched = format!("{} {monitor}", config.mode.name());
        let memory = Memory { patience: config.patience, watched, ..Memory::default() };
        Some(Self { config: config.clone(), monitor, memory })
    }

    fn checks_at_epoch_end(&self, context: &Context) -> bool {
        self.config.check_on_train_epoch_end.unwrap_or(context.limits.judges_at_epoch_end)
    }

    fn check(&mut self, context: &mut Context) -> Result<()> {
        let Some(value) = context.metric(&self.monitor) else {
            if !self.config.strict || context.is_to_come(&self.monitor) {
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
        let memory = Memory::deserialize(state).map_err(|e| e.to_string())?;
        // Of another value nothing is to be remembered.
        if memory.watched != self.memory.watched {
            return Ok(());
        }
        self.memory = memory;
        if self.config.patience > self.memory.patience {
            (self.memory.patience, self.memory.stopped_epoch) = (self.config.patience, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many of these values training ends; none if it does not.
    fn ends(change: impl Fn(&mut EarlyStoppingConfig), values: &[f64]) -> Option<usize> {
        let mut config = EarlyStoppingConfig { monitor: Some("x".into()), patience: 2, ..EarlyStoppingConfig::default() };
        change(&mut config);
        let mut hook = EarlyStopping::new(&config).unwrap();
        values.iter().position(|value| hook.judge(*value).is_some()).map(|index| index + 1)
    }

    #[test]
    fn another_value_is_watched_afresh() {
        let hook = |monitor: &str| {
            EarlyStopping::new(&EarlyStoppingConfig { monitor: Some(monitor.into()), ..EarlyStoppingConfig::default() }).unwrap()
        };
        let mut before = hook("x");
        before.judge(3.0);
        let (mut same, mut other) = (hook("x"), hook("y"));
        same.restore(&before.state()).unwrap();
        other.restore(&before.state()).unwrap();
        assert_eq!((same.memory.best_score, other.memory.best_score), (Some(3.0), None));
    }

    #[test]
    fn values_end_training_by_the_rules() {
        assert_eq!(ends(|_| (), &[3.0, 2.0, 2.0, 2.0]), Some(4), "twice no improvement");
        assert_eq!(ends(|_| (), &[3.0, 3.0, 2.9, 3.0, 2.8]), None);
        assert_eq!(ends(|c| c.min_delta = 0.5, &[3.0, 2.8, 2.6]), Some(3), "too small to count");
        assert_eq!(ends(|c| c.mode = Mode::Max, &[1.0, 2.0, 1.0, 1.5]), Some(4));
        assert_eq!(ends(|c| (c.mode, c.min_delta) = (Mode::Max, 0.5), &[1.0, 1.4, 1.6, 1.7]), None);
        assert_eq!(ends(|_| (), &[1.0, f64::NAN]), Some(2));
        assert_eq!(ends(|c| c.check_finite = false, &[1.0, f64::NAN, f64::NAN]), Some(3), "no number is no improvement");
        assert_eq!(ends(|c| c.stopping_threshold = Some(0.5), &[1.0, 0.5, 0.4]), Some(3));
        assert_eq!(ends(|c| c.divergence_threshold = Some(5.0), &[1.0, 5.0, 6.0]), Some(3));
        assert_eq!(ends(|c| c.patience = 0, &[1.0, 0.5, 0.5]), Some(3), "an improvement is one without patience as well");
    }
}
