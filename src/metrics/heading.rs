//! nuPlan's heading errors, of what the displacement errors are of. The absolute difference is wrapped once more and not made
//! absolute again, as published: headings that lie on two sides of ±π count negatively.

use super::{AgentsOf, Errors};
use std::ops::Range;

fn wrapped(turn: f64) -> f64 {
    let (sin, cos) = turn.sin_cos();
    sin.atan2(cos)
}

/// Mean over all steps, radians.
pub(super) fn average(errors: &Errors) -> f64 {
    let Some(row) = errors.best() else { return f64::NAN };
    (0..errors.steps()).map(|step| wrapped(errors.turn(row, step))).sum::<f64>() / errors.steps() as f64
}

/// At the last step, radians.
pub(super) fn last(errors: &Errors) -> f64 {
    errors.best().map_or(f64::NAN, |row| wrapped(errors.turn(row, errors.steps() - 1)))
}

/// Mean over agents and steps, radians, and 1; none if nothing is known.
pub(super) fn agents(agents: &AgentsOf, steps: Range<usize>) -> Option<(f64, f64)> {
    agents.mean(steps, |errors, step| errors.turn(step).map(wrapped))
}
