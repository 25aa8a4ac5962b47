//! The last look at features before they are used or stored.

use super::Features;
use crate::error::{Error, Rejection, Result};

/// Metres from the ego beyond which a position is a fault of the data.
const MAX_POSITION: f64 = 1e6;
/// Radians; headings are not wrapped, but no host counts this many turns.
const MAX_ANGLE: f64 = 1e3;
/// Metres a second.
const MAX_SPEED: f64 = 1e3;
/// Metres a second squared.
const MAX_ACCELERATION: f64 = 1e4;
/// Metres.
const MAX_SIZE: f64 = 1e3;

/// Checks that every number is finite and of sane magnitude, and that there is a valid reference line.
///
/// # Errors
/// [`Error::Scenario`] that names the field and the index in its row-major array.
pub fn check(features: &Features) -> Result<()> {
    let fail = |rejection, reason: String| Err(Error::scenario(&features.token, rejection, reason));
    let Features { current_state, agents, map, static_objects, reference_lines, causal, .. } = features;
    let fields: [(&str, &[f64], f64); 23] = [
        ("current_state[velocity]", &current_state[3..4], MAX_SPEED),
        ("current_state[acceleration]", &current_state[4..5], MAX_ACCELERATION),
        ("current_state[angles]", &current_state[5..7], MAX_ANGLE),
        ("agents.position", &agents.position, MAX_POSITION),
        ("agents.heading", &agents.heading, MAX_ANGLE),
        ("agents.velocity", &agents.velocity, MAX_SPEED),
        ("agents.shape", &agents.shape, MAX_SIZE),
        ("agents.target", &agents.target, MAX_POSITION),
        ("map.point_position", &map.point_position, MAX_POSITION),
        ("map.point_vector", &map.point_vector, MAX_POSITION),
        ("map.point_orientation", &map.point_orientation, MAX_ANGLE),
        ("map.polygon_center", &map.polygon_center, MAX_POSITION),
        ("map.polygon_position", &map.polygon_position, MAX_POSITION),
        ("map.polygon_orientation", &map.polygon_orientation, MAX_ANGLE),
        ("map.polygon_speed_limit", &map.polygon_speed_limit, MAX_SPEED),
        ("static_objects.position", &static_objects.position, MAX_POSITION),
        ("static_objects.heading", &static_objects.heading, MAX_ANGLE),
        ("static_objects.shape", &static_objects.shape, MAX_SIZE),
        ("reference_lines.position", &reference_lines.position, MAX_POSITION),
        ("reference_lines.vector", &reference_lines.vector, MAX_POSITION),
        ("reference_lines.orientation", &reference_lines.orientation, MAX_ANGLE),
        ("reference_lines.future_projection", &reference_lines.future_projection, MAX_POSITION),
        ("causal.free_path", &causal.free_path, MAX_POSITION),
    ];
    for (field, values, limit) in fields {
        let sane = |v: &f64| v.abs() <= limit; // NaN is not
        // without an early exit the usual case takes several numbers at a time
        if !values.iter().fold(true, |all, v| all & sane(v))
            && let Some(i) = values.iter().position(|v| !sane(v))
        {
            return fail(Rejection::of_number(values[i]), format!("feature {field}[{i}] = {} is not within +-{limit:e}", values[i]));
        }
    }
    if let Some(i) = causal.leading_distance.iter().position(|v| !v.is_finite()) {
        return fail(Rejection::NotFinite, format!("feature causal.leading_distance[{i}] is not finite"));
    }
    if let Some(cost_map) = &features.cost_map
        && !cost_map.values.iter().fold(true, |all, v| all & v.is_finite())
        && let Some(i) = cost_map.values.iter().position(|v| !v.is_finite())
    {
        return fail(Rejection::NotFinite, format!("feature cost_map[{i}] is not finite"));
    }
    if !reference_lines.valid.contains(&true) {
        return fail(
            Rejection::NoReferenceLine,
            "no reference line: the ego is on no lane of the route that leads in its direction".into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::ReferenceLineFeatures;

    #[test]
    fn names_the_field_and_the_index() {
        let mut features = Features {
            token: "t".into(),
            reference_lines: ReferenceLineFeatures { valid: vec![true], ..Default::default() },
            ..Default::default()
        };
        assert_eq!(check(&features), Ok(()));
        features.agents.velocity = vec![0.0, f64::NAN];
        assert!(check(&features).unwrap_err().to_string().contains("agents.velocity[1]"));
        features.agents.velocity = vec![0.0, 2e3];
        assert!(check(&features).unwrap_err().to_string().contains("agents.velocity[1]"));
        features.agents.velocity.clear();
        features.reference_lines.valid = vec![false];
        assert!(check(&features).unwrap_err().to_string().contains("no reference line"));
    }
}
