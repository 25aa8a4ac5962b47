//! The lanes that the ego is to take along its route, and the path ahead on them.

use super::CausalInput;
use crate::features::ego::PRESENT;
use crate::features::path::{Path, PathPoint, concatenate};
use crate::scenario::geometry::{self, nearest_vertex, project, wrap_angle};
use crate::scenario::{Map, Vehicle};
use geo::{Contains, Distance, Euclidean, Intersects, Polygon};

/// Road-blocks planned ahead.
const PLAN_ROAD_BLOCKS: usize = 15;
/// Metres of the path ahead.
const AHEAD: f64 = 50.0;

/// The path ahead.
pub(crate) struct EgoPath {
    /// From beside the ego's centre onwards.
    pub(crate) trimmed: Vec<PathPoint>,
    /// Progress of the ego's centre.
    pub(crate) progress: f64,
}

impl EgoPath {
    /// `None` if the route has no lane.
    pub(crate) fn new(input: &CausalInput) -> Option<Self> {
        let map = &input.scenario.map;
        let mut on_route = vec![false; map.lanes.len()];
        let route_lanes: Vec<usize> = input.route.iter().flat_map(|&r| map.road_blocks[r].lanes.iter().copied()).collect();
        route_lanes.iter().for_each(|&lane| on_route[lane] = true);
        let start = start_lane(input, &route_lanes, &on_route)?;
        let first = input.route.iter().position(|&r| r == map.lanes[start].road_block).unwrap_or(0);
        let target = *input.route.get(first..)?.iter().take(PLAN_ROAD_BLOCKS).next_back()?;
        let line = concatenate(map, &plan(map, start, &on_route, target));
        let path = Path::new(&line)?;
        let progress = project(&line, input.ego.center[PRESENT]).0;
        let from = path.start().max(progress.min(path.end()));
        Some(Self { trimmed: path.trim(from, (progress + AHEAD).min(path.end())), progress })
    }
}

/// The ego's box at the present step.
pub(crate) fn footprint(input: &CausalInput) -> Polygon<f64> {
    let Vehicle { width, .. } = input.scenario.vehicle;
    let length = input.scenario.vehicle.length();
    geometry::polygon(&geometry::box_corners(input.ego.center[PRESENT], input.ego.heading[PRESENT], width, length))
}

/// The lane under the rear axle that is turned least; else one under the centre; else the nearest of the route.
fn start_lane(input: &CausalInput, route_lanes: &[usize], on_route: &[bool]) -> Option<usize> {
    let map = &input.scenario.map;
    let rear_axle = input.ego.rear_axle[PRESENT];
    let mut best: Option<(f64, usize)> = None;
    for &i in input.drivable.iter().filter(|&&i| on_route[i]) {
        let lane = &map.lanes[i];
        if lane.polygon.intersects(&geo::Point::from(rear_axle)) {
            let (vertex, _) = nearest_vertex(&lane.centerline, 1, rear_axle);
            let turn = wrap_angle(lane.centerline[vertex][2] - input.ego.heading[PRESENT]).abs();
            if best.is_none_or(|(least, _)| turn < least) {
                best = Some((turn, i));
            }
        }
    }
    if best.is_none() {
        let (center, footprint) = (geo::Point::from(input.ego.center[PRESENT]), footprint(input));
        for &i in route_lanes {
            let polygon = &map.lanes[i].polygon;
            if polygon.contains(&center) {
                return Some(i);
            }
            let distance = Euclidean.distance(polygon, &footprint);
            if best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, i));
            }
        }
    }
    best.map(|(_, lane)| lane)
}

/// A lane that waits in the queue, or has left it.
#[derive(Clone, Copy)]
struct Node {
    lane: usize,
    cost: f64,
    depth: usize,
}

/// Dijkstra's search over the route's lanes, a step costing the length of the lane entered, to any lane of the target
/// road-block; else to the deepest lane reached (of these the cheapest).
fn plan(map: &Map, start: usize, on_route: &[bool], target: usize) -> Vec<usize> {
    let mut parent: Vec<Option<usize>> = vec![None; map.lanes.len()];
    let mut queue = vec![Node { lane: start, cost: 1.0, depth: 1 }];
    let mut expanded: Vec<Node> = Vec::new();
    let mut end = None;
    while let Some(next) = (0..queue.len()).min_by(|&i, &j| queue[i].cost.total_cmp(&queue[j].cost)) {
        let node = queue.remove(next);
        if map.lanes[node.lane].road_block == target {
            end = Some(node.lane);
            break;
        }
        expanded.push(node);
        for &successor in map.lanes[node.lane].successors.iter().filter(|&&successor| on_route[successor]) {
            let cost = node.cost + map.lanes[successor].length;
            if let Some(waiting) = queue.iter_mut().find(|waiting| waiting.lane == successor) {
                if cost < waiting.cost {
                    (waiting.cost, waiting.depth) = (cost, node.depth + 1);
                    parent[successor] = Some(node.lane);
                }
            } else if expanded.iter().all(|done| done.lane != successor) {
                parent[successor] = Some(node.lane);
                queue.push(Node { lane: successor, cost, depth: node.depth + 1 });
            }
        }
    }
    let deepest = || {
        let depth = expanded.iter().map(|node| node.depth).max().unwrap_or(0);
        let cheapest = expanded.iter().filter(|node| node.depth == depth).min_by(|a, b| a.cost.total_cmp(&b.cost));
        cheapest.map_or(start, |node| node.lane)
    };
    let mut lanes = vec![end.unwrap_or_else(deepest)];
    while let Some(before) = parent[lanes[lanes.len() - 1]] {
        lanes.push(before);
    }
    lanes.reverse();
    lanes
}
