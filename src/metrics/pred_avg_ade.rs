//! PredAvgADE: mean distance of an agent's predicted future over its known steps.

use super::AgentErrors;

/// Metres, and 1 if a step is known.
pub(super) fn of(errors: &AgentErrors) -> (f64, f64) {
    let known = (0..errors.steps()).filter_map(|step| errors.at(step));
    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), error| (sum + error, count + 1.0));
    // The small term stands in the published metric.
    (sum / (count + 1e-6), if count > 0.0 { 1.0 } else { 0.0 })
}
