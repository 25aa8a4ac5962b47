//! How far a run is: everything that a checkpoint needs besides weights and moments.

use super::{module::ModuleState, tally::Tally};
use crate::{logger::Position, metrics::MetricTable};
use serde::{Deserialize, Serialize};

/// Position and memory of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Identifies the run, also when it is gone on with; empty if it never began.
    pub run: String,
    /// Seed of the run.
    pub seed: u64,
    /// Names the scenarios of the run; none if it never began.
    #[serde(default)]
    pub scenarios: Option<u64>,
    /// The present epoch, from 0.
    pub epoch: usize,
    /// Batches of the present epoch that are done.
    pub batch: usize,
    /// The present epoch is over, at its last batch or before: what is gone on with is the next one, or what is left of it.
    pub epoch_ended: bool,
    /// The validation that is due after `batch` batches is done.
    pub validated: bool,
    /// A validation was ever done.
    pub validated_once: bool,
    /// Training batches seen in all epochs; numbers the random numbers of the network.
    pub batches: u64,
    /// Batches whose gradients are gathered and not yet applied.
    pub gathered: usize,
    /// One of them had a loss that is not finite: they will be dropped.
    pub spoiled: bool,
    /// Updates applied; those that the scaling of the loss skipped are counted too, as in Lightning.
    pub step: u64,
    /// Updates tried, those that were not applied included.
    pub stepped: u64,
    /// Updates and steps of the schedule.
    pub module: ModuleState,
    /// Steps not applied since the last one that was; none while the loss is scaled by more than 1.
    pub nonfinite_in_a_row: usize,
    /// Seconds spent in training.
    pub seconds: f64,
    /// Sums of the present epoch.
    pub tally: Tally,
    /// The latest value of everything that was logged.
    pub metrics: MetricTable,
    /// What of it was logged in the present epoch.
    pub epoch_metrics: MetricTable,
    /// Where the loggers are.
    #[serde(default)]
    pub loggers: Position,
    /// States of the hooks by name.
    pub hooks: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// Epochs that are over.
    pub fn epochs(&self) -> usize {
        self.epoch + usize::from(self.epoch_ended)
    }

    /// True within an epoch whose end is still to come.
    pub fn is_amid_epoch(&self) -> bool {
        self.batch > 0 && !self.epoch_ended
    }

    /// If the present epoch, of `batches` batches, is over: goes to the start of the next one, or on with what is left of it.
    pub fn advance(&mut self, batches: usize) {
        if std::mem::take(&mut self.epoch_ended) && self.batch >= batches {
            self.epoch += 1;
            (self.batch, self.validated) = (0, false);
            (self.tally, self.epoch_metrics) = (Tally::default(), MetricTable::default());
        }
    }

    /// The step under which values are logged: the number, from 0, of the update that the last batch made or will be a part of.
    pub fn logger_step(&self) -> u64 {
        self.stepped.saturating_sub(u64::from(self.gathered == 0))
    }
}
