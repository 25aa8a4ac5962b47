//! Maps: built once from the host's description, then shared by every scenario that names them.

use super::{
    guard::{c_string, guard},
    handle::{self, Opaque},
    read::{Reading, array, name, names, structure, structures},
    status::{Failure, TE_INVALID_SCENARIO, TeStatus},
    types::*,
};
use crate::{
    error::Error,
    scenario::{Crosswalk, Lane, LaneKind, Map},
};
use std::{
    ffi::{CString, c_char},
    sync::Arc,
};

const LANE_LIMIT: usize = 10_000_000;
const POINT_LIMIT: usize = 10_000_000;
const SUCCESSOR_LIMIT: usize = 10_000;

/// A checked and indexed map, shared by the scenarios that name it and safe to use from any thread.
pub struct TeMap {
    _private: (),
}

/// What a [`TeMap`] holds.
pub struct MapHandle {
    /// Shared with the scenarios that name it.
    pub map: Arc<Map>,
    skipped: CString,
}

impl Opaque for TeMap {
    type Inner = MapHandle;
    const MARK: u64 = u64::from_le_bytes(*b"te_map\0\0");
    const NAME: &'static str = "map";
}

/// Checks and indexes a map; everything is copied. May be called in a callback.
///
/// Non-finite coordinates and ids that are empty or used twice are errors; a lane or crosswalk of zero length or too few points
/// is left out and named by `te_map_skipped`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_map_new(description: *const TeMapDescription, map: *mut *mut TeMap) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        if map.is_null() {
            return Err(Failure::argument("map is null"));
        }
        let description = structure(description, "description").map_err(Failure::argument)?;
        let label = name(description.name, "description.name").map_err(Failure::argument)?;
        let complain = |reason: String| Failure::new(TE_INVALID_SCENARIO, format!("map '{label}': {reason}"));
        let (lanes, crosswalks) = read_map(&description).map_err(complain)?;
        let built = Map::new(&label, lanes, crosswalks).map_err(|error| match error {
            Error::Scenario { reason, .. } => complain(reason),
            error => error.into(),
        })?;
        let skipped: String = built.skipped().iter().map(|(id, reason)| format!("{id}: {reason}\n")).collect();
        map.write(handle::create(MapHandle { map: Arc::new(built), skipped: c_string(&skipped) }));
        Ok(())
    })
}

/// The lanes and crosswalks that were left out, one a line with the reason; empty if none was. The text lives as long as the map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_map_skipped(map: *const TeMap, text: *mut *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let inner = handle::borrow(map)?;
        if text.is_null() {
            return Err(Failure::argument("text is null"));
        }
        text.write(inner.skipped.as_ptr());
        Ok(())
    })
}

/// Gives the host's share of a map back; null is allowed. Scenarios that were read keep theirs. May be called in a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_map_free(map: *mut TeMap) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe { handle::take(map) }.map(drop))
}

unsafe fn read_map(description: &TeMapDescription) -> Reading<(Vec<Lane>, Vec<Crosswalk>)> {
    // SAFETY: passed on to the caller.
    unsafe {
        let lanes = structures(description.lanes, description.lane_count, LANE_LIMIT, "lanes")?;
        let crosswalks = structures(description.crosswalks, description.crosswalk_count, LANE_LIMIT, "crosswalks")?;
        let lanes = lanes.iter().enumerate().map(|(i, lane)| read_lane(lane, &format!("lanes[{i}]"))).collect::<Reading<_>>()?;
        let crosswalks =
            crosswalks.iter().enumerate().map(|(i, c)| read_crosswalk(c, &format!("crosswalks[{i}]"))).collect::<Reading<_>>()?;
        Ok((lanes, crosswalks))
    }
}

unsafe fn read_lane(lane: &TeLane, field: &str) -> Reading<Lane> {
    let kind = match lane.kind {
        TE_LANE => LaneKind::Lane,
        TE_LANE_CONNECTOR => LaneKind::Connector,
        other => return Err(format!("{field}.kind is {other}, no TE_LANE value")),
    };
    // SAFETY: passed on to the caller.
    unsafe {
        Ok(Lane {
            id: name(lane.id, &format!("{field}.id"))?,
            roadblock_id: name(lane.roadblock_id, &format!("{field}.roadblock_id"))?,
            kind,
            centerline: points(lane.centerline, lane.centerline_count, &format!("{field}.centerline"))?,
            left: points(lane.left, lane.left_count, &format!("{field}.left"))?,
            right: points(lane.right, lane.right_count, &format!("{field}.right"))?,
            successors: names(lane.successors, lane.successor_count, SUCCESSOR_LIMIT, &format!("{field}.successors"))?,
            speed_limit: (lane.has_speed_limit != 0).then_some(lane.speed_limit),
        })
    }
}

unsafe fn read_crosswalk(crosswalk: &TeCrosswalk, field: &str) -> Reading<Crosswalk> {
    // SAFETY: passed on to the caller.
    unsafe {
        Ok(Crosswalk {
            id: name(crosswalk.id, &format!("{field}.id"))?,
            polygon: points(crosswalk.polygon, crosswalk.polygon_count, &format!("{field}.polygon"))?,
        })
    }
}

unsafe fn points(pointer: *const TePoint, count: usize, field: &str) -> Reading<Vec<[f64; 2]>> {
    // SAFETY: passed on to the caller.
    Ok(unsafe { array(pointer, count, POINT_LIMIT, field) }?.iter().map(|point| [point.x, point.y]).collect())
}
