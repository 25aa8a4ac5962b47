//! Rules that a scenario must keep before features are built from it.

use super::map::MAX_COORDINATE;
use super::{HISTORY_STEPS, Scenario, TOTAL_STEPS};
use crate::error::{Error, Rejection, Result};

/// What a check says: nothing, or the category with field, index and number.
type Check = std::result::Result<(), (Rejection, String)>;

/// Largest width or length of a box, metres.
const MAX_SIZE: f64 = 1e3;

impl Scenario {
    /// Checks counts, numbers and ids.
    ///
    /// A route may name road-blocks that the map does not hold (a route is often longer than a cropped map): they are dropped
    /// when features are built, as long as one remains. A light of an unknown lane is ignored likewise.
    ///
    /// # Errors
    /// [`Error::Scenario`] that names the field and the index.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|(rejection, reason)| Error::scenario(&self.token, rejection, reason))
    }

    fn check(&self) -> Check {
        if self.token.is_empty() {
            return Err((Rejection::Unreadable, "token is empty".into()));
        }
        let steps = self.ego.len();
        if steps != HISTORY_STEPS && steps != TOTAL_STEPS {
            return Err((Rejection::StepCount, format!("ego has {steps} states: {HISTORY_STEPS} or {TOTAL_STEPS} are needed")));
        }
        for (i, state) in self.ego.iter().enumerate() {
            let at = || format!("ego[{i}]");
            position(at, state.x, state.y)?;
            finite(at, [("heading", state.heading), ("vx", state.vx), ("vy", state.vy), ("ax", state.ax), ("ay", state.ay)])?;
        }
        let vehicle = &self.vehicle;
        let at = || "vehicle".to_string();
        size(at, [("width", vehicle.width), ("length", vehicle.length()), ("wheel_base", vehicle.wheel_base)])?;
        finite(at, [("front_length", vehicle.front_length), ("rear_length", vehicle.rear_length)])?;
        for (a, agent) in self.agents.iter().enumerate() {
            if agent.states.len() != steps {
                let reason = format!("agents[{a}] '{}' has {} states, the ego {steps}", agent.id, agent.states.len());
                return Err((Rejection::StepCount, reason));
            }
            for (i, state) in agent.states.iter().enumerate().filter(|(_, state)| state.valid) {
                let at = || format!("agents[{a}] '{}' states[{i}]", agent.id);
                position(at, state.x, state.y)?;
                finite(at, [("heading", state.heading), ("vx", state.vx), ("vy", state.vy)])?;
                size(at, [("width", state.width), ("length", state.length)])?;
            }
        }
        for (i, object) in self.static_objects.iter().enumerate() {
            let at = || format!("static_objects[{i}]");
            position(at, object.x, object.y)?;
            finite(at, [("heading", object.heading)])?;
            size(at, [("width", object.width), ("length", object.length)])?;
        }
        if self.route.is_empty() {
            return Err((Rejection::BadRoute, "route is empty".into()));
        }
        if !self.route.iter().any(|id| self.map.has_road_block(id)) {
            let reason = format!("route[0] '{}' and all others are unknown to map '{}'", self.route[0], self.map.name());
            return Err((Rejection::BadRoute, reason));
        }
        Ok(())
    }
}

fn finite<const N: usize>(at: impl Fn() -> String, fields: [(&str, f64); N]) -> Check {
    all(fields, f64::is_finite, |field, _| (Rejection::NotFinite, format!("{}.{field} is not finite", at())))
}

fn position(at: impl Fn() -> String, x: f64, y: f64) -> Check {
    all(
        [("x", x), ("y", y)],
        |value| value.abs() <= MAX_COORDINATE,
        |field, value| match value.is_finite() {
            true => (Rejection::OutOfRange, format!("{}.{field} = {value} is beyond {MAX_COORDINATE:e} m", at())),
            false => (Rejection::NotFinite, format!("{}.{field} is not finite", at())),
        },
    )
}

fn size<const N: usize>(at: impl Fn() -> String, fields: [(&str, f64); N]) -> Check {
    all(
        fields,
        |value| value > 0.0 && value <= MAX_SIZE,
        |field, value| (Rejection::of_number(value), format!("{}.{field} = {value} is not between 0 and {MAX_SIZE} m", at())),
    )
}

/// Names the first value that breaks a rule. Every value is looked at, which is quicker than to stop, as nearly all keep it.
#[inline(always)]
fn all<const N: usize>(
    fields: [(&str, f64); N],
    keeps: impl Fn(f64) -> bool,
    complaint: impl FnOnce(&str, f64) -> (Rejection, String),
) -> Check {
    if fields.iter().fold(true, |all, (_, value)| all & keeps(*value)) {
        return Ok(());
    }
    match fields.into_iter().find(|(_, value)| !keeps(*value)) {
        Some((field, value)) => Err(complaint(field, value)),
        None => Ok(()),
    }
}
