//! The ego's track and its state at the present step.

use crate::scenario::geometry::{Point, wrap_angle};
use crate::scenario::{HISTORY_STEPS, STEP_SECONDS, Scenario};
use std::f64::consts::PI;

/// Position of the present among the steps.
pub(crate) const PRESENT: usize = HISTORY_STEPS - 1;
/// Below this speed, metres a second, steering and yaw rate are taken as 0.
const STANDING_SPEED: f64 = 0.2;
/// Radians a second.
const MAX_YAW_RATE: f64 = 0.95;

/// The ego at every step, global frame.
#[derive(Debug)]
pub(crate) struct EgoTrack {
    pub(crate) rear_axle: Vec<Point>,
    pub(crate) center: Vec<Point>,
    pub(crate) heading: Vec<f64>,
    pub(crate) velocity: Vec<Point>,
    /// Forward and left at the present step, metres a second.
    pub(crate) local_velocity: Point,
}

impl EgoTrack {
    /// The rear axle is derived back from the centre, and the global velocity from the local one, as in the published data set:
    /// this rounds the last bit.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let states = scenario.ego.iter().map(|s| [s.x, s.y, s.heading, s.vx, s.vy]);
        Self::of(states, scenario.vehicle.rear_axle_to_center())
    }

    /// The track of states (x, y, heading, two of velocity), whose box centre is `offset` before the rear axle.
    pub(crate) fn of(states: impl ExactSizeIterator<Item = [f64; 5]>, offset: f64) -> Self {
        let steps = states.len();
        let mut track = Self {
            rear_axle: Vec::with_capacity(steps),
            center: Vec::with_capacity(steps),
            heading: Vec::with_capacity(steps),
            velocity: Vec::with_capacity(steps),
            local_velocity: [0.0; 2],
        };
        for (step, [x, y, heading, vx, vy]) in states.enumerate() {
            let (sin, cos) = heading.sin_cos();
            let center = [x + offset * cos, y + offset * sin];
            let local = [cos * vx + sin * vy, -sin * vx + cos * vy];
            track.center.push(center);
            track.rear_axle.push([center[0] - offset * cos, center[1] - offset * sin]);
            track.heading.push(heading);
            track.velocity.push([local[0] * cos - local[1] * sin, local[0] * sin + local[1] * cos]);
            if step == PRESENT {
                track.local_velocity = local;
            }
        }
        track
    }
}

/// x, y, heading (0: the ego frame starts here), velocity, acceleration, steering angle, yaw rate.
pub(crate) fn current_state(scenario: &Scenario, ego: &EgoTrack) -> [f64; 7] {
    let state = &scenario.ego[PRESENT];
    let (sin, cos) = state.heading.sin_cos();
    let speed = ego.local_velocity[0];
    let acceleration = cos * state.ax + sin * state.ay;
    let (mut steering, mut yaw_rate) = (0.0, 0.0);
    if speed.abs() >= STANDING_SPEED {
        yaw_rate = wrap_angle(ego.heading[PRESENT] - ego.heading[PRESENT - 1]) / STEP_SECONDS;
        let limit = 2.0 / 3.0 * PI;
        steering = (yaw_rate * scenario.vehicle.wheel_base / speed.abs()).atan().clamp(-limit, limit);
        yaw_rate = yaw_rate.clamp(-MAX_YAW_RATE, MAX_YAW_RATE);
    }
    [0.0, 0.0, 0.0, speed, acceleration, steering, yaw_rate]
}
