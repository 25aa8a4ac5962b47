//! Lines along the route that the ego could follow, and how it did.

use super::ReferenceLineFeatures;
use super::ego::{EgoTrack, PRESENT};
use super::normalise::EgoFrame;
use super::path::{Path, PathPoint, concatenate, positions};
use crate::scenario::geometry::{Point, nearest_vertex, project, wrap_angle};
use crate::scenario::{FUTURE_STEPS, LaneKind, Map};
use std::f64::consts::FRAC_PI_2;

/// Half the side of the square around the ego's centre in which lines may start, metres.
const START_HALF: f64 = 3.0;
/// A lane must be longer to start a line, metres.
const MIN_START_LENGTH: f64 = 2.0;
/// Vertices of the 0.25 m centre lines in a metre.
const STRIDE: usize = 4;
/// Lanes in a line at most.
const MAX_LANES: usize = 15;
/// Once a line is longer than this fraction of the radius, shorter ones are dropped.
const LONG_ENOUGH: f64 = 0.8;
/// Lines that stay nearer than this to an earlier one (|dx| + |dy|, metres) are dropped.
const SAME_LINE: f64 = 0.5;
/// Branches followed at most; a dense graph has exponentially many.
const MAX_BRANCHES: usize = 256;
/// Future steps between two projections of the ego.
const PROJECTION_STEP: usize = 10;

/// Lines of `radius` points, a metre apart. `on_route` holds a flag for every road-block.
pub(crate) fn build(map: &Map, ego: &EgoTrack, on_route: &[bool], radius: f64, frame: &EgoFrame) -> ReferenceLineFeatures {
    let position = ego.rear_axle[PRESENT];
    let mut branches = Vec::new();
    for start in start_lanes(map, ego, on_route) {
        let behind = project(&map.lanes[start].centerline, position).0;
        follow(map, on_route, radius, &mut vec![start], -behind, &mut branches);
    }
    let mut lines: Vec<(Vec<PathPoint>, f64)> = branches.iter().filter_map(|lanes| trimmed(map, lanes, position, radius)).collect();
    let is_long = |length: f64| length > LONG_ENOUGH * radius;
    if lines.iter().any(|(_, length)| is_long(*length)) {
        lines.retain(|(_, length)| is_long(*length));
    }
    let lines = distinct(lines.iter().map(|(line, _)| positions(line)).zip(&lines).map(|(xy, (line, _))| (xy, line.as_slice())).collect());

    let points = radius.round() as usize;
    let mut features = ReferenceLineFeatures {
        count: lines.len(),
        points,
        position: vec![0.0; lines.len() * points * 2],
        vector: vec![0.0; lines.len() * points * 2],
        orientation: vec![0.0; lines.len() * points],
        valid: vec![false; lines.len() * points],
        future_projection: Vec::new(),
    };
    for (row, (xy, line)) in lines.iter().enumerate() {
        let coarse: Vec<&PathPoint> = line.iter().step_by(STRIDE).take(points + 1).collect();
        for (i, pair) in coarse.windows(2).enumerate() {
            let at = row * points + i;
            let (a, b) = (pair[0], pair[1]);
            features.position[2 * at..2 * at + 2].copy_from_slice(&frame.position([a[1], a[2]]));
            features.vector[2 * at..2 * at + 2].copy_from_slice(&frame.vector([b[1] - a[1], b[2] - a[2]]));
            features.orientation[at] = frame.heading(a[3]);
            features.valid[at] = true;
        }
        if ego.rear_axle.len() > PRESENT + FUTURE_STEPS {
            for step in (PROJECTION_STEP..=FUTURE_STEPS).step_by(PROJECTION_STEP) {
                let (measure, distance) = project(xy, ego.rear_axle[PRESENT + step]);
                features.future_projection.extend([measure, distance]);
            }
        }
    }
    features
}

/// Connectors, then lanes, under the ego that lie on the route and in its direction, without those that another one leads to.
fn start_lanes(map: &Map, ego: &EgoTrack, on_route: &[bool]) -> Vec<usize> {
    let mut near = map.lanes_in_square(ego.center[PRESENT], START_HALF);
    near.sort_by_key(|&lane| map.lanes[lane].kind == LaneKind::Lane);
    near.retain(|&i| {
        let lane = &map.lanes[i];
        let (vertex, _) = nearest_vertex(&lane.centerline, STRIDE, ego.rear_axle[PRESENT]);
        let turn = wrap_angle(lane.centerline[vertex][2] - ego.heading[PRESENT]);
        on_route[lane.road_block] && lane.length > MIN_START_LENGTH && turn.abs() < FRAC_PI_2
    });
    // also those that follow one which is itself removed; but a ring of lanes keeps its first
    let starts: Vec<usize> =
        near.iter().copied().filter(|lane| !near.iter().any(|&other| map.lanes[other].successors.contains(lane))).collect();
    if starts.is_empty() { near.into_iter().take(1).collect() } else { starts }
}

/// Collects the lane sequences that leave the last lane of `lanes` along the route; `length` counts from the ego.
fn follow(map: &Map, on_route: &[bool], radius: f64, lanes: &mut Vec<usize>, length: f64, branches: &mut Vec<Vec<usize>>) {
    if branches.len() >= MAX_BRANCHES {
        return;
    }
    let lane = &map.lanes[lanes[lanes.len() - 1]];
    let length = length + lane.length;
    let mut ended = lanes.len() == MAX_LANES || length > radius;
    if !ended {
        let mut next = lane.successors.iter().filter(|&&next| on_route[map.lanes[next].road_block]).peekable();
        ended = next.peek().is_none();
        for &next in next {
            lanes.push(next);
            follow(map, on_route, radius, lanes, length, branches);
            lanes.pop();
        }
    }
    if ended {
        branches.push(lanes.clone());
    }
}

/// The line from beside the ego to `radius` metres on, and its length.
fn trimmed(map: &Map, lanes: &[usize], position: Point, radius: f64) -> Option<(Vec<PathPoint>, f64)> {
    let line = concatenate(map, lanes);
    let path = Path::new(&line)?;
    let current = project(&line, position).0;
    let (from, to) = (path.start().max(current.min(path.end())), (current + radius).min(path.end()));
    Some((path.trim(from, to), to - from))
}

/// Drops lines that run along an earlier one, be that itself dropped or not.
fn distinct(lines: Vec<(Vec<Point>, &[PathPoint])>) -> Vec<(Vec<Point>, &[PathPoint])> {
    let same = |a: &[Point], b: &[Point]| a.iter().zip(b).all(|(p, q)| (p[0] - q[0]).abs() + (p[1] - q[1]).abs() < SAME_LINE);
    let keep: Vec<bool> = (0..lines.len()).map(|j| !(0..j).any(|i| same(&lines[i].0, &lines[j].0))).collect();
    lines.into_iter().zip(keep).filter_map(|(line, keep)| keep.then_some(line)).collect()
}
