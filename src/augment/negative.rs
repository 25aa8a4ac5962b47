//! The negative sample: the scene changed so that the ego must behave differently.

use crate::features::normalise::EgoFrame;
use crate::features::{Features, PRESENT};
use crate::scenario::geometry;
use crate::scenario::{HISTORY_STEPS, LightState};
use geo::{Distance, Euclidean};

/// An agent with a speed within this of the ego's, metres a second, can lead it.
const SIMILAR_SPEED: f64 = 2.0;
/// Below this speed, metres a second, a track is not stretched.
const STANDING_SPEED: f64 = 0.1;
/// Category of an inserted copy of the ego.
const VEHICLE: i8 = 1;

/// What was done to a negative sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negative {
    /// The red lights that hold the ego are green or unknown.
    LightInversion,
    /// The agents that lead the ego or pass before it are gone.
    AgentDropout,
    /// An agent stands or drives on the free path ahead.
    LeadingAgentInsertion,
}

/// `[A]`: agents that pass where the ego will, fewer than `horizon` steps before it.
pub fn interacting(anchor: &Features, horizon: f64) -> Vec<bool> {
    anchor.causal.interaction_label.iter().map(|&label| 0.0 < label && label < horizon).collect()
}

/// What can be done, in the order in which one is chosen.
pub fn available(anchor: &Features, horizon: f64) -> Vec<Negative> {
    let causal = &anchor.causal;
    let mut kinds = Vec::with_capacity(3);
    if causal.waiting_for_red_light {
        kinds.push(Negative::LightInversion);
    } else if restraining(anchor, horizon).contains(&true) {
        kinds.push(Negative::AgentDropout);
    }
    if !causal.free_path.is_empty() && anchor.agents.count > 1 {
        kinds.push(Negative::LeadingAgentInsertion);
    }
    kinds
}

/// Sets the lights that hold the ego, one after the other, to green where `green` says true and to unknown where not.
pub fn invert_lights(features: &mut Features, mut green: impl FnMut() -> bool) {
    for (light, _) in features.map.polygon_light.iter_mut().zip(&features.causal.red_light).filter(|(_, red)| **red) {
        *light = if green() { LightState::Green } else { LightState::Unknown } as i8;
    }
}

/// `[A]`: the leading and the interacting agents.
pub fn restraining(anchor: &Features, horizon: f64) -> Vec<bool> {
    interacting(anchor, horizon).iter().zip(&anchor.causal.leading_agent).map(|(a, b)| a | b).collect()
}

/// The row of the agent whose present speed is nearest to the ego's, the first of equals; the ego's (0) if none is near.
pub fn similar_agent(features: &Features) -> usize {
    let ego = speed(features, 0);
    let mut best = (SIMILAR_SPEED, 0);
    for row in 1..features.agents.count {
        let difference = (speed(features, row) - ego).abs();
        if difference < best.0 {
            best = (difference, row);
        }
    }
    best.1
}

/// Metres a second at the present step.
fn speed(features: &Features, row: usize) -> f64 {
    let at = 2 * (row * features.agents.steps + PRESENT);
    features.agents.velocity[at].hypot(features.agents.velocity[at + 1])
}

/// Adds a copy of the most similar agent at pose number `point` of the free path. Its track is stretched about the present so
/// that its present speed is `scale` times the ego's (a standing agent's track by `scale` itself); `shape` gives factors of width
/// and length, step by step, row-major.
pub fn insert_leading_agent(features: &mut Features, point: usize, scale: f64, mut shape: impl FnMut() -> f64) {
    let source = similar_agent(features);
    let source_speed = speed(features, source);
    let stretch = if source_speed < STANDING_SPEED { 1.0 } else { speed(features, 0) / source_speed } * scale;

    let Features { agents, causal, .. } = features;
    let [x, y, heading] = causal.free_path.as_chunks::<3>().0[point];
    let rows = source * agents.steps..(source + 1) * agents.steps;
    let present = rows.start + PRESENT;
    let frame = EgoFrame::new([agents.position[2 * present], agents.position[2 * present + 1]], agents.heading[present] - heading);
    let now = agents.heading.len() + PRESENT;
    for at in rows {
        let valid = agents.valid[at];
        // absent steps hold 0
        let seen = |values: [f64; 2]| if valid { values } else { [0.0; 2] };
        let from = frame.position([agents.position[2 * at], agents.position[2 * at + 1]]);
        let velocity = frame.vector([agents.velocity[2 * at], agents.velocity[2 * at + 1]]);
        let size = [agents.shape[2 * at] * shape(), agents.shape[2 * at + 1] * shape()];
        agents.position.extend(seen([x + stretch * from[0], y + stretch * from[1]]));
        agents.heading.push(if valid { agents.heading[at] - agents.heading[present] + heading } else { 0.0 });
        agents.velocity.extend(seen([stretch * velocity[0], stretch * velocity[1]]));
        agents.shape.extend(seen(size));
        agents.valid.push(valid);
    }
    for at in now + 1..now + 1 + agents.steps.saturating_sub(HISTORY_STEPS) {
        agents.target.extend(if agents.valid[at] {
            let position = |k: usize| agents.position[2 * at + k] - agents.position[2 * now + k];
            [position(0), position(1), agents.heading[at] - agents.heading[now]]
        } else {
            [0.0; 3]
        });
    }
    agents.category.push(if source == 0 { VEHICLE } else { agents.category[source] });
    agents.count += 1;

    let outline = |center: [f64; 2], heading: f64, at: usize| {
        geometry::polygon(&geometry::box_corners(center, heading, agents.shape[2 * at], agents.shape[2 * at + 1]))
    };
    let ego = outline([features.rear_axle_to_center, 0.0], 0.0, PRESENT);
    causal.leading_agent.push(true);
    causal.leading_distance.push(Euclidean.distance(&outline([x, y], heading, now), &ego));
    causal.interaction_label.push(0.0);
}
