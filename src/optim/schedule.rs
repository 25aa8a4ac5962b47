//! Learning rate over time: PLUTO's linear warm-up and cosine (Loshchilov and Hutter, "SGDR", 2017), and the standard module's
//! one cycle (Smith and Topin, "Super-Convergence", 2018) and milestones, with a warm-up before them.
//!
//! A schedule is a pure function of the number of its steps so far, which is all that a checkpoint has to keep.

use crate::config::{
    OptimizerConfig,
    module::{Anneal, ModuleKind, OneCycle, ScheduleKind, WarmUp, WarmUpStrategy},
};

/// Where PLUTO's cosine ends.
pub const LOWEST: f64 = 1e-6;

/// Learning rate and momentum at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum of the optimiser (b₁ of Adam); none where the schedule leaves it.
    pub momentum: Option<f64>,
}

/// When a schedule takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// At the end of every epoch.
    Epoch,
    /// At every n-th batch of each epoch, counted from the epoch's first.
    Batches(usize),
}

/// A schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Learning rate of the optimiser.
    rate: f64,
    main: Main,
    warm_up: Option<WarmUp>,
}

#[derive(Debug, Clone, PartialEq)]
enum Main {
    Constant,
    WarmupCosine { epochs: usize, warmup_epochs: usize },
    MultiStep { milestones: Vec<usize>, gamma: f64 },
    OneCycle { cycle: OneCycle, every: usize, total: usize },
}

impl Schedule {
    /// The schedule of a module for a run of `max_epochs` with `batches` training batches each.
    pub fn new(kind: ModuleKind, config: &OptimizerConfig, batches: usize, max_epochs: usize) -> Self {
        if kind == ModuleKind::Pluto {
            let main = Main::WarmupCosine { epochs: config.epochs, warmup_epochs: config.warmup_epochs };
            return Self { rate: config.lr, main, warm_up: None };
        }
        let warm_up = Some(config.schedule.warm_up).filter(|warm_up| warm_up.steps > 0);
        let main = match config.schedule.kind {
            ScheduleKind::Constant => Main::Constant,
            ScheduleKind::MultiStep => Main::MultiStep { milestones: config.schedule.milestones.clone(), gamma: config.schedule.gamma },
            ScheduleKind::OneCycle => {
                let cycle = config.schedule.one_cycle;
                let epochs = cycle.epochs.unwrap_or(max_epochs).max(1);
                let per_epoch = cycle.steps_per_epoch.unwrap_or_else(|| {
                    // One step in every `epochs` batches, less what the warm-up takes, shared out among the epochs.
                    let steps = batches.div_ceil(epochs) * epochs;
                    steps.saturating_sub(warm_up.map_or(0, |warm_up| warm_up.steps)).div_ceil(epochs)
                });
                Main::OneCycle { cycle, every: epochs, total: (per_epoch * epochs).max(1) }
            }
        };
        Self { rate: config.standard.lr, main, warm_up }
    }

    /// When it takes a step.
    pub fn interval(&self) -> Interval {
        match self.main {
            Main::OneCycle { every, .. } => Interval::Batches(every),
            _ => Interval::Epoch,
        }
    }

    /// What holds after so many steps.
    pub fn at(&self, steps: u64) -> Rates {
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        let Some(warm_up) = self.warm_up else { return self.main_at(steps, self.rate) };
        let start = self.main_at(0, self.rate);
        if let (Main::Constant, true) = (&self.main, steps > warm_up.steps) {
            return start;
        }
        let warm = |steps: usize| {
            let part = if warm_up.strategy == WarmUpStrategy::Constant { 1 } else { steps };
            start.learning_rate * (part as f64 / warm_up.steps as f64)
        };
        if steps <= warm_up.steps {
            return Rates { learning_rate: warm(steps), ..start };
        }
        // Milestones multiply the rate that they find, which after a constant warm-up is still the low one, as published.
        self.main_at(steps - warm_up.steps, warm(warm_up.steps))
    }

    fn main_at(&self, steps: usize, rate: f64) -> Rates {
        let plain = |learning_rate| Rates { learning_rate, momentum: None };
        match &self.main {
            Main::Constant => plain(rate),
            Main::WarmupCosine { epochs, warmup_epochs } => plain(warmup_cosine(steps, rate, *epochs, *warmup_epochs)),
            Main::MultiStep { milestones, gamma } => {
                plain(milestones.iter().filter(|&&milestone| (1..=steps).contains(&milestone)).fold(rate, |rate, _| rate * gamma))
            }
            Main::OneCycle { cycle, total, .. } => one_cycle(cycle, self.rate, *total, steps),
        }
    }
}

/// Step `step` of `total`: up from `highest` / `div_factor` to `highest`, then down to the first / `final_div_factor`; the momentum
/// the other way. Behind the last it stays.
fn one_cycle(cycle: &OneCycle, highest: f64, total: usize, step: usize) -> Rates {
    let first = highest / cycle.div_factor;
    let (peak, end) = (cycle.pct_start * total as f64 - 1.0, total as f64 - 1.0);
    let step = step as f64;
    let part = |from: f64, to: f64| if to > from { ((step - from) / (to - from)).min(1.0) } else { 1.0 };
    let between = |start: f64, end: f64, part: f64| match cycle.anneal_strategy {
        Anneal::Linear => (end - start) * part + start,
        Anneal::Cosine => end + (start - end) / 2.0 * (1.0 + (std::f64::consts::PI * part).cos()),
    };
    let (rate, momentum) = if step <= peak {
        let part = part(0.0, peak);
        (between(first, highest, part), between(cycle.max_momentum, cycle.base_momentum, part))
    } else {
        let part = part(peak, end);
        (between(highest, first / cycle.final_div_factor, part), between(cycle.base_momentum, cycle.max_momentum, part))
    };
    Rates { learning_rate: rate, momentum: cycle.cycle_momentum.then_some(momentum) }
}

/// PLUTO's rate of `epoch`, from 0. Behind the last of `epochs` it stays at [`LOWEST`].
pub fn warmup_cosine(epoch: usize, learning_rate: f64, epochs: usize, warmup_epochs: usize) -> f64 {
    if epoch < warmup_epochs {
        return learning_rate * (epoch + 1) as f64 / warmup_epochs as f64;
    }
    // Without an epoch behind the warm-up there is nothing to divide by: the cosine has ended.
    let length = epochs.saturating_sub(warmup_epochs);
    let part = if length == 0 { 1.0 } else { ((epoch - warmup_epochs) as f64 / length as f64).min(1.0) };
    LOWEST + 0.5 * (learning_rate - LOWEST) * (1.0 + (std::f64::consts::PI * part).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_falls() {
        let rate = |epoch| warmup_cosine(epoch, 1e-3, 25, 3);
        assert!((rate(0) - 1e-3 / 3.0).abs() < 1e-15);
        assert_eq!(rate(2), 1e-3);
        assert_eq!(rate(3), 1e-3);
        assert!((rate(14) - (LOWEST + 0.5 * (1e-3 - LOWEST))).abs() < 1e-15, "half way");
        assert!(rate(24) > LOWEST && rate(24) < rate(23));
        assert_eq!(rate(40), LOWEST);
    }

    #[test]
    fn warm_up_to_the_end() {
        for epoch in 0..6 {
            assert!(warmup_cosine(epoch, 1e-3, 3, 3).is_finite());
        }
        assert_eq!(warmup_cosine(2, 1e-3, 3, 3), 1e-3);
    }
}
