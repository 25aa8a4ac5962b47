//! Lanes, connectors and crosswalks around the ego.

use super::MapFeatures;
use super::normalise::EgoFrame;
use crate::scenario::geometry::{EQUAL_ARC_POINTS, Point};
use crate::scenario::{LaneKind, LightState, Map, PolygonSamples};

/// Vectors along each of a polygon's lines.
const POINTS: usize = EQUAL_ARC_POINTS - 1;
/// Category of a crosswalk.
const CROSSWALK: i8 = 2;

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapRow {
    /// Position of a lane in the map.
    Lane(usize),
    /// A crosswalk.
    Crosswalk,
}

/// Rows in the order lanes, connectors, crosswalks; those without a centre-line point inside the square of half side `radius`
/// of the ego frame are left out. `lights` holds a state for every lane of the map, `on_route` a flag for every road-block.
pub(crate) fn build(
    map: &Map,
    center: Point,
    radius: f64,
    on_route: &[bool],
    lights: &[LightState],
    frame: &EgoFrame,
) -> (MapFeatures, Vec<MapRow>) {
    let mut features = MapFeatures::default();
    let mut rows = Vec::new();
    for i in map.lanes_in_square(center, radius) {
        let lane = &map.lanes[i];
        if !push_samples(&mut features, &lane.samples, radius, frame) {
            continue;
        }
        rows.push(MapRow::Lane(i));
        features.polygon_type.push(i8::from(lane.kind == LaneKind::Connector));
        features.polygon_on_route.push(on_route[lane.road_block]);
        features.polygon_light.push(lights[i] as i8);
        features.polygon_has_speed_limit.push(lane.speed_limit.is_some());
        features.polygon_speed_limit.push(lane.speed_limit.unwrap_or(0.0));
        features.polygon_road_block.push(map.road_blocks[lane.road_block].number);
    }
    for i in map.crosswalks_in_square(center, radius) {
        if !push_samples(&mut features, &map.crosswalks[i].samples, radius, frame) {
            continue;
        }
        rows.push(MapRow::Crosswalk);
        features.polygon_type.push(CROSSWALK);
        features.polygon_on_route.push(false);
        features.polygon_light.push(LightState::Unknown as i8);
        features.polygon_has_speed_limit.push(false);
        features.polygon_speed_limit.push(0.0);
        features.polygon_road_block.push(0);
    }
    features.count = rows.len();
    (features, rows)
}

/// Appends the geometry of a row, unless it has no valid point.
fn push_samples(features: &mut MapFeatures, samples: &PolygonSamples, radius: f64, frame: &EgoFrame) -> bool {
    let center: [Point; POINTS] = samples.position[0].map(|p| frame.position(p));
    let valid = center.map(|p| p.iter().all(|c| c.abs() < radius));
    if !valid.contains(&true) {
        return false;
    }
    features.valid.extend(valid);
    features.point_position.extend(center.as_flattened());
    for side in &samples.position[1..] {
        features.point_position.extend(side.map(|p| frame.position(p)).as_flattened());
    }
    for side in &samples.vector {
        features.point_vector.extend(side.map(|v| frame.vector(v)).as_flattened());
    }
    features.point_orientation.extend(samples.orientation.as_flattened().iter().map(|&o| frame.heading(o)));
    features.polygon_center.extend(center[POINTS / 2]);
    features.polygon_center.push(frame.heading(samples.orientation[0][POINTS / 2]));
    features.polygon_position.extend(center[0]);
    features.polygon_orientation.push(frame.heading(samples.orientation[0][0]));
    true
}
