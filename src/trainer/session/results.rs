//! What a run of the network gives.

use crate::{backend::Updated, data::batch::Batch, objectives};
use arrayvec::ArrayVec;
use std::ops::Range;

/// Losses of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// Every loss by the name under which it is logged; the last is `loss`.
    pub values: ArrayVec<(&'static str, f64), { objectives::MOST }>,
    /// What is minimised: all of them together.
    pub loss: f64,
}

/// What a training step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Losses of its batch.
    pub losses: Losses,
    /// The last update until then.
    pub updated: Updated,
}

/// The network's outputs for one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `[LINES * M, F * 6]`: x, y, cos, sin, vx, vy of every candidate; row is line * M + mode.
    pub trajectory: Vec<f64>,
    /// `[LINES * M]`.
    pub logits: Vec<f64>,
    /// `[AGENTS, F * 6]`: predicted futures, relative to the present pose as the targets are.
    pub prediction: Vec<f64>,
    /// `[B, D]`, with `use_hidden_proj`; else empty.
    pub hidden: Vec<f64>,
    /// `[B, F * 4]`, with `ref_free_traj`; else empty.
    pub ref_free_trajectory: Vec<f64>,
    /// F.
    pub steps: usize,
    /// M.
    pub modes: usize,
}

impl Outputs {
    /// Rows of a scenario's candidates.
    pub fn rows(&self, batch: &Batch, scenario: usize) -> Range<usize> {
        let lines = &batch.lines[scenario];
        lines.start * self.modes..lines.end * self.modes
    }
    /// Probability of each of a scenario's candidates.
    pub fn probabilities(&self, batch: &Batch, scenario: usize) -> Vec<f64> {
        let logits = &self.logits[self.rows(batch, scenario)];
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|x| (x - highest).exp()).sum();
        logits.iter().map(|x| (x - highest).exp() / total).collect()
    }
    /// Row of a scenario's most probable candidate; none without a line.
    pub fn best_row(&self, batch: &Batch, scenario: usize) -> Option<usize> {
        // The first of equals.
        self.rows(batch, scenario).rev().max_by(|&a, &b| self.logits[a].total_cmp(&self.logits[b]))
    }
    /// x, y, heading of one candidate: `[F]`.
    pub fn poses(&self, row: usize) -> Vec<[f64; 3]> {
        let steps = self.trajectory[row * self.steps * 6..][..self.steps * 6].chunks_exact(6);
        steps.map(|s| [s[0], s[1], s[3].atan2(s[2])]).collect()
    }
    /// x, y, heading of a scenario's most probable candidate: `[F]`; empty without a line.
    pub fn best_trajectory(&self, batch: &Batch, scenario: usize) -> Vec<[f64; 3]> {
        self.best_row(batch, scenario).map(|row| self.poses(row)).unwrap_or_default()
    }
}
