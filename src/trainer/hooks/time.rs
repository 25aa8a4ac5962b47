//! Logs how long epochs and evaluations take.

use super::{Context, Hook};
use crate::{error::Result, scenario::Split};
use std::time::Instant;

/// Logs seconds as `time_epoch`, `time_eval` and `time_test`, under the number of the epoch.
#[derive(Default)]
pub struct Times {
    epoch: Option<Instant>,
    evaluation: Option<Instant>,
}

impl Times {
    fn log(context: &mut Context, name: &str, start: Option<Instant>) {
        if let Some(start) = start {
            let values = [(name.to_owned(), start.elapsed().as_secs_f64())];
            context.loggers.scalars(context.run, context.state.epoch as u64, None, &values);
        }
    }
}

impl Hook for Times {
    fn name(&self) -> &'static str {
        "time_logging"
    }

    fn fit_start(&mut self, _: &mut Context) -> Result<()> {
        // Of an epoch that is gone on with, what is left of it counts.
        self.epoch = Some(Instant::now());
        Ok(())
    }

    fn epoch_start(&mut self, _: &mut Context) -> Result<()> {
        self.epoch = Some(Instant::now());
        Ok(())
    }

    fn evaluation_start(&mut self, _: &mut Context, _: Split, _: usize) -> Result<()> {
        self.evaluation = Some(Instant::now());
        Ok(())
    }

    fn evaluation_end(&mut self, context: &mut Context, split: Split) -> Result<()> {
        let name = if split == Split::Test { "time_test" } else { "time_eval" };
        Self::log(context, name, self.evaluation.take());
        Ok(())
    }

    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        Self::log(context, "time_epoch", self.epoch.take());
        Ok(())
    }
}
