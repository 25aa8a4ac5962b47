//! Logs the learning rate of every parameter group at the start of each epoch.

use super::{Context, Hook};
use crate::error::Result;

/// Logs `lr-AdamW/pg1`, `lr-AdamW/pg2`, ...
pub struct LearningRate;

impl Hook for LearningRate {
    fn name(&self) -> &'static str {
        "learning_rate_monitor"
    }

    fn epoch_start(&mut self, context: &mut Context) -> Result<()> {
        let rate = context.module.learning_rate();
        let values: Vec<(String, f64)> = context.module.rate_names().iter().map(|name| ((*name).to_owned(), rate)).collect();
        context.loggers.scalars(context.run, context.state.stepped, None, &values);
        Ok(())
    }
}
