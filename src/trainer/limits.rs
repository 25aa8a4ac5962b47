//! The numbers that bound a run: what configuration and data give together. Semantics are those of Lightning 2.0.

use crate::{
    config::{Config, Limit},
    data::DataModule,
    error::{Error, Result},
    scenario::Split,
};
use std::time::Duration;

/// Bounds of the loops.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Training batches of an epoch.
    pub train_batches: usize,
    /// Validation batches of a pass.
    pub val_batches: usize,
    /// Validation batches that are tried before training.
    pub sanity_batches: usize,
    /// Epochs after which training ends; none for no end.
    pub max_epochs: Option<usize>,
    /// Epochs before which no hook ends training.
    pub min_epochs: usize,
    /// Updates after which training ends; none for no end.
    pub max_steps: Option<u64>,
    /// Updates before which no hook ends training.
    pub min_steps: u64,
    /// Time after which training is interrupted.
    pub max_time: Option<Duration>,
    /// Batches whose gradients make one update.
    pub accumulate: usize,
    /// Updates between two records of the training loss.
    pub log_every: u64,
    /// Validation after every so many batches, of an epoch or of all.
    val_every: usize,
    /// Epochs between those with a validation; none counts batches across epochs.
    val_epochs: Option<usize>,
    /// Epochs are judged at their end, not after validations: each has one validation, at its end, or there is none. As in Lightning,
    /// where 1 equals 1.0, also with a validation after every batch.
    pub judges_at_epoch_end: bool,
}

impl Limits {
    /// Bounds of training on these data.
    ///
    /// # Errors
    /// [`Error::Data`] if a split that is needed has no scenario; [`Error::Config`] if a limit does not go with the data.
    pub fn new(config: &Config, data: &DataModule) -> Result<Self> {
        let trainer = &config.trainer;
        let (train_batches, val_batches) = (data.batches(Split::Train)?, data.batches(Split::Validation)?);
        let interval = trainer.val_check_interval;
        let val_every = match interval {
            Limit::Count(count) => count,
            Limit::Share(_) => interval.apply(train_batches).max(1),
        };
        if trainer.check_val_every_n_epoch.is_some() && val_batches > 0 && val_every > train_batches.max(1) {
            let reason = format!(
                "{val_every} is more than the {train_batches} training batches of an epoch; \
                 with check_val_every_n_epoch=null it is counted across epochs"
            );
            return Err(Error::config("lightning.trainer.params.val_check_interval", reason));
        }
        let early = trainer.min_epochs.is_none() && trainer.min_steps.is_some();
        Ok(Self {
            train_batches,
            val_batches,
            sanity_batches: usize::try_from(trainer.num_sanity_val_steps).unwrap_or(usize::MAX).min(val_batches),
            max_epochs: config.max_epochs(),
            min_epochs: trainer.min_epochs.unwrap_or(early.into()),
            max_steps: u64::try_from(trainer.max_steps).ok(),
            min_steps: trainer.min_steps.unwrap_or(0) as u64,
            max_time: trainer.max_time,
            accumulate: trainer.accumulate_grad_batches,
            log_every: if trainer.fast_dev_run.0 > 0 { 1 } else { trainer.log_every_n_steps as u64 },
            val_every,
            val_epochs: trainer.check_val_every_n_epoch,
            judges_at_epoch_end: trainer.check_val_every_n_epoch == Some(1)
                && (val_batches == 0 || matches!(interval, Limit::Share(1.0) | Limit::Count(1))),
        })
    }

    /// Updates of the whole run, as far as known; 0 if it has no end.
    pub fn total_steps(&self) -> usize {
        let epochs = self.max_epochs.map(|epochs| self.train_batches.div_ceil(self.accumulate.max(1)).saturating_mul(epochs));
        let steps = self.max_steps.map(|steps| usize::try_from(steps).unwrap_or(usize::MAX));
        epochs.into_iter().chain(steps).min().unwrap_or(0)
    }

    /// True if a validation is due after `batch` batches of an epoch; `cut` if the epoch ends there before its time.
    pub fn validates(&self, epoch: usize, batch: usize, cut: bool) -> bool {
        if self.val_batches == 0 || batch == 0 {
            return false;
        }
        let done = match self.val_epochs {
            Some(epochs) if !(epoch + 1).is_multiple_of(epochs) => return false,
            Some(_) => batch,
            None => epoch * self.train_batches + batch,
        };
        cut || done.is_multiple_of(self.val_every)
    }

    /// True if the gradients gathered so far make an update after `batch` batches of an epoch.
    pub fn updates(&self, batch: usize) -> bool {
        batch.is_multiple_of(self.accumulate) || batch == self.train_batches
    }
}
