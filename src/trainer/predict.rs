//! One scenario to trajectories in the global frame.

use super::session::{Outputs, Session};
use crate::{
    config::Config,
    data::{Batch, batch::BatchOptions, collate_into},
    error::{Error, Result},
    features::{FeatureBuilder, Features},
    scenario::{HISTORY_STEPS, Scenario, geometry::wrap_angle},
};
use std::borrow::Cow;

/// One candidate of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Softmax over all candidates of the scenario.
    pub probability: f64,
    /// Reference line that it follows.
    pub reference_line: usize,
    /// Mode on that line.
    pub mode: usize,
    /// `[80]`: x, y, heading of the rear axle and velocity vx, vy; global frame.
    pub states: Vec<[f64; 5]>,
}

/// Predicted future of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPrediction {
    /// The host's id.
    pub id: String,
    /// `[80]`: x, y, heading of the box centre and velocity vx, vy; global frame.
    pub states: Vec<[f64; 5]>,
}

/// Answer of `predict`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the most probable candidate.
    pub best: usize,
    /// Every candidate: R reference lines times M modes.
    pub candidates: Vec<Candidate>,
    /// Agents that the model saw, nearest first.
    pub agents: Vec<AgentPrediction>,
}

/// Turns scenarios into predictions; keeps memory between calls.
pub struct Predictor {
    builder: FeatureBuilder,
    options: BatchOptions,
    batch: Batch,
}

impl Predictor {
    /// For a network of a configuration.
    pub fn new(config: &Config, options: BatchOptions) -> Self {
        let builder = FeatureBuilder { radius: config.model.radius, max_agents: config.features.max_agents, cost_map: false };
        let batch = Batch::empty(options.scalar);
        Self { builder, options, batch }
    }

    /// Plans one scenario; its future, if there, is not read.
    ///
    /// # Errors
    /// [`Error::Scenario`] if it breaks a rule or has no reference line; [`Error::NotFinite`] if the network's answer is not.
    pub fn predict(&mut self, session: &mut Session, scenario: &Scenario) -> Result<Prediction> {
        let scenario = present(scenario);
        let features = self.builder.build(&scenario)?;
        collate_into(&mut self.batch, &[&features], &[], &BatchOptions { triplets: false, ..self.options.clone() })?;
        let outputs = session.predict(&self.batch)?;
        if !(outputs.trajectory.iter().chain(&outputs.logits).chain(&outputs.prediction)).all(|x| x.is_finite()) {
            return Err(Error::NotFinite(format!("the network's answer for scenario '{}'", scenario.token)));
        }
        let agents = self.builder.agents(&scenario)?;
        Ok(Prediction {
            best: outputs.best_row(&self.batch, 0).unwrap_or(0),
            candidates: candidates(&outputs, &self.batch, &features),
            agents: agent_predictions(&outputs, &self.batch, &features, |row| scenario.agents[agents[row - 1]].id.clone()),
        })
    }
}

/// The scenario without its future.
fn present(scenario: &Scenario) -> Cow<'_, Scenario> {
    if scenario.ego.len() <= HISTORY_STEPS {
        return Cow::Borrowed(scenario);
    }
    let mut scenario = scenario.clone();
    scenario.ego.truncate(HISTORY_STEPS);
    scenario.agents.iter_mut().for_each(|agent| agent.states.truncate(HISTORY_STEPS));
    Cow::Owned(scenario)
}

fn candidates(outputs: &Outputs, batch: &Batch, features: &Features) -> Vec<Candidate> {
    let frame = Frame::new(features);
    let lines = &batch.lines[0];
    let probabilities = outputs.probabilities(batch, 0);
    let rows = outputs.rows(batch, 0);
    rows.zip(probabilities)
        .map(|(row, probability)| Candidate {
            probability,
            reference_line: batch.line_rows[lines.start..][row / outputs.modes - lines.start],
            mode: row % outputs.modes,
            states: frame.states(&outputs.trajectory[row * outputs.steps * 6..][..outputs.steps * 6], [0.0; 3]),
        })
        .collect()
}

/// `id` gives the host's name for a row of the features.
fn agent_predictions(outputs: &Outputs, batch: &Batch, features: &Features, id: impl Fn(usize) -> String) -> Vec<AgentPrediction> {
    let (frame, agents) = (Frame::new(features), &features.agents);
    let predict = |agent: usize| {
        let row = batch.agent_rows[agent];
        let now = row * agents.steps + HISTORY_STEPS - 1;
        let pose = [agents.position[2 * now], agents.position[2 * now + 1], agents.heading[now]];
        let states = &outputs.prediction[agent * outputs.steps * 6..][..outputs.steps * 6];
        AgentPrediction { id: id(row), states: frame.states(states, pose) }
    };
    batch.agents[0].clone().map(predict).collect()
}

/// The ego's frame, seen from the global one.
struct Frame {
    origin: [f64; 2],
    angle: f64,
    sin: f64,
    cos: f64,
}

impl Frame {
    fn new(features: &Features) -> Self {
        let (sin, cos) = features.angle.sin_cos();
        Self { origin: features.origin, angle: features.angle, sin, cos }
    }

    fn rotate(&self, v: [f64; 2]) -> [f64; 2] {
        [v[0] * self.cos - v[1] * self.sin, v[0] * self.sin + v[1] * self.cos]
    }

    /// x, y, heading, vx, vy in the global frame of the network's x, y, cos, sin, vx, vy. Position and heading are relative to
    /// `pose`, but their axes are the ego's: what a pose at the origin would be for the ego's own future.
    fn states(&self, steps: &[f64], pose: [f64; 3]) -> Vec<[f64; 5]> {
        let state = |s: &[f64]| {
            let [x, y] = self.rotate([s[0] + pose[0], s[1] + pose[1]]);
            let heading = wrap_angle(s[3].atan2(s[2]) + pose[2] + self.angle);
            let [vx, vy] = self.rotate([s[4], s[5]]);
            [self.origin[0] + x, self.origin[1] + y, heading, vx, vy]
        };
        steps.chunks_exact(6).map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::{FRAC_PI_2, PI};

    #[test]
    fn states_return_to_the_global_frame() {
        let features = Features { origin: [100.0, 50.0], angle: FRAC_PI_2, ..Default::default() };
        let frame = Frame::new(&features);
        let close = |a: [f64; 5], b: [f64; 5]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12);
        // The ego looks along +y: 3 m ahead and 1 m to the left, turned left by a quarter, 2 m/s ahead.
        let ego = frame.states(&[3.0, 1.0, 0.0, 1.0, 2.0, 0.0], [0.0; 3]);
        assert!(close(ego[0], [99.0, 53.0, PI, 0.0, 2.0]) || close(ego[0], [99.0, 53.0, -PI, 0.0, 2.0]), "{ego:?}");
        // An agent 10 m ahead that looks to the ego's right, moves 1 m along the ego's x, and does not turn.
        let agent = frame.states(&[1.0, 0.0, 1.0, 0.0, 0.0, -4.0], [10.0, 0.0, -FRAC_PI_2]);
        assert!(close(agent[0], [100.0, 61.0, 0.0, 4.0, 0.0]), "{agent:?}");
    }
}
