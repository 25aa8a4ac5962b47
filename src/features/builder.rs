//! Puts the groups of features together.

use super::agents::Tracks;
use super::causal::{self, CausalInput};
use super::ego::{self, EgoTrack, PRESENT};
use super::normalise::EgoFrame;
use super::{CostMap, Features, agents, cost_map, map_polygons, reference_lines, route, static_objects, validity};
use crate::error::{Error, Result};
use crate::scenario::{LightState, Scenario};

/// Builds features; one value serves all threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureBuilder {
    /// Metres around the ego from which map and static objects are taken, and length of reference lines (a point a metre).
    pub radius: f64,
    /// Agents at most, the nearest; the ego not counted.
    pub max_agents: usize,
    /// Whether to draw the cost map, which takes most of the time.
    pub cost_map: bool,
}

impl Default for FeatureBuilder {
    fn default() -> Self {
        Self { radius: 120.0, max_agents: 48, cost_map: true }
    }
}

impl FeatureBuilder {
    /// Features of a scenario that can be learnt from or predicted on. Without a future there are neither targets nor a cost
    /// map, future projection and interaction labels.
    ///
    /// # Errors
    /// [`crate::error::Error::Scenario`] if the scenario breaks a rule ([`Scenario::validate`]), a feature is not finite or not
    /// sane, or there is no valid reference line.
    pub fn build(&self, scenario: &Scenario) -> Result<Features> {
        let features = self.assemble(scenario)?;
        validity::check(&features)?;
        Ok(features)
    }

    /// Positions in [`Scenario::agents`] of the agents in rows 1.. of the features.
    ///
    /// # Errors
    /// See [`Scenario::validate`].
    pub fn agents(&self, scenario: &Scenario) -> Result<Vec<usize>> {
        scenario.validate()?;
        Ok(agents::nearest(scenario, &EgoTrack::new(scenario), &agents::present(scenario), self.max_agents))
    }

    /// As [`Self::build`], but without the last check: there may be no reference line.
    ///
    /// # Errors
    /// See [`Scenario::validate`]; [`Error::Argument`] for a radius that is not between 1 and 1000 m.
    pub fn assemble(&self, scenario: &Scenario) -> Result<Features> {
        if !(1.0..=1000.0).contains(&self.radius) {
            return Err(Error::Argument(format!("a radius of {} m is not between 1 and 1000 m", self.radius)));
        }
        scenario.validate()?;
        let map = &*scenario.map;
        let track = EgoTrack::new(scenario);
        let center = track.center[PRESENT];
        let frame = EgoFrame::new(track.rear_axle[PRESENT], track.heading[PRESENT]);

        let route = route::corrected(scenario, &track);
        let mut on_route = vec![false; map.road_blocks.len()];
        route.iter().for_each(|&road_block| on_route[road_block] = true);
        let mut lights = vec![LightState::Unknown; map.lanes.len()];
        for light in &scenario.lights {
            if let Some(lane) = map.lane(&light.lane_id) {
                lights[lane] = light.state;
            }
        }
        let present = agents::present(scenario);
        let selected = agents::nearest(scenario, &track, &present, self.max_agents);
        let drivable = static_objects::drivable_lanes(map, center);

        let map_rows = map_polygons::rows(map, center, self.radius, &frame);
        let polygons = map_polygons::polygons(map, &map_rows, &on_route, &lights);
        let causal = causal::build(&CausalInput {
            scenario,
            ego: &track,
            frame: &frame,
            route: &route,
            drivable: &drivable,
            lights: &lights,
            present: &present,
            selected: &selected,
            map_rows: &map_rows,
        });
        let cost_map = if self.cost_map && scenario.has_future() {
            let mask = cost_map::drivable_mask(scenario, &track, &selected, &frame);
            Some(CostMap::from_mask(&mask, cost_map::SIZE)?)
        } else {
            None
        };
        Ok(Features {
            token: scenario.token.clone(),
            scenario_type: scenario.scenario_type.clone(),
            origin: frame.origin,
            angle: frame.angle,
            current_state: ego::current_state(scenario, &track),
            rear_axle_to_center: scenario.vehicle.rear_axle_to_center(),
            agents: agents::build(
                &track,
                [scenario.vehicle.width, scenario.vehicle.length()],
                &Tracks::of(scenario, &selected),
                &frame,
                &causal.ego_future_valid,
            ),
            map: map_polygons::build(&polygons, self.radius, &frame),
            static_objects: static_objects::build(scenario, center, &drivable, self.radius, &frame),
            reference_lines: reference_lines::build(map, &track, &on_route, self.radius, &frame),
            cost_map,
            causal,
        })
    }
}
