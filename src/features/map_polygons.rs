//! Lanes, connectors and crosswalks around the ego.

use super::MapFeatures;
use super::normalise::EgoFrame;
use crate::scenario::geometry::{EQUAL_ARC_POINTS, Point};
use crate::scenario::{LaneKind, LightState, Map, PolygonSamples};
use std::sync::Arc;

/// Vectors along each of a polygon's lines.
const POINTS: usize = EQUAL_ARC_POINTS - 1;
/// Category of a crosswalk.
const CROSSWALK: i8 = 2;

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapRow {
    /// Position of a lane in the map.
    Lane(usize),
    /// Position of a crosswalk in the map.
    Crosswalk(usize),
}

/// A row as the map and the scenario have it: global frame.
#[derive(Debug, Clone)]
pub(crate) struct Polygon {
    pub(crate) samples: Arc<PolygonSamples>,
    /// 0 lane, 1 connector, 2 crosswalk.
    pub(crate) kind: i8,
    pub(crate) on_route: bool,
    pub(crate) light: i8,
    pub(crate) speed_limit: Option<f64>,
    /// Number of the road-block in the map, 0 for crosswalks.
    pub(crate) road_block: i32,
}

/// Rows in the order lanes, connectors, crosswalks; those without a centre-line point inside the square of half side `radius`
/// of the ego frame are left out.
pub(crate) fn rows(map: &Map, center: Point, radius: f64, frame: &EgoFrame) -> Vec<MapRow> {
    let lanes = map.lanes_in_square(center, radius).into_iter().map(MapRow::Lane);
    let crosswalks = map.crosswalks_in_square(center, radius).into_iter().map(MapRow::Crosswalk);
    let is_near = |row: &MapRow| samples(map, *row).points[0][..POINTS].iter().any(|&p| inside(frame.position(p), radius));
    lanes.chain(crosswalks).filter(is_near).collect()
}

/// What rows stand for. `lights` holds a state for every lane of the map, `on_route` a flag for every road-block.
pub(crate) fn polygons(map: &Map, rows: &[MapRow], on_route: &[bool], lights: &[LightState]) -> Vec<Polygon> {
    let polygon = |&row: &MapRow| {
        let samples = Arc::clone(samples(map, row));
        let MapRow::Lane(i) = row else {
            let light = LightState::Unknown as i8;
            return Polygon { samples, kind: CROSSWALK, on_route: false, light, speed_limit: None, road_block: 0 };
        };
        let lane = &map.lanes[i];
        Polygon {
            samples,
            kind: i8::from(lane.kind == LaneKind::Connector),
            on_route: on_route[lane.road_block],
            light: lights[i] as i8,
            speed_limit: lane.speed_limit,
            road_block: map.road_blocks[lane.road_block].number,
        }
    };
    rows.iter().map(polygon).collect()
}

/// The samples of a row.
pub(crate) fn samples(map: &Map, row: MapRow) -> &Arc<PolygonSamples> {
    match row {
        MapRow::Lane(i) => &map.lanes[i].samples,
        MapRow::Crosswalk(i) => &map.crosswalks[i].samples,
    }
}

/// The rows in the ego frame.
pub(crate) fn build(polygons: &[Polygon], radius: f64, frame: &EgoFrame) -> MapFeatures {
    let count = polygons.len();
    let room = count * 3 * POINTS;
    // Centre, left and right of each row.
    let (mut positions, mut vectors, mut orientations) = (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
    for samples in polygons.iter().map(|polygon| &polygon.samples) {
        for side in 0..3 {
            positions.extend(samples.points[side][..POINTS].iter().map(|&point| frame.position(point)));
            vectors.extend(samples.vector[side].iter().map(|&vector| frame.vector(vector)));
            orientations.extend(samples.orientation[side].iter().map(|&angle| frame.heading(angle)));
        }
    }
    let mut features = MapFeatures { count, valid: Vec::with_capacity(count * POINTS), ..Default::default() };
    for (row, polygon) in polygons.iter().enumerate() {
        let center: &[Point] = &positions[3 * row * POINTS..][..POINTS];
        let heading = |point: usize| frame.heading(polygon.samples.orientation[0][point]);
        features.valid.extend(center.iter().map(|&point| inside(point, radius)));
        features.polygon_center.extend(center[POINTS / 2]);
        features.polygon_center.push(heading(POINTS / 2));
        features.polygon_position.extend(center[0]);
        features.polygon_orientation.push(heading(0));
        features.polygon_type.push(polygon.kind);
        features.polygon_on_route.push(polygon.on_route);
        features.polygon_light.push(polygon.light);
        features.polygon_has_speed_limit.push(polygon.speed_limit.is_some());
        features.polygon_speed_limit.push(polygon.speed_limit.unwrap_or(0.0));
        features.polygon_road_block.push(polygon.road_block);
    }
    features.point_position = positions.into_flattened();
    features.point_vector = vectors.into_flattened();
    features.point_orientation = orientations;
    features
}

fn inside(point: Point, radius: f64) -> bool {
    point.iter().all(|c| c.abs() < radius)
}
