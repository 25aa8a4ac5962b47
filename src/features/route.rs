//! Correction of the route that the host gives: it may start elsewhere than the ego stands, have gaps, or cross itself.

use super::ego::{EgoTrack, PRESENT};
use crate::scenario::geometry::{nearest_vertex, wrap_angle};
use crate::scenario::{LaneKind, Map, Scenario};
use geo::{Area, BooleanOps, BoundingRect, MultiPolygon, Orient, Polygon, orient, unary_union};
use std::f64::consts::FRAC_PI_4;

/// Half the side of the square around the rear axle in which the current road-block is looked for, metres.
const CURRENT_HALF: f64 = 2.5;
/// A lane whose centre line is nearer than this, metres, and turned less than 45 degrees is one that the ego may be on.
const NEAR_LANE: f64 = 3.0;
/// Levels of the search from the route's start back to the ego.
const BACKWARD_LEVELS: usize = 15;
/// Levels of the other searches.
const FORWARD_LEVELS: usize = 30;
/// Square metres by which two connectors of a route may overlap.
const MAX_OVERLAP: f64 = 1.0;

/// Road-blocks (positions in the map) of the scenario's route, those unknown to the map dropped, corrected. Empty if none is
/// known.
pub(crate) fn corrected(scenario: &Scenario, ego: &EgoTrack) -> Vec<usize> {
    let map = &scenario.map;
    let mut route = without_repeats(scenario.route.iter().filter_map(|id| map.road_block(id)));
    if route.is_empty() {
        return route;
    }
    if let Some((current, candidates)) = current_road_block(map, ego, &route)
        && !route.contains(&current)
    {
        if let Some(mut path) = search(map, route[0], &candidates, BACKWARD_LEVELS, Direction::Backward) {
            path.pop();
            path.extend(&route);
            route = path;
        } else if let Some(mut path) = search(map, current, &route[..route.len().min(3)], FORWARD_LEVELS, Direction::Forward)
            && let Some(reached) = route.iter().position(|r| Some(r) == path.last())
        {
            path.extend(&route[reached + 1..]);
            route = path;
        }
    }
    let route = without_loops(map, fill_gaps(map, &route));
    without_repeats(route.into_iter())
}

fn without_repeats(route: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut unique = Vec::new();
    for road_block in route {
        if !unique.contains(&road_block) {
            unique.push(road_block);
        }
    }
    unique
}

/// The road-block that the ego is on, and all that would do.
fn current_road_block(map: &Map, ego: &EgoTrack, route: &[usize]) -> Option<(usize, Vec<usize>)> {
    let (position, heading) = (ego.rear_axle[PRESENT], ego.heading[PRESENT]);
    let mut candidates = map.road_blocks_in_square(position, CURRENT_HALF);
    if candidates.is_empty() {
        candidates.extend([LaneKind::Lane, LaneKind::Connector].iter().filter_map(|&kind| map.nearest_road_block(position, kind)));
    }
    let (mut on_route, mut off_route, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for road_block in candidates {
        let mut least = f64::INFINITY;
        for &lane in &map.road_blocks[road_block].lanes {
            let centerline = &map.lanes[lane].centerline;
            let (vertex, distance) = nearest_vertex(centerline, 1, position);
            least = least.min(distance);
            if wrap_angle(centerline[vertex][2] - heading).abs() < FRAC_PI_4 && distance < NEAR_LANE {
                let list = if route.contains(&road_block) { &mut on_route } else { &mut off_route };
                list.push((distance, road_block));
            }
        }
        all.push((least, road_block));
    }
    let chosen = [on_route, off_route, all].into_iter().find(|list| !list.is_empty())?;
    let (_, nearest) = chosen.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((nearest, chosen.into_iter().map(|(_, road_block)| road_block).collect()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Breadth-first search over road-blocks, `start` being the first of at most `levels` levels; the path found, in driving order.
///
/// The published search keeps no visited set, so a node can be met again on a later level and its last finder becomes its
/// parent. Here a level holds each node once, in two orders: of first and of last occurrence. The first decides which target is
/// met first, the last who the parents are; this gives the same path without the exponential growth.
fn search(map: &Map, start: usize, targets: &[usize], levels: usize, direction: Direction) -> Option<Vec<usize>> {
    let neighbours = |node: usize| match direction {
        Direction::Forward => &map.road_blocks[node].outgoing,
        Direction::Backward => &map.road_blocks[node].incoming,
    };
    let (mut by_first, mut by_last) = (vec![start], vec![start]);
    // parents of each level's nodes
    let mut parents: Vec<std::collections::HashMap<usize, usize>> = Vec::new();
    for _ in 0..levels {
        if let Some(&found) = by_first.iter().find(|node| targets.contains(node)) {
            let mut path = vec![found];
            for level in parents.iter().rev() {
                path.push(level[&path[path.len() - 1]]);
            }
            if direction == Direction::Forward {
                path.reverse();
            }
            return Some(path);
        }
        let mut parent = std::collections::HashMap::new();
        let mut next_by_last = Vec::new();
        for &node in by_last.iter().rev() {
            for &next in neighbours(node).iter().rev() {
                if let std::collections::hash_map::Entry::Vacant(entry) = parent.entry(next) {
                    entry.insert(node);
                    next_by_last.push(next);
                }
            }
        }
        next_by_last.reverse();
        let mut seen = std::collections::HashSet::new();
        by_first = by_first.iter().flat_map(|&node| neighbours(node)).copied().filter(|&next| seen.insert(next)).collect();
        by_last = next_by_last;
        parents.push(parent);
        if by_first.is_empty() {
            break;
        }
    }
    None
}

/// Inserts what lies between two consecutive road-blocks that are not connected.
fn fill_gaps(map: &Map, route: &[usize]) -> Vec<usize> {
    let mut filled = vec![route[0]];
    for pair in route.windows(2) {
        if !map.road_blocks[pair[1]].incoming.contains(&pair[0])
            && let Some(path) = search(map, pair[0], &pair[1..], FORWARD_LEVELS, Direction::Forward)
            && path.len() >= 3
        {
            filled.extend(&path[1..path.len() - 1]);
        }
        filled.push(pair[1]);
    }
    filled
}

/// Cuts the route before the first connector that lies over an earlier one.
fn without_loops(map: &Map, mut route: Vec<usize>) -> Vec<usize> {
    let mut earlier: Vec<MultiPolygon<f64>> = Vec::new();
    for i in 0..route.len() {
        let road_block = &map.road_blocks[route[i]];
        if road_block.kind != LaneKind::Connector {
            continue;
        }
        let polygon = union(road_block.lanes.iter().map(|&lane| &map.lanes[lane].polygon));
        if earlier.iter().any(|other| overlap(other, &polygon) > MAX_OVERLAP) {
            route.truncate(i);
            break;
        }
        earlier.push(polygon);
    }
    route
}

/// Of polygons that may run either way round: the library takes what lies inside from the first of them.
fn union<'a>(polygons: impl Iterator<Item = &'a Polygon<f64>>) -> MultiPolygon<f64> {
    let oriented: Vec<Polygon<f64>> = polygons.map(|polygon| polygon.orient(orient::Direction::Default)).collect();
    unary_union(&oriented)
}

fn overlap(a: &MultiPolygon<f64>, b: &MultiPolygon<f64>) -> f64 {
    let (Some(box_a), Some(box_b)) = (a.bounding_rect(), b.bounding_rect()) else { return 0.0 };
    let side = |low_a: f64, high_a: f64, low_b: f64, high_b: f64| (high_a.min(high_b) - low_a.max(low_b)).max(0.0);
    let bound =
        side(box_a.min().x, box_a.max().x, box_b.min().x, box_b.max().x) * side(box_a.min().y, box_a.max().y, box_b.min().y, box_b.max().y);
    if bound > MAX_OVERLAP { a.intersection(b).unsigned_area() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Lane;
    use std::collections::{HashMap, VecDeque};

    #[test]
    fn a_union_has_polygons_of_either_winding() {
        let square = |x: f64| vec![(x, 0.0), (x + 2.0, 0.0), (x + 2.0, 1.0), (x, 1.0), (x, 0.0)];
        let reversed = square(4.0).into_iter().rev().collect::<Vec<_>>();
        let [a, b, c] = [square(0.0), reversed, square(1.0)].map(|ring| Polygon::new(ring.into(), Vec::new()));
        assert!((union([&a, &b, &c].into_iter()).unsigned_area() - 5.0).abs() < 1e-12);
        assert!((union([&b, &a, &c].into_iter()).unsigned_area() - 5.0).abs() < 1e-12);
    }

    /// The published search: no visited set, parents by node and level, the last writer wins.
    fn published(map: &Map, start: usize, targets: &[usize], levels: usize, direction: Direction) -> Option<Vec<usize>> {
        let mut queue = VecDeque::from([(start, 1)]);
        let mut parents: HashMap<(usize, usize), Option<(usize, usize)>> = HashMap::from([((start, 1), None)]);
        while let Some((node, level)) = queue.pop_front() {
            if level > levels {
                return None;
            }
            if targets.contains(&node) {
                let (mut path, mut at) = (Vec::new(), Some((node, level)));
                while let Some(key) = at {
                    path.push(key.0);
                    at = parents[&key];
                }
                if direction == Direction::Forward {
                    path.reverse();
                }
                return Some(path);
            }
            let road_block = &map.road_blocks[node];
            for &next in if direction == Direction::Forward { &road_block.outgoing } else { &road_block.incoming } {
                queue.push_back((next, level + 1));
                parents.insert((next, level + 1), Some((node, level)));
            }
        }
        None
    }

    #[test]
    fn search_finds_the_published_path() {
        let mut state = 3_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut found = 0;
        for _ in 0..60 {
            let count = 4 + random(8);
            let lanes = (0..count).map(|i| {
                let line = |y: f64| vec![[0.0, y], [1.0, y]];
                Lane {
                    id: format!("lane {i}"),
                    roadblock_id: format!("{i}"),
                    kind: LaneKind::Lane,
                    centerline: line(0.0),
                    left: line(1.0),
                    right: line(-1.0),
                    successors: (0..1 + random(3)).map(|_| format!("lane {}", random(count))).collect(),
                    speed_limit: None,
                }
            });
            let map = Map::new("random", lanes.collect(), Vec::new()).unwrap();
            for _ in 0..20 {
                let (start, targets) = (random(count), [random(count), random(count)]);
                for direction in [Direction::Forward, Direction::Backward] {
                    let path = search(&map, start, &targets, 7, direction);
                    assert_eq!(path, published(&map, start, &targets, 7, direction));
                    found += usize::from(path.is_some_and(|path| path.len() > 2));
                }
            }
        }
        assert!(found > 100, "{found} paths");
    }
}
