//! Dynamic scaling of the loss, for gradients in half precision.

use serde::{Deserialize, Serialize};

/// The factor of the loss's gradient, and what it follows from: as `torch.amp.GradScaler`, whose state has these names.
///
/// Half precision ends at 65504 and loses what is below 6e-8. The factor lifts gradients into its range; before an update they are divided
/// by it. An update whose gradient is not finite is skipped, and multiplies it with `backoff_factor`; `growth_interval` others in a row
/// multiply it with `growth_factor`, unless it would be infinite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub scale: f64,
    /// Of the factor, after good updates.
    pub growth_factor: f64,
    /// Of the factor, after an update that was skipped.
    pub backoff_factor: f64,
    /// Number of good updates in a row after which it grows.
    pub growth_interval: u32,
    /// How many there were since it changed.
    #[serde(rename = "_growth_tracker")]
    pub growth_tracker: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, growth_tracker: 0 }
    }
}

impl LossScale {
    /// False if gradients would become zero, infinite or not a number by it.
    pub fn is_usable(&self) -> bool {
        [self.scale, self.growth_factor, self.backoff_factor].iter().all(|&x| x > 0.0 && x <= f64::from(f32::MAX))
    }
}
