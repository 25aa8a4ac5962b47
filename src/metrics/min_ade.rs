//! minADE: mean distance over the whole future, of the best of the most probable candidates.

use super::Errors;

/// Metres.
pub(super) fn of(errors: &Errors) -> f64 {
    let mean = |&row: &usize| (0..errors.steps()).map(|step| errors.at(row, step)).sum::<f64>() / errors.steps() as f64;
    errors.rows().iter().map(mean).fold(f64::INFINITY, lowest)
}

/// The smaller number; not a number if either is none.
pub(super) fn lowest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}
