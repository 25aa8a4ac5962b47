//! Tells the host what happens, through its event callback and its log.

use super::{BatchEnd, Context, Hook, Outcome};
use crate::{
    error::Result,
    metrics::{self, MetricTable},
    scenario::Split,
    trainer::host::{Event, LogLevel},
};
use std::path::Path;

/// Turns moments of the run into events.
#[derive(Default)]
pub struct HostEvents {
    /// Learning rate of the last batch.
    rate: f64,
}

impl Hook for HostEvents {
    fn name(&self) -> &'static str {
        "host"
    }

    fn batch_end(&mut self, context: &mut Context, batch: &BatchEnd) -> Result<()> {
        self.rate = batch.learning_rate;
        let (epoch, step, loss) = (context.state.epoch, context.state.step as usize, batch.losses.loss);
        match batch.outcome {
            Outcome::Gathered => {}
            Outcome::Applied => {
                let total_steps = context.limits.total_steps();
                let (learning_rate, losses) = (batch.learning_rate, batch.losses.clone());
                context.event(&Event::Step { epoch, step, total_steps, loss, learning_rate, losses });
            }
            Outcome::Skipped => {
                let what = if loss.is_finite() { "gradient" } else { "loss" };
                let names = batch.tokens.join(", ");
                let text = format!("a step of epoch {epoch} is not applied: its {what} is not finite; its scenarios: {names}");
                context.run.log(LogLevel::Warning, &text);
                context.event(&Event::StepSkipped { epoch, step, tokens: batch.tokens.to_vec() });
            }
        }
        Ok(())
    }

    fn evaluation_end(&mut self, context: &mut Context, split: Split) -> Result<()> {
        if context.fitting && split == Split::Validation {
            let (epoch, step) = (context.state.epoch, context.state.step as usize);
            let of_validation = |(name, _): &&(String, f64)| metrics::is_of("val", name);
            let metrics = MetricTable(context.state.metrics.0.iter().filter(of_validation).cloned().collect());
            context.event(&Event::Validation { epoch, step, metrics });
        }
        Ok(())
    }

    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        let (epoch, metrics) = (context.state.epoch, context.state.epoch_metrics.clone());
        let loss = |name| metrics.get(name).map_or("none".to_owned(), |x| format!("{x:.4}"));
        let (train, val, rate) = (loss("loss/train_loss"), loss("loss/val_loss"), self.rate);
        let text = format!("epoch {epoch}: training loss {train}, validation loss {val}, learning rate {rate:.3e}");
        context.run.log(LogLevel::Info, &text);
        context.event(&Event::Epoch { epoch, step: context.state.step as usize, metrics });
        Ok(())
    }

    fn checkpoint_saved(&mut self, context: &mut Context, path: &Path) -> Result<()> {
        context.event(&Event::Checkpoint { path: path.display().to_string() });
        Ok(())
    }
}
