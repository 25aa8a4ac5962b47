//! The published generator of contrastive samples (PLUTO: J. Cheng et al., "Pushing the Limit of Imitation Learning-based
//! Planning for Autonomous Driving", 2024).

use super::{AugmentRandom, Augmentor, Negative, Triplet, cropped, drop_agents, negative, positive, warped};
use crate::error::{Error, Rejection, Result};
use crate::features::{Features, validity};

/// Which part of the bystanders is left out of a positive sample, if any are.
const BYSTANDER_PORTION: [f64; 2] = [0.1, 1.0];
/// Factor of the ego's speed for an inserted agent.
const SPEED_SCALE: [f64; 2] = [0.0, 0.8];
/// Factor of width and length of an inserted agent.
const SHAPE_SCALE: [f64; 2] = [0.9, 1.1];

/// Options of the generator, by their published names.
#[derive(Debug, Clone, PartialEq)]
pub struct ContrastiveGenerator {
    /// Least noise on x, y (metres), heading, velocity, acceleration, steering angle and yaw rate.
    pub low: [f64; 7],
    /// Most noise.
    pub high: [f64; 7],
    /// Agents that pass fewer steps than this before the ego do interact with it.
    pub max_interaction_horizon: f64,
}

impl Default for ContrastiveGenerator {
    fn default() -> Self {
        let high = [1.0, 0.75, 0.35, 1.0, 0.5, 0.2, 0.1];
        Self { low: high.map(|h| -h), high, max_interaction_horizon: 40.0 }
    }
}

impl ContrastiveGenerator {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Config`] unless they are finite, and no least noise is above its most.
    pub fn validate(&self) -> Result<()> {
        let fail = |key: &str, reason: String| Err(Error::config(format!("data_augmentation.contrastive_augmentation.{key}"), reason));
        for (i, (low, high)) in self.low.iter().zip(&self.high).enumerate() {
            // written so that NaN fails
            if !(low.is_finite() && high.is_finite() && low <= high) {
                return fail("low", format!("component {i} must be at most that of high, and both finite: {low}, {high}"));
            }
        }
        if self.max_interaction_horizon.is_nan() || self.max_interaction_horizon < 0.0 {
            return fail("max_interaction_horizon", format!("{} must be at least 0", self.max_interaction_horizon));
        }
        Ok(())
    }

    fn positive(&self, anchor: &Features, random: &mut AugmentRandom) -> Result<Features> {
        let noise = std::array::from_fn(|i| random.uniform(self.low[i], self.high[i]));
        let drops = random.coin();
        let portion = random.uniform(BYSTANDER_PORTION[0], BYSTANDER_PORTION[1]);
        let mut sample = anchor.without_cost_map();
        if drops {
            let draws: Vec<f64> = (0..anchor.agents.count).map(|_| random.uniform(0.0, 1.0)).collect();
            drop_agents(&mut sample, &positive::bystanders(anchor, portion, &draws));
        }
        let moved = positive::perturb(anchor, &noise);
        positive::move_ego(&mut sample, &moved.state);
        let [x, y, heading, ..] = moved.noise;
        sample.cost_map = anchor.cost_map.as_ref().map(|map| warped(map, [x, y], heading)).transpose()?;
        Ok(sample)
    }

    fn negative(&self, anchor: &Features, random: &mut AugmentRandom) -> (Features, Option<Negative>) {
        let mut sample = anchor.without_cost_map();
        let kinds = negative::available(anchor, self.max_interaction_horizon);
        let kind = kinds.get(random.below(kinds.len())).copied();
        match kind {
            Some(Negative::LightInversion) => negative::invert_lights(&mut sample, || random.coin()),
            Some(Negative::AgentDropout) => drop_agents(&mut sample, &negative::restraining(anchor, self.max_interaction_horizon)),
            Some(Negative::LeadingAgentInsertion) => {
                let point = random.below(anchor.causal.free_path.len() / 3);
                let scale = random.uniform(SPEED_SCALE[0], SPEED_SCALE[1]);
                negative::insert_leading_agent(&mut sample, point, scale, || random.uniform(SHAPE_SCALE[0], SHAPE_SCALE[1]));
            }
            None => {}
        }
        (sample, kind)
    }
}

impl Augmentor for ContrastiveGenerator {
    fn augment(&self, anchor: &Features, random: &mut AugmentRandom) -> Result<Triplet> {
        if anchor.agents.target.is_empty() {
            return Err(Error::scenario(&anchor.token, Rejection::StepCount, "contrastive samples need a future"));
        }
        let positive = self.positive(anchor, random)?;
        let (negative, kind) = self.negative(anchor, random);
        validity::check(&positive)?;
        validity::check(&negative)?;
        let anchor = Features { cost_map: anchor.cost_map.as_ref().map(cropped).transpose()?, ..anchor.without_cost_map() };
        Ok(Triplet { anchor, positive, negative, kind })
    }
}
