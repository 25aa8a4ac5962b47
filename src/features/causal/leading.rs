//! What stands or drives on the path ahead.

use super::CausalInput;
use super::ego_path::{EgoPath, footprint};
use crate::features::ego::PRESENT;
use crate::features::path::PathPoint;
use crate::features::static_objects;
use crate::scenario::LightState;
use crate::scenario::geometry::{self, Point, distance};
use geo::{BoundingRect, Distance, Euclidean, Intersects, Line, Polygon, coord};

/// Metres from the ego's centre within which objects are obstacles.
const NEAR: f64 = 50.0;

/// Something that may be ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Position of an agent in the scenario.
    Agent(usize),
    /// A static object.
    Static,
    /// Position in the map of a lane whose light is red.
    RedLight(usize),
}

/// Something ahead and its distance to the ego's box, metres.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leading {
    pub(crate) obstacle: Obstacle,
    pub(crate) distance: f64,
}

/// Obstacles that the ego's box would sweep on its path, nearest first; of equally near ones agents come before static objects
/// before red lights.
pub(crate) fn find(input: &CausalInput, path: &EgoPath) -> Vec<Leading> {
    let footprint = footprint(input);
    let corridor = Corridor::new(&path.trimmed, input.scenario.vehicle.width / 2.0);
    let mut leading: Vec<Leading> = obstacles(input)
        .into_iter()
        .filter(|(_, polygon)| polygon.intersects(&footprint) || corridor.meets(polygon))
        .map(|(obstacle, polygon)| Leading { obstacle, distance: Euclidean.distance(&polygon, &footprint) })
        .collect();
    leading.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    leading
}

fn obstacles(input: &CausalInput) -> Vec<(Obstacle, Polygon<f64>)> {
    let scenario = input.scenario;
    let is_near = |position: Point| distance(position, input.ego.center[PRESENT]) < NEAR;
    let mut obstacles = Vec::new();
    for &agent in input.present {
        let state = &scenario.agents[agent].states[PRESENT];
        let center = [state.x, state.y];
        if is_near(center) {
            let outline = geometry::box_corners(center, state.heading, state.width, state.length);
            obstacles.push((Obstacle::Agent(agent), geometry::polygon(&outline)));
        }
    }
    for object in static_objects::by_kind(scenario).into_iter().map(|i| &scenario.static_objects[i]) {
        if is_near([object.x, object.y]) {
            obstacles.push((Obstacle::Static, geometry::polygon(&static_objects::outline(object))));
        }
    }
    for (i, lane) in scenario.map.lanes.iter().enumerate() {
        if input.lights[i] == LightState::Red && input.route.contains(&lane.road_block) {
            obstacles.push((Obstacle::RedLight(i), lane.polygon.clone()));
        }
    }
    obstacles
}

/// All points within half a width of a line, its ends lengthened by square caps.
struct Corridor {
    segments: Vec<Line<f64>>,
    caps: Vec<Polygon<f64>>,
    half_width: f64,
}

impl Corridor {
    fn new(points: &[PathPoint], half_width: f64) -> Self {
        let mut points: Vec<Point> = points.iter().map(|p| [p[1], p[2]]).collect();
        points.dedup();
        let mut caps = Vec::new();
        // a line of one point is no corridor
        if let [first, second, ..] = points[..]
            && let [.., last_but_one, last] = points[..]
        {
            caps.push(cap(second, first, half_width));
            caps.push(cap(last_but_one, last, half_width));
        }
        Self { segments: points.windows(2).map(|w| Line::new(w[0], w[1])).collect(), caps, half_width }
    }

    fn meets(&self, polygon: &Polygon<f64>) -> bool {
        let Some(rect) = polygon.bounding_rect() else { return false };
        // what is farther than the caps' corners along an axis cannot meet
        let margin = 2.0 * self.half_width;
        let (low, high) = (rect.min() - coord! { x: margin, y: margin }, rect.max() + coord! { x: margin, y: margin });
        let outside = |a: f64, b: f64, low: f64, high: f64| (a < low && b < low) || (a > high && b > high);
        let is_near =
            |line: &&Line<f64>| !outside(line.start.x, line.end.x, low.x, high.x) && !outside(line.start.y, line.end.y, low.y, high.y);
        let mut near = self.segments.iter().filter(is_near).peekable();
        near.peek().is_some()
            && (self.caps.iter().any(|cap| cap.intersects(polygon))
                || near.any(|line| Euclidean.distance(line, polygon) <= self.half_width))
    }
}

/// The square end of a corridor beyond `end`, coming from `from`.
fn cap(from: Point, end: Point, half_width: f64) -> Polygon<f64> {
    let length = distance(from, end);
    let along = [0, 1].map(|k| (end[k] - from[k]) / length * half_width);
    let across = [-along[1], along[0]];
    let corner = |a: f64, b: f64| [0, 1].map(|k| end[k] + a * across[k] + b * along[k]);
    geometry::polygon(&[corner(1.0, 0.0), corner(1.0, 1.0), corner(-1.0, 1.0), corner(-1.0, 0.0)])
}
