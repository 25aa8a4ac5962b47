//! The ego's and the agents' tracks.

use super::AgentFeatures;
use super::ego::{EgoTrack, PRESENT};
use super::normalise::EgoFrame;
use crate::scenario::geometry::distance;
use crate::scenario::{AgentKind, FUTURE_STEPS, HISTORY_STEPS, Scenario};

/// Positions of the agents that are present, vehicles before pedestrians before bicycles: the order in which lists of agents
/// are walked.
pub(crate) fn present(scenario: &Scenario) -> Vec<usize> {
    let mut agents = Vec::with_capacity(scenario.agents.len());
    for kind in [AgentKind::Vehicle, AgentKind::Pedestrian, AgentKind::Bicycle] {
        let of_kind = scenario.agents.iter().enumerate().filter(|(_, agent)| agent.kind == kind && agent.states[PRESENT].valid);
        agents.extend(of_kind.map(|(i, _)| i));
    }
    agents
}

/// The `limit` nearest of the present agents, nearest first; equally near ones keep their order.
pub(crate) fn nearest(scenario: &Scenario, ego: &EgoTrack, present: &[usize], limit: usize) -> Vec<usize> {
    let mut ranked: Vec<(f64, usize)> = present
        .iter()
        .map(|&i| {
            let state = &scenario.agents[i].states[PRESENT];
            (distance([state.x, state.y], ego.center[PRESENT]), i)
        })
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    ranked.truncate(limit);
    ranked.into_iter().map(|(_, i)| i).collect()
}

/// Row 0 is the ego (its rear axle), then the selected agents. `ego_future_valid` `[80]` says which of the ego's future steps
/// may be learnt from.
pub(crate) fn build(scenario: &Scenario, ego: &EgoTrack, selected: &[usize], frame: &EgoFrame, ego_future_valid: &[bool]) -> AgentFeatures {
    let steps = scenario.ego.len();
    let count = selected.len() + 1;
    let mut features = AgentFeatures {
        count,
        steps,
        position: vec![0.0; count * steps * 2],
        heading: vec![0.0; count * steps],
        velocity: vec![0.0; count * steps * 2],
        shape: vec![0.0; count * steps * 2],
        category: Vec::with_capacity(count),
        valid: vec![false; count * steps],
        target: Vec::new(),
    };
    let mut write = |row: usize, step: usize, position, heading, velocity, shape: [f64; 2]| {
        let at = row * steps + step;
        features.position[2 * at..2 * at + 2].copy_from_slice(&frame.position(position));
        features.heading[at] = frame.heading(heading);
        features.velocity[2 * at..2 * at + 2].copy_from_slice(&frame.vector(velocity));
        features.shape[2 * at..2 * at + 2].copy_from_slice(&shape);
        features.valid[at] = true;
    };
    let ego_shape = [scenario.vehicle.width, scenario.vehicle.length()];
    for step in 0..steps {
        if step < HISTORY_STEPS || ego_future_valid[step - HISTORY_STEPS] {
            write(0, step, ego.rear_axle[step], ego.heading[step], ego.velocity[step], ego_shape);
        }
    }
    for (row, &agent) in (1..).zip(selected) {
        for (step, s) in scenario.agents[agent].states.iter().enumerate().filter(|(_, s)| s.valid) {
            write(row, step, [s.x, s.y], s.heading, [s.vx, s.vy], [s.width, s.length]);
        }
    }
    features.category.push(0);
    features.category.extend(selected.iter().map(|&agent| scenario.agents[agent].kind as i8));
    if scenario.has_future() {
        features.target = target(&features);
    }
    features
}

/// `[A, 80, 3]`: displacement and turn since the present step, 0 where the step is not valid.
pub(crate) fn target(agents: &AgentFeatures) -> Vec<f64> {
    let mut target = Vec::with_capacity(agents.count * FUTURE_STEPS * 3);
    for row in 0..agents.count {
        let present = row * agents.steps + PRESENT;
        for at in present + 1..=present + FUTURE_STEPS {
            target.extend(if agents.valid[at] {
                [
                    agents.position[2 * at] - agents.position[2 * present],
                    agents.position[2 * at + 1] - agents.position[2 * present + 1],
                    agents.heading[at] - agents.heading[present],
                ]
            } else {
                [0.0; 3]
            });
        }
    }
    target
}
