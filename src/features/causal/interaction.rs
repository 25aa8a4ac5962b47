//! Who passes first where the ego's and an agent's futures cross.

use super::CausalInput;
use crate::scenario::geometry::{self, Point, distance};
use crate::scenario::{AgentState, HISTORY_STEPS};
use geo::Intersects;

/// Futures that stay farther apart than this, metres, do not interact.
const CLOSE: f64 = 4.0;
/// From the rear axle to the box centre as the published labels assume it; elsewhere the vehicle's own figure is used.
const LABEL_REAR_AXLE_TO_CENTER: f64 = 1.67;

/// `[A]`: where the boxes touch at the futures' nearest points, the ego's step less the agent's (positive: the agent passes
/// first), else 0. Distances are exact, unlike the published matrix product of global coordinates.
pub(crate) fn labels(input: &CausalInput) -> Vec<f64> {
    let ego = &input.ego.rear_axle[HISTORY_STEPS..];
    let mut labels = vec![0.0];
    labels.extend(input.selected.iter().map(|&agent| {
        let states = &input.scenario.agents[agent].states[HISTORY_STEPS..];
        match nearest_steps(states, ego) {
            Some((agent_step, ego_step)) if touch(input, &states[agent_step], HISTORY_STEPS + ego_step) => {
                ego_step as f64 - agent_step as f64
            }
            _ => 0.0,
        }
    }));
    labels
}

/// The agent's and the ego's step between which the distance is least, the first of equals; `None` if that is not close.
fn nearest_steps(states: &[AgentState], ego: &[Point]) -> Option<(usize, usize)> {
    let (mut best, mut steps) = (CLOSE * CLOSE, None);
    for (a, state) in states.iter().enumerate().filter(|(_, state)| state.valid) {
        for (e, point) in ego.iter().enumerate() {
            let (dx, dy) = (state.x - point[0], state.y - point[1]);
            let squared = dx * dx + dy * dy;
            if squared < best {
                (best, steps) = (squared, Some((a, e)));
            }
        }
    }
    steps
}

fn touch(input: &CausalInput, agent: &AgentState, step: usize) -> bool {
    let heading = input.ego.heading[step];
    let (sin, cos) = heading.sin_cos();
    let rear_axle = input.ego.rear_axle[step];
    let center = [rear_axle[0] + LABEL_REAR_AXLE_TO_CENTER * cos, rear_axle[1] + LABEL_REAR_AXLE_TO_CENTER * sin];
    let (width, length) = (input.scenario.vehicle.width, input.scenario.vehicle.length());
    let reach = (agent.width.hypot(agent.length) + width.hypot(length)) / 2.0;
    distance([agent.x, agent.y], center) < reach
        && geometry::polygon(&geometry::box_corners([agent.x, agent.y], agent.heading, agent.width, agent.length))
            .intersects(&geometry::polygon(&geometry::box_corners(center, heading, width, length)))
}
