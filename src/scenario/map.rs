//! The road map: lanes, lane connectors and crosswalks, and what can be computed from them once for all scenarios.

use super::geometry::{self, EQUAL_ARC_POINTS, Point, Pose};
use super::index::PolygonIndex;
use crate::error::{Error, Rejection, Result};
use geo::{Distance, Euclidean, Polygon};
use std::collections::HashMap;
use std::sync::Arc;

/// Metres between the points of a resampled centre line.
const CENTERLINE_SPACING: f64 = 0.25;
/// Longest lane in metres; beyond it the resampled line would take more memory than any real lane deserves.
const MAX_LANE_LENGTH: f64 = 1e5;
/// Largest coordinate in metres at which doubles still resolve well below a millimetre.
pub(super) const MAX_COORDINATE: f64 = 1e8;

/// Plain lane or connector inside a junction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneKind {
    /// Between junctions.
    Lane,
    /// Through a junction.
    Connector,
}

/// A lane as a host describes it. Polylines run in driving direction, metres, global frame; point counts may differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Unique among lanes and crosswalks.
    pub id: String,
    /// Group of lanes side by side in one direction.
    pub roadblock_id: String,
    /// Lane or connector.
    pub kind: LaneKind,
    /// Two points or more.
    pub centerline: Vec<[f64; 2]>,
    /// Left boundary.
    pub left: Vec<[f64; 2]>,
    /// Right boundary.
    pub right: Vec<[f64; 2]>,
    /// Ids of the lanes that follow.
    pub successors: Vec<String>,
    /// Metres a second, if there is a limit.
    pub speed_limit: Option<f64>,
}

/// A pedestrian crossing.
#[derive(Debug, Clone, PartialEq)]
pub struct Crosswalk {
    /// Unique among lanes and crosswalks.
    pub id: String,
    /// Outline, not closed.
    pub polygon: Vec<[f64; 2]>,
}

/// A map polygon as the network sees it: `[centre, left, right]`, 20 vectors each, global frame.
#[derive(Debug, Clone)]
pub(crate) struct PolygonSamples {
    /// `[3, 21]`.
    pub(crate) points: [[Point; EQUAL_ARC_POINTS]; 3],
    /// `[3, 20]`: to the next point.
    pub(crate) vector: [[Point; EQUAL_ARC_POINTS - 1]; 3],
    /// `[3, 20]`: directions of the vectors.
    pub(crate) orientation: [[f64; EQUAL_ARC_POINTS - 1]; 3],
}

impl PolygonSamples {
    pub(crate) fn new(points: &[[Point; EQUAL_ARC_POINTS]; 3]) -> Self {
        const N: usize = EQUAL_ARC_POINTS - 1;
        let mut samples = Self { points: *points, vector: [[[0.0; 2]; N]; 3], orientation: [[0.0; N]; 3] };
        for (side, line) in points.iter().enumerate() {
            for i in 0..N {
                let vector = [line[i + 1][0] - line[i][0], line[i + 1][1] - line[i][1]];
                samples.vector[side][i] = vector;
                samples.orientation[side][i] = vector[1].atan2(vector[0]);
            }
        }
        samples
    }
}

/// A lane with what follows from its description.
#[derive(Debug)]
pub(crate) struct MapLane {
    /// Position of its road-block in [`Map::road_blocks`].
    pub(crate) road_block: usize,
    pub(crate) kind: LaneKind,
    /// Resampled.
    pub(crate) centerline: Vec<Pose>,
    /// Of the resampled centre line, metres.
    pub(crate) length: f64,
    /// Left boundary and reversed right boundary.
    pub(crate) polygon: Polygon<f64>,
    pub(crate) samples: Arc<PolygonSamples>,
    pub(crate) speed_limit: Option<f64>,
    /// Positions in [`Map::lanes`], in the order given, each once.
    pub(crate) successors: Vec<usize>,
}

/// A crosswalk with what follows from its description.
#[derive(Debug)]
pub(crate) struct MapCrosswalk {
    pub(crate) polygon: Polygon<f64>,
    pub(crate) samples: Arc<PolygonSamples>,
}

/// Lanes side by side.
#[derive(Debug)]
pub(crate) struct RoadBlock {
    /// Number: lanes, crosswalks and road-blocks are numbered from 1 through the whole map.
    pub(crate) number: i32,
    /// What its first lane is.
    pub(crate) kind: LaneKind,
    /// Positions in [`Map::lanes`].
    pub(crate) lanes: Vec<usize>,
    /// Road-blocks that follow.
    pub(crate) outgoing: Vec<usize>,
    /// Road-blocks before it.
    pub(crate) incoming: Vec<usize>,
}

/// A validated map with everything that does not depend on a scenario: resampled centre lines, lane polygons, the
/// road-block graph and a spatial index. Built once, shared by all scenarios and threads.
#[derive(Debug)]
pub struct Map {
    name: String,
    pub(crate) lanes: Vec<MapLane>,
    pub(crate) crosswalks: Vec<MapCrosswalk>,
    pub(crate) road_blocks: Vec<RoadBlock>,
    pub(crate) lane_index: PolygonIndex,
    lane_by_id: HashMap<String, usize>,
    road_block_by_id: HashMap<String, usize>,
    crosswalk_index: PolygonIndex,
    skipped: Vec<(String, String)>,
}

impl Map {
    /// Checks and indexes a map. `name` appears in errors. Successors that the map does not hold are ignored.
    ///
    /// # Errors
    /// Non-finite coordinates, ids that are empty or used twice. A lane or crosswalk of zero length or too few points is
    /// left out and named in [`Map::skipped`].
    pub fn new(name: &str, lanes: Vec<Lane>, crosswalks: Vec<Crosswalk>) -> Result<Self> {
        check(&lanes, &crosswalks).map_err(|reason| Error::scenario(name, Rejection::BadMap, reason))?;
        let mut skipped = Vec::new();
        let supplied = lanes.len() + crosswalks.len();

        let mut map_lanes: Vec<MapLane> = Vec::with_capacity(lanes.len());
        let mut kept_lanes = Vec::with_capacity(lanes.len());
        let mut road_blocks: Vec<RoadBlock> = Vec::new();
        let mut road_block_by_id = HashMap::new();
        for lane in lanes {
            let position = map_lanes.len();
            let road_block = road_block_by_id.get(&lane.roadblock_id).copied().unwrap_or(road_blocks.len());
            match build_lane(&lane, road_block) {
                Ok(built) => map_lanes.push(built),
                Err(reason) => {
                    skipped.push((lane.id, reason));
                    continue;
                }
            }
            if road_block == road_blocks.len() {
                road_block_by_id.insert(lane.roadblock_id.clone(), road_block);
                let number = i32::try_from(supplied + road_block + 1).unwrap_or(i32::MAX);
                road_blocks.push(RoadBlock { number, kind: lane.kind, lanes: Vec::new(), outgoing: Vec::new(), incoming: Vec::new() });
            }
            road_blocks[road_block].lanes.push(position);
            kept_lanes.push(lane);
        }
        let lane_by_id: HashMap<String, usize> = kept_lanes.iter().enumerate().map(|(i, lane)| (lane.id.clone(), i)).collect();
        for (i, lane) in kept_lanes.iter().enumerate() {
            for successor in lane.successors.iter().filter_map(|id| lane_by_id.get(id).copied()) {
                if !map_lanes[i].successors.contains(&successor) {
                    map_lanes[i].successors.push(successor);
                }
                let (from, to) = (map_lanes[i].road_block, map_lanes[successor].road_block);
                if from != to && !road_blocks[from].outgoing.contains(&to) {
                    road_blocks[from].outgoing.push(to);
                    road_blocks[to].incoming.push(from);
                }
            }
        }

        let mut map_crosswalks = Vec::with_capacity(crosswalks.len());
        for crosswalk in crosswalks {
            match build_crosswalk(&crosswalk) {
                Some(built) => map_crosswalks.push(built),
                None => skipped.push((crosswalk.id, "the crosswalk's polygon has no area".into())),
            }
        }
        Ok(Self {
            name: name.into(),
            lane_index: PolygonIndex::new(map_lanes.iter().map(|lane| &lane.polygon)),
            crosswalk_index: PolygonIndex::new(map_crosswalks.iter().map(|crosswalk| &crosswalk.polygon)),
            lanes: map_lanes,
            crosswalks: map_crosswalks,
            road_blocks,
            lane_by_id,
            road_block_by_id,
            skipped,
        })
    }

    /// The name given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lanes and crosswalks that were left out: id and reason.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// True if a road-block of this id has a lane.
    pub fn has_road_block(&self, id: &str) -> bool {
        self.road_block_by_id.contains_key(id)
    }

    /// True if there is a lane of this id.
    pub fn has_lane(&self, id: &str) -> bool {
        self.lane_by_id.contains_key(id)
    }

    pub(crate) fn road_block(&self, id: &str) -> Option<usize> {
        self.road_block_by_id.get(id).copied()
    }

    pub(crate) fn lane(&self, id: &str) -> Option<usize> {
        self.lane_by_id.get(id).copied()
    }

    /// Lanes, then connectors, whose polygon meets the closed axis-aligned square around `center`.
    pub(crate) fn lanes_in_square(&self, center: Point, half: f64) -> Vec<usize> {
        let found = self.lane_index.in_square(center, half, |i| &self.lanes[i].polygon);
        let (mut lanes, connectors): (Vec<_>, Vec<_>) = found.into_iter().partition(|&i| self.lanes[i].kind == LaneKind::Lane);
        lanes.extend(connectors);
        lanes
    }

    /// Crosswalks whose polygon meets the closed axis-aligned square around `center`.
    pub(crate) fn crosswalks_in_square(&self, center: Point, half: f64) -> Vec<usize> {
        self.crosswalk_index.in_square(center, half, |i| &self.crosswalks[i].polygon)
    }

    /// Plain road-blocks, then those of connectors, with a lane that meets the square.
    pub(crate) fn road_blocks_in_square(&self, center: Point, half: f64) -> Vec<usize> {
        let found = self.lane_index.in_square(center, half, |i| &self.lanes[i].polygon);
        let mut road_blocks: Vec<usize> = found.into_iter().map(|i| self.lanes[i].road_block).collect();
        road_blocks.sort_unstable_by_key(|&r| (self.road_blocks[r].kind == LaneKind::Connector, r));
        road_blocks.dedup();
        road_blocks
    }

    /// The road-block of a kind that is nearest to a point, the first of equals.
    pub(crate) fn nearest_road_block(&self, point: Point, kind: LaneKind) -> Option<usize> {
        let point = geo::Point::from(point);
        let mut best: Option<(f64, usize)> = None;
        for (r, road_block) in self.road_blocks.iter().enumerate().filter(|(_, road_block)| road_block.kind == kind) {
            for &lane in &road_block.lanes {
                let distance = Euclidean.distance(&point, &self.lanes[lane].polygon);
                if best.is_none_or(|(least, _)| distance < least) {
                    best = Some((distance, r));
                }
            }
        }
        best.map(|(_, r)| r)
    }
}

/// Ids and numbers; the message names the object, the field and the index.
fn check(lanes: &[Lane], crosswalks: &[Crosswalk]) -> std::result::Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    let mut unique = |what: &str, i: usize, id: &str| {
        if id.is_empty() {
            Err(format!("{what}[{i}].id is empty"))
        } else if !seen.insert(id.to_string()) {
            Err(format!("{what}[{i}].id '{id}' is used twice"))
        } else {
            Ok(())
        }
    };
    let coordinates = |what: &str, id: &str, field: &str, points: &[Point]| {
        for (i, point) in points.iter().enumerate() {
            for (value, axis) in point.iter().zip(["x", "y"]) {
                if !value.is_finite() {
                    return Err(format!("{what} '{id}': {field}[{i}].{axis} is not finite"));
                }
                if value.abs() > MAX_COORDINATE {
                    return Err(format!("{what} '{id}': {field}[{i}].{axis} = {value} is beyond {MAX_COORDINATE:e} m"));
                }
            }
        }
        Ok(())
    };
    for (i, lane) in lanes.iter().enumerate() {
        unique("lanes", i, &lane.id)?;
        if lane.roadblock_id.is_empty() {
            return Err(format!("lane '{}': roadblock_id is empty", lane.id));
        }
        for (field, points) in [("centerline", &lane.centerline), ("left", &lane.left), ("right", &lane.right)] {
            coordinates("lane", &lane.id, field, points)?;
        }
        if let Some(limit) = lane.speed_limit
            && !(limit.is_finite() && limit >= 0.0)
        {
            return Err(format!("lane '{}': speed_limit {limit} is not a speed", lane.id));
        }
    }
    for (i, crosswalk) in crosswalks.iter().enumerate() {
        unique("crosswalks", i, &crosswalk.id)?;
        coordinates("crosswalk", &crosswalk.id, "polygon", &crosswalk.polygon)?;
    }
    Ok(())
}

fn build_lane(lane: &Lane, road_block: usize) -> std::result::Result<MapLane, String> {
    for (field, points) in [("centerline", &lane.centerline), ("left", &lane.left), ("right", &lane.right)] {
        if points.len() < 2 {
            return Err(format!("{field} has fewer than 2 points"));
        }
        if geometry::length(points) > MAX_LANE_LENGTH {
            return Err(format!("{field} is longer than {MAX_LANE_LENGTH:e} m"));
        }
    }
    let centerline = geometry::resample(&lane.centerline, CENTERLINE_SPACING);
    let sample = |field: &str, line: &[Point]| geometry::sample_equal_arc(line).ok_or_else(|| format!("{field} has zero length"));
    let samples = [sample("centerline", &centerline)?, sample("left", &lane.left)?, sample("right", &lane.right)?];
    let outline: Vec<Point> = lane.left.iter().chain(lane.right.iter().rev()).copied().collect();
    Ok(MapLane {
        road_block,
        kind: lane.kind,
        length: geometry::length(&centerline),
        centerline: geometry::with_headings(&centerline),
        polygon: geometry::polygon(&outline),
        samples: Arc::new(PolygonSamples::new(&samples)),
        speed_limit: lane.speed_limit,
        successors: Vec::new(),
    })
}

/// Left edge, right edge and the line between them, of the smallest rectangle around the outline.
fn build_crosswalk(crosswalk: &Crosswalk) -> Option<MapCrosswalk> {
    let corners = geometry::minimum_rectangle(&crosswalk.polygon)?;
    let right = [corners[3], corners[0]];
    let left = [corners[2], corners[1]];
    let center = [0, 1].map(|i| [(right[i][0] + left[i][0]) / 2.0, (right[i][1] + left[i][1]) / 2.0]);
    let points = [center, left, right].map(|[start, end]| {
        std::array::from_fn(|i| {
            let t = i as f64 / (EQUAL_ARC_POINTS - 1) as f64;
            [start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t]
        })
    });
    Some(MapCrosswalk { polygon: geometry::polygon(&crosswalk.polygon), samples: Arc::new(PolygonSamples::new(&points)) })
}
