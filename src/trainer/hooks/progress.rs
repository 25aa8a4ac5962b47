//! A progress bar on standard error, where that is a terminal.

use super::{BatchEnd, Context, Hook};
use crate::{
    error::{Error, Result},
    scenario::Split,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for each epoch, and one for each evaluation meanwhile.
#[derive(Default)]
pub struct Progress {
    epoch: Bar,
    evaluation: Bar,
}

impl Hook for Progress {
    fn name(&self) -> &'static str {
        "progress_bar"
    }

    fn batch_end(&mut self, context: &mut Context, batch: &BatchEnd) -> Result<()> {
        let epoch = context.state.epoch;
        self.epoch.step(|| format!("epoch {epoch}"), batch);
        Ok(())
    }

    fn evaluation_batch_end(&mut self, _: &mut Context, split: Split, batch: &BatchEnd) -> Result<()> {
        self.evaluation.step(|| split.name().to_owned(), batch);
        Ok(())
    }

    fn evaluation_end(&mut self, _: &mut Context, _: Split) -> Result<()> {
        self.evaluation = Bar::default();
        Ok(())
    }

    fn epoch_end(&mut self, _: &mut Context) -> Result<()> {
        self.epoch = Bar::default();
        Ok(())
    }

    fn fit_end(&mut self, _: &mut Context) -> Result<()> {
        *self = Self::default();
        Ok(())
    }

    fn exception(&mut self, _: &mut Context, _: &Error) {
        *self = Self::default();
    }
}

/// One bar, drawn from its first step until it is dropped.
#[derive(Default)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// One batch further, with the loss.
    fn step(&mut self, title: impl FnOnce() -> String, batch: &BatchEnd) {
        self.set(title, batch.index + 1, batch.total, format!("loss: {:.3}", batch.losses.loss));
    }

    /// At a position, with a message.
    pub fn set(&mut self, title: impl FnOnce() -> String, position: usize, total: usize, message: String) {
        let bar = self.0.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} < {eta} {per_sec} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(title());
            bar
        });
        bar.set_position(position as u64);
        bar.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
