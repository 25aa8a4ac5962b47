//! Static objects on lanes that the ego could drive.

use super::StaticFeatures;
use super::normalise::EgoFrame;
use crate::scenario::geometry::{self, Point, distance};
use crate::scenario::{Map, Scenario, StaticObject};
use geo::{Intersects, Polygon};

/// Half the side of the square around the ego's centre whose road-blocks count as drivable, metres.
const DRIVABLE_HALF: f64 = 50.0;

/// Positions in the map of the lanes of road-blocks near the ego, in order.
pub(crate) fn drivable_lanes(map: &Map, center: Point) -> Vec<usize> {
    map.road_blocks_in_square(center, DRIVABLE_HALF).into_iter().flat_map(|r| map.road_blocks[r].lanes.iter().copied()).collect()
}

/// Positions of the static objects by kind, in the order given within a kind.
pub(crate) fn by_kind(scenario: &Scenario) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scenario.static_objects.len()).collect();
    order.sort_by_key(|&i| scenario.static_objects[i].kind);
    order
}

/// The object's box.
pub(crate) fn outline(object: &StaticObject) -> [Point; 4] {
    geometry::box_corners([object.x, object.y], object.heading, object.width, object.length)
}

/// Objects within `radius` of the ego's centre that stand on a drivable lane.
pub(crate) fn build(scenario: &Scenario, center: Point, drivable: &[usize], radius: f64, frame: &EgoFrame) -> StaticFeatures {
    let map = &scenario.map;
    let mut is_drivable = vec![false; map.lanes.len()];
    drivable.iter().for_each(|&lane| is_drivable[lane] = true);
    let mut features = StaticFeatures::default();
    for i in by_kind(scenario) {
        let object = &scenario.static_objects[i];
        let position = [object.x, object.y];
        if distance(center, position) > radius || !stands_on(map, &is_drivable, &geometry::polygon(&outline(object))) {
            continue;
        }
        features.count += 1;
        features.position.extend(frame.position(position));
        features.heading.push(frame.heading(object.heading));
        features.shape.extend([object.width, object.length]);
        features.category.push(object.kind as i8);
        features.valid.push(true);
    }
    features
}

fn stands_on(map: &Map, is_drivable: &[bool], object: &Polygon<f64>) -> bool {
    let corners = object.exterior().0.as_slice();
    let low = corners.iter().fold([f64::INFINITY; 2], |low, c| [low[0].min(c.x), low[1].min(c.y)]);
    let high = corners.iter().fold([f64::NEG_INFINITY; 2], |high, c| [high[0].max(c.x), high[1].max(c.y)]);
    map.lane_index.candidates(low, high).into_iter().any(|lane| is_drivable[lane] && map.lanes[lane].polygon.intersects(object))
}
