//! nuPlan's displacement errors: of the ego's most probable candidate over all steps, and of the other agents over their known
//! steps, first within each scenario.

use super::{AgentsOf, Errors};
use std::ops::Range;

/// Mean over all steps, metres.
pub(super) fn average(errors: &Errors) -> f64 {
    let Some(row) = errors.best() else { return f64::NAN };
    (0..errors.steps()).map(|step| errors.at(row, step)).sum::<f64>() / errors.steps() as f64
}

/// At the last step, metres.
pub(super) fn last(errors: &Errors) -> f64 {
    errors.best().map_or(f64::NAN, |row| errors.at(row, errors.steps() - 1))
}

/// Mean over agents and steps, metres, and 1; none if nothing is known.
pub(super) fn agents(agents: &AgentsOf, steps: Range<usize>) -> Option<(f64, f64)> {
    agents.mean(steps, |errors, step| errors.at(step))
}
