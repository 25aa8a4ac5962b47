//! What the ego's behaviour depends on: who or what is ahead on its path, lights, and with whom it interacts. Read by the
//! contrastive augmentation; the ego's future mask by the objectives too.

mod ego_path;
mod interaction;
mod leading;

use super::CausalFeatures;
use super::ego::{EgoTrack, PRESENT};
use super::map_polygons::MapRow;
use super::normalise::EgoFrame;
use crate::scenario::geometry::Point;
use crate::scenario::{FUTURE_STEPS, LightState, Scenario};
use ego_path::EgoPath;
use geo::Contains;
use leading::{Leading, Obstacle};

/// Metres kept to what is ahead, and behind.
const CLEARANCE: f64 = 3.0;
/// Shortest look-ahead for free path points, metres.
const MIN_LOOK_AHEAD: f64 = 7.0;

/// What the parts share.
pub(crate) struct CausalInput<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) ego: &'a EgoTrack,
    pub(crate) frame: &'a EgoFrame,
    /// Corrected route.
    pub(crate) route: &'a [usize],
    /// Lanes of the road-blocks near the ego.
    pub(crate) drivable: &'a [usize],
    /// A state for every lane of the map.
    pub(crate) lights: &'a [LightState],
    /// Agents present, in walking order.
    pub(crate) present: &'a [usize],
    /// Agents of the rows from 1.
    pub(crate) selected: &'a [usize],
    pub(crate) map_rows: &'a [MapRow],
}

/// Causal features; without a path along the route there is nothing ahead.
pub(crate) fn build(input: &CausalInput) -> CausalFeatures {
    let has_future = input.scenario.has_future();
    let mut features = CausalFeatures {
        leading_agent: vec![false; input.selected.len() + 1],
        leading_distance: vec![0.0; input.selected.len() + 1],
        red_light: vec![false; input.map_rows.len()],
        ego_future_valid: if has_future { vec![true; FUTURE_STEPS] } else { Vec::new() },
        interaction_label: if has_future { interaction::labels(input) } else { Vec::new() },
        ..Default::default()
    };
    let Some(path) = EgoPath::new(input) else { return features };
    let leading = leading::find(input, &path);
    features.waiting_for_red_light = matches!(leading.first(), Some(Leading { obstacle: Obstacle::RedLight(_), .. }));
    let (mut nearest_agent, mut nearest_red) = (None, None);
    for Leading { obstacle, distance } in leading {
        match obstacle {
            Obstacle::Agent(agent) => {
                if let Some(row) = input.selected.iter().position(|&a| a == agent) {
                    features.leading_agent[row + 1] = true;
                    features.leading_distance[row + 1] = distance;
                    nearest_agent.get_or_insert(distance);
                }
            }
            Obstacle::Static => {}
            Obstacle::RedLight(lane) => {
                if let Some(row) = input.map_rows.iter().position(|&row| row == MapRow::Lane(lane)) {
                    features.red_light[row] = true;
                }
                nearest_red.get_or_insert((distance, lane));
            }
        }
    }
    if let Some((_, lane)) = nearest_red
        && has_future
    {
        // a drive through a red light is not to be learnt
        let polygon = &input.scenario.map.lanes[lane].polygon;
        let inside = |center: &Point| polygon.contains(&geo::Point::from(*center));
        if let Some(step) = input.ego.center[PRESENT + 1..].iter().position(inside) {
            features.ego_future_valid[step..].fill(false);
        }
    }
    features.free_path = free_path(input, &path, nearest_agent, nearest_red.map(|(distance, _)| distance));
    features
}

/// `[F, 3]`: poses of the path between the ego and what is ahead, where another agent could be put.
fn free_path(input: &CausalInput, path: &EgoPath, agent: Option<f64>, red: Option<f64>) -> Vec<f64> {
    let [forward, left] = input.ego.local_velocity;
    let speed = forward.hypot(left);
    let from = speed * speed / 10.0 + input.scenario.vehicle.length() / 2.0;
    let ahead = agent.unwrap_or(MIN_LOOK_AHEAD.max(speed * speed / 3.0));
    let to = red.map_or(ahead, |red| ahead.min(red));
    let (from, to) = (from + CLEARANCE + path.progress, to - CLEARANCE + path.progress);
    let mut points = Vec::new();
    for &[progress, x, y, heading] in &path.trimmed {
        if from <= progress && progress <= to {
            points.extend(input.frame.position([x, y]));
            points.push(input.frame.heading(heading));
        }
    }
    points
}
