//! The road map: lanes, lane connectors and crosswalks, and what can be computed from them once for all scenarios.

use crate::error::Result;

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

/// A validated map with everything that does not depend on a scenario: resampled centre lines, lane polygons, the
/// road-block graph and a spatial index. Built once, shared by all scenarios and threads.
#[derive(Debug)]
pub struct Map {}

impl Map {
    /// Checks and indexes a map. `name` appears in errors.
    ///
    /// # Errors
    /// Non-finite coordinates, ids that are empty or used twice. A lane or crosswalk of zero length or too few points is
    /// left out and named in [`Map::skipped`].
    pub fn new(name: &str, lanes: Vec<Lane>, crosswalks: Vec<Crosswalk>) -> Result<Self> {
        let _ = (name, lanes, crosswalks);
        Ok(Self {})
    }
}
