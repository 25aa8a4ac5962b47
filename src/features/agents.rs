//! The ego's and the agents' tracks.

use super::AgentFeatures;
use super::ego::{EgoTrack, PRESENT};
use super::normalise::EgoFrame;
use crate::scenario::geometry::distance;
use crate::scenario::{AgentKind, AgentState, FUTURE_STEPS, HISTORY_STEPS, Scenario};

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

/// Quantities of a [`Tracks`] step.
pub(crate) const QUANTITIES: usize = 7;

/// Tracks of the agents in rows 1.. as the host gave them: global frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracks {
    /// `[A - 1]`: 1 vehicle, 2 pedestrian, 3 bicycle.
    pub(crate) kinds: Vec<i8>,
    /// `[A - 1, N]`.
    pub(crate) valid: Vec<bool>,
    /// Row by row x, y, heading, two of velocity, width and length: of each quantity a number for every valid step.
    pub(crate) values: Vec<f64>,
}

impl Tracks {
    /// The tracks of selected agents.
    pub(crate) fn of(scenario: &Scenario, selected: &[usize]) -> Self {
        let mut tracks = Self::default();
        for agent in selected.iter().map(|&agent| &scenario.agents[agent]) {
            tracks.kinds.push(agent.kind as i8);
            tracks.valid.extend(agent.states.iter().map(|s| s.valid));
            let quantities: [fn(&AgentState) -> f64; QUANTITIES] =
                [|s| s.x, |s| s.y, |s| s.heading, |s| s.vx, |s| s.vy, |s| s.width, |s| s.length];
            for quantity in quantities {
                tracks.values.extend(agent.states.iter().filter(|s| s.valid).map(quantity));
            }
        }
        tracks
    }

    /// Each row's flags and numbers; `steps` is N.
    pub(crate) fn rows(&self, steps: usize) -> impl Iterator<Item = (&[bool], &[f64])> {
        let mut rest = &self.values[..];
        self.valid.chunks(steps).map(move |valid| {
            let (values, others) = rest.split_at(QUANTITIES * valid.iter().filter(|&&v| v).count());
            rest = others;
            (valid, values)
        })
    }
}

/// Row 0 is the ego (its rear axle), then the tracks. `ego_future_valid` `[80]` says which of the ego's future steps may be learnt
/// from.
pub(crate) fn build(ego: &EgoTrack, ego_shape: [f64; 2], tracks: &Tracks, frame: &EgoFrame, ego_future_valid: &[bool]) -> AgentFeatures {
    let steps = ego.heading.len();
    let count = tracks.kinds.len() + 1;
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
    let mut write = |at: usize, position, heading, velocity, shape: [f64; 2]| {
        features.position[2 * at..2 * at + 2].copy_from_slice(&frame.position(position));
        features.heading[at] = frame.heading(heading);
        features.velocity[2 * at..2 * at + 2].copy_from_slice(&frame.vector(velocity));
        features.shape[2 * at..2 * at + 2].copy_from_slice(&shape);
        features.valid[at] = true;
    };
    for step in 0..steps {
        if step < HISTORY_STEPS || ego_future_valid[step - HISTORY_STEPS] {
            write(step, ego.rear_axle[step], ego.heading[step], ego.velocity[step], ego_shape);
        }
    }
    for (row, (valid, values)) in (1..).zip(tracks.rows(steps)) {
        let seen = values.len() / QUANTITIES;
        let [x, y, heading, vx, vy, width, length] = std::array::from_fn(|k| &values[k * seen..][..seen]);
        for (i, (step, _)) in valid.iter().enumerate().filter(|(_, valid)| **valid).enumerate() {
            write(row * steps + step, [x[i], y[i]], heading[i], [vx[i], vy[i]], [width[i], length[i]]);
        }
    }
    features.category.push(0);
    features.category.extend(&tracks.kinds);
    if steps > HISTORY_STEPS {
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
