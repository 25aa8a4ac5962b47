//! Features before they are put together: what the host gave, in its own frame, and what took the builder its time to find.
//! Much smaller than the features and made into them, bit for bit, in a fraction of the time: what a cache keeps.

use super::agents::{self, QUANTITIES, Tracks};
use super::ego::{EgoTrack, PRESENT};
use super::map_polygons::{self, MapRow, Polygon};
use super::normalise::EgoFrame;
use super::{CausalFeatures, CostMap, Features, ReferenceLineFeatures, StaticFeatures};
use crate::error::{Error, Rejection, Result};
use crate::scenario::{HISTORY_STEPS, Scenario, TOTAL_STEPS};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blueprint {
    /// Width, length, rear axle to box centre.
    pub(crate) vehicle: [f64; 3],
    pub(crate) current_state: [f64; 7],
    /// x, y, heading, two of velocity at each step, as the host gave them.
    pub(crate) ego: Vec<[f64; 5]>,
    pub(crate) tracks: Tracks,
    pub(crate) polygons: Vec<Polygon>,
    pub(crate) static_objects: StaticFeatures,
    pub(crate) reference_lines: ReferenceLineFeatures,
    pub(crate) causal: CausalFeatures,
    /// Rows and columns of the cost map and its drivable pixels, row-major zeros and ones.
    pub(crate) mask: Option<(usize, Vec<u8>)>,
}

impl Blueprint {
    /// From a scenario and the features that a builder of this `radius` and number of agents made of it.
    pub(crate) fn of(scenario: &Scenario, features: &Features, radius: f64) -> Self {
        let (vehicle, map) = (&scenario.vehicle, &features.map);
        let track = EgoTrack::new(scenario);
        let frame = EgoFrame::new(track.rear_axle[PRESENT], track.heading[PRESENT]);
        let selected = agents::nearest(scenario, &track, &agents::present(scenario), features.agents.count - 1);
        let rows = map_polygons::rows(&scenario.map, track.center[PRESENT], radius, &frame);
        let polygon = |(i, row): (usize, &MapRow)| Polygon {
            samples: map_polygons::samples(&scenario.map, *row).clone(),
            kind: map.polygon_type[i],
            on_route: map.polygon_on_route[i],
            light: map.polygon_light[i],
            speed_limit: map.polygon_has_speed_limit[i].then_some(map.polygon_speed_limit[i]),
            road_block: map.polygon_road_block[i],
        };
        Self {
            vehicle: [vehicle.width, vehicle.length(), vehicle.rear_axle_to_center()],
            current_state: features.current_state,
            ego: scenario.ego.iter().map(|s| [s.x, s.y, s.heading, s.vx, s.vy]).collect(),
            tracks: Tracks::of(scenario, &selected),
            polygons: rows.iter().take(map.count).enumerate().map(polygon).collect(),
            static_objects: features.static_objects.clone(),
            reference_lines: features.reference_lines.clone(),
            causal: features.causal.clone(),
            mask: features.cost_map.as_ref().map(|map| (map.size, map.values.iter().map(|&v| u8::from(v > 0.0)).collect())),
        }
    }

    /// The features; without their cost map if `cost_map` is false.
    ///
    /// # Errors
    /// [`Error::Scenario`] if counts contradict each other, which only a blueprint has that was not made by [`Self::of`].
    pub(crate) fn features(self, token: &str, scenario_type: &str, radius: f64, cost_map: bool) -> Result<Features> {
        let steps = self.ego.len();
        let future = steps - HISTORY_STEPS.min(steps);
        let tracks = self.tracks.kinds.len() * steps;
        let sound = (steps == HISTORY_STEPS || steps == TOTAL_STEPS)
            && self.causal.ego_future_valid.len() == future
            && self.tracks.valid.len() == tracks
            && self.tracks.values.len() == QUANTITIES * self.tracks.valid.iter().filter(|&&v| v).count();
        if !sound {
            return Err(Error::scenario(token, Rejection::Unreadable, "counts contradict each other"));
        }
        let [width, length, rear_axle_to_center] = self.vehicle;
        let track = EgoTrack::of(self.ego.iter().copied(), rear_axle_to_center);
        let frame = EgoFrame::new(track.rear_axle[PRESENT], track.heading[PRESENT]);
        let mask = self.mask.filter(|_| cost_map);
        Ok(Features {
            token: token.to_owned(),
            scenario_type: scenario_type.to_owned(),
            origin: frame.origin,
            angle: frame.angle,
            current_state: self.current_state,
            rear_axle_to_center,
            agents: agents::build(&track, [width, length], &self.tracks, &frame, &self.causal.ego_future_valid),
            map: map_polygons::build(&self.polygons, radius, &frame),
            static_objects: self.static_objects,
            reference_lines: self.reference_lines,
            cost_map: mask.map(|(size, mask)| CostMap::from_mask(&mask, size)).transpose()?,
            causal: self.causal,
        })
    }
}
