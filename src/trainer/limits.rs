//! The numbers that bound a run: what configuration and data give together.

use crate::{config::Config, data::DataModule, error::Result, scenario::Split};

/// Bounds of the loops.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Training batches of an epoch.
    pub train_batches: usize,
    /// Validation batches of a pass.
    pub val_batches: usize,
    /// Validation batches that are tried before training.
    pub sanity_batches: usize,
    /// Epochs after which training ends.
    pub max_epochs: usize,
    /// Validation after every so many epochs.
    pub val_epochs: usize,
}

impl Limits {
    /// Bounds of training on these data.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] if a split that is needed has no scenario.
    pub fn new(config: &Config, data: &DataModule) -> Result<Self> {
        let trainer = &config.trainer;
        let (train_batches, val_batches) = (data.batches(Split::Train)?, data.batches(Split::Validation)?);
        Ok(Self {
            train_batches,
            val_batches,
            sanity_batches: usize::try_from(trainer.num_sanity_val_steps).unwrap_or(usize::MAX).min(val_batches),
            max_epochs: config.max_epochs(),
            val_epochs: trainer.check_val_every_n_epoch,
        })
    }

    /// Updates of the whole run, as far as known.
    pub fn total_steps(&self) -> usize {
        self.train_batches.saturating_mul(self.max_epochs)
    }

    /// True if a validation is due after `batch` batches of an epoch.
    pub fn validates(&self, epoch: usize, batch: usize) -> bool {
        self.val_batches > 0 && batch == self.train_batches && (epoch + 1).is_multiple_of(self.val_epochs)
    }
}
