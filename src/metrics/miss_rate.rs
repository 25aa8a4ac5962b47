//! MR: whether all of the most probable candidates end further than 2 m from the truth.

use super::Errors;

const LIMIT: f64 = 2.0;

/// 1 for a miss.
pub(super) fn of(errors: &Errors) -> f64 {
    // A distance that is not a number counts as a miss.
    let hit = errors.rows().iter().any(|&row| errors.at(row, errors.steps() - 1) <= LIMIT);
    if hit { 0.0 } else { 1.0 }
}
