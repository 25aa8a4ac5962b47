//! Losses and metrics summed over the batches of a pass.

use super::session::Losses;
use crate::metrics::{self, MetricSums, MetricTable};
use serde::{Deserialize, Serialize};

/// Sums over the batches of a pass. An epoch's loss is the mean over its scenarios, a metric's value its sum over its count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Batches with at least one usable scenario, those of skipped steps included.
    pub batches: usize,
    /// Scenarios counted.
    pub scenarios: usize,
    /// (name, sum weighted by scenarios) of every loss; the last is the total.
    losses: Vec<(String, f64)>,
    /// (name, sum, count) of every metric.
    metrics: Vec<(String, f64, f64)>,
}

impl Tally {
    /// Counts a batch of `scenarios`.
    pub fn add(&mut self, scenarios: usize, losses: &Losses, metrics: &MetricSums) {
        if self.losses.is_empty() {
            self.losses = losses.values.iter().map(|(name, _)| ((*name).to_owned(), 0.0)).collect();
            self.metrics = metrics.iter().map(|(name, ..)| ((*name).to_owned(), 0.0, 0.0)).collect();
        }
        self.batches += 1;
        self.scenarios += scenarios;
        for (sum, (_, value)) in self.losses.iter_mut().zip(&losses.values) {
            sum.1 += value * scenarios as f64;
        }
        for (sum, (_, value, count)) in self.metrics.iter_mut().zip(metrics).filter(|(_, (_, value, _))| value.is_finite()) {
            sum.1 += value;
            sum.2 += count;
        }
    }

    /// Writes [`Tally::known`] into a table, 0 for a metric of which nothing was counted.
    pub fn write(&self, prefix: &str, table: &mut MetricTable) {
        let counted = self.metrics.iter().map(|(_, _, count)| *count);
        let losses = self.losses.iter().map(|_| self.scenarios as f64);
        for ((name, value), count) in self.known(prefix).0.into_iter().zip(losses.chain(counted)) {
            table.set(name, if count > 0.0 { value } else { 0.0 });
        }
    }

    /// `loss/{prefix}_loss`, `objectives/{prefix}_*` and the metrics, not a number for one of which nothing was counted; nothing if
    /// there was no batch.
    pub fn known(&self, prefix: &str) -> MetricTable {
        let mut table = MetricTable::default();
        let mean = |sum: f64, count: f64| if count > 0.0 { sum / count } else { f64::NAN };
        let Some(((_, total), parts)) = self.losses.split_last() else { return table };
        table.set(format!("loss/{prefix}_loss"), mean(*total, self.scenarios as f64));
        for (name, sum) in parts {
            table.set(format!("objectives/{prefix}_{name}"), mean(*sum, self.scenarios as f64));
        }
        for (name, sum, count) in &self.metrics {
            table.set(metrics::logged_name(prefix, name), mean(*sum, *count));
        }
        table
    }
}
