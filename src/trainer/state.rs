//! How far a run is: everything that a checkpoint needs besides weights and moments.

use super::{host::FitReport, tally::Tally};
use serde::{Deserialize, Serialize};

/// Position and memory of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Seed of the run.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: usize,
    /// Batches of the present epoch that are done.
    pub batch: usize,
    /// Training batches seen in all epochs; numbers the random numbers of the network.
    pub batches: u64,
    /// Updates applied.
    pub step: u64,
    /// Steps not applied since the last one that was.
    pub nonfinite_in_a_row: usize,
    /// Sums of the present epoch.
    pub tally: Tally,
    /// Checkpoints that are among the best, best first: file name and score.
    pub kept: Vec<Kept>,
    /// The best of all that were ever seen.
    pub best: Option<Kept>,
    /// Losses and metrics of the last epoch; none where not finite.
    pub metrics: Vec<(String, Option<f64>)>,
}

/// A checkpoint with its rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// File name in the checkpoint folder.
    pub file: String,
    /// Value of the monitored metric; none if it was not finite.
    pub score: Option<f64>,
}

impl State {
    /// Fills in what a report takes from the state.
    pub fn report(&self, report: &mut FitReport) {
        report.epochs = self.epoch;
        report.steps = usize::try_from(self.step).unwrap_or(usize::MAX);
        report.best_score = self.best.as_ref().and_then(|kept| kept.score);
        report.metrics.0 = self.metrics.iter().map(|(name, value)| (name.clone(), value.unwrap_or(f64::NAN))).collect();
    }
}
