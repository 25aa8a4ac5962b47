//! Whether the arrays of one scenario fit each other and the network's options.

use crate::{
    config::ModelConfig,
    error::{Error, Result},
    features::Features,
};

/// An [`Error::Data`] that names scenario and field unless `ok`.
pub(super) fn ensure(ok: bool, scenario: &Features, field: &str, rule: impl std::fmt::Display) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Data(format!("scenario '{}', {field}: {rule}", scenario.token))) }
}

/// Checks lengths and categories of all arrays.
pub(super) fn check(scenario: &Features, model: &ModelConfig) -> Result<()> {
    let length = |field: &str, len: usize, expected: usize| {
        ensure(len == expected, scenario, field, format_args!("{len} elements instead of {expected}"))
    };
    let below = |field: &str, values: &[i8], limit: i8| {
        let bad = values.iter().find(|v| !(0..limit).contains(*v));
        ensure(bad.is_none(), scenario, field, format_args!("category {} is not below {limit}", bad.unwrap_or(&0)))
    };

    let agents = &scenario.agents;
    let (count, steps) = (agents.count, agents.steps);
    let (history, future) = (model.history_steps, model.future_steps);
    ensure(count >= 1, scenario, "agents.count", "the ego is missing")?;
    ensure(
        steps == history || steps == history + future,
        scenario,
        "agents.steps",
        format_args!("{steps} is neither {history} nor {history} + {future}"),
    )?;
    length("agents.position", agents.position.len(), count * steps * 2)?;
    length("agents.heading", agents.heading.len(), count * steps)?;
    length("agents.velocity", agents.velocity.len(), count * steps * 2)?;
    length("agents.shape", agents.shape.len(), count * steps * 2)?;
    length("agents.category", agents.category.len(), count)?;
    length("agents.valid", agents.valid.len(), count * steps)?;
    if steps > history {
        length("agents.target", agents.target.len(), count * future * 3)?;
    }
    below("agents.category", &agents.category, 4)?;
    ensure(agents.valid[..history].contains(&true), scenario, "agents.valid", "the ego is never valid in its history")?;

    let map = &scenario.map;
    let count = map.count;
    let points = map.valid.len() / count.max(1);
    length("map.valid", map.valid.len(), count * points)?;
    length("map.point_position", map.point_position.len(), count * 3 * points * 2)?;
    length("map.point_vector", map.point_vector.len(), count * 3 * points * 2)?;
    length("map.point_orientation", map.point_orientation.len(), count * 3 * points)?;
    length("map.polygon_center", map.polygon_center.len(), count * 3)?;
    length("map.polygon_type", map.polygon_type.len(), count)?;
    length("map.polygon_on_route", map.polygon_on_route.len(), count)?;
    length("map.polygon_light", map.polygon_light.len(), count)?;
    length("map.polygon_has_speed_limit", map.polygon_has_speed_limit.len(), count)?;
    length("map.polygon_speed_limit", map.polygon_speed_limit.len(), count)?;
    below("map.polygon_type", &map.polygon_type, 3)?;
    below("map.polygon_light", &map.polygon_light, 4)?;

    let objects = &scenario.static_objects;
    length("static_objects.position", objects.position.len(), objects.count * 2)?;
    length("static_objects.heading", objects.heading.len(), objects.count)?;
    length("static_objects.shape", objects.shape.len(), objects.count * 2)?;
    length("static_objects.category", objects.category.len(), objects.count)?;
    length("static_objects.valid", objects.valid.len(), objects.count)?;
    below("static_objects.category", &objects.category, 4)?;

    let lines = &scenario.reference_lines;
    let all = lines.count * lines.points;
    length("reference_lines.position", lines.position.len(), all * 2)?;
    length("reference_lines.vector", lines.vector.len(), all * 2)?;
    length("reference_lines.orientation", lines.orientation.len(), all)?;
    length("reference_lines.valid", lines.valid.len(), all)?;
    if steps > history {
        length("reference_lines.future_projection", lines.future_projection.len(), lines.count * PROJECTIONS * 2)?;
    }
    if let Some(map) = &scenario.cost_map {
        length("cost_map.values", map.values.len(), map.size * map.size)?;
    }
    Ok(())
}

/// Future seconds for which the ego is projected onto the reference lines.
pub(super) const PROJECTIONS: usize = 8;
