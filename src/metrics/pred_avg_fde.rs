//! PredAvgFDE: distance of an agent's predicted future at the last step.

use super::AgentErrors;

/// Metres, and 1 if the step is known.
pub(super) fn of(errors: &AgentErrors) -> (f64, f64) {
    errors.at(errors.steps() - 1).map_or((0.0, 0.0), |error| (error, 1.0))
}
