//! Logs the learning rate of every parameter group.

use super::{BatchEnd, Context, Hook, Outcome};
use crate::{config::LoggingInterval, error::Result};

/// Logs `lr-AdamW/pg1`, `lr-AdamW/pg2`: at the start of each epoch, or beside the training loss.
#[derive(Default)]
pub struct LearningRate {
    values: Vec<(String, f64)>,
}

impl LearningRate {
    fn log(&mut self, context: &mut Context, step: u64, rate: f64) {
        if self.values.is_empty() {
            self.values = context.module.rate_names().iter().map(|name| ((*name).to_owned(), rate)).collect();
        }
        self.values.iter_mut().for_each(|(_, value)| *value = rate);
        context.loggers.scalars(context.run, step, None, &self.values);
    }
}

impl Hook for LearningRate {
    fn name(&self) -> &'static str {
        "learning_rate_monitor"
    }

    fn epoch_start(&mut self, context: &mut Context) -> Result<()> {
        if context.config.callbacks.learning_rate_interval == LoggingInterval::Epoch {
            let rate = context.module.learning_rate();
            self.log(context, context.state.stepped, rate);
        }
        Ok(())
    }

    fn batch_end(&mut self, context: &mut Context, batch: &BatchEnd) -> Result<()> {
        let step = context.config.callbacks.learning_rate_interval == LoggingInterval::Step;
        if step && batch.outcome != Outcome::Gathered && context.state.stepped.is_multiple_of(context.limits.log_every) {
            self.log(context, context.state.logger_step(), batch.learning_rate);
        }
        Ok(())
    }
}
