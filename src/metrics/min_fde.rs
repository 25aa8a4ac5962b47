//! minFDE: distance at the last step, of the best of the most probable candidates.

use super::{Errors, min_ade::lowest};

/// Metres.
pub(super) fn of(errors: &Errors) -> f64 {
    errors.rows().iter().map(|&row| errors.at(row, errors.steps() - 1)).fold(f64::INFINITY, lowest)
}
