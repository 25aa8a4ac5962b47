//! The published generator of contrastive samples (PLUTO: J. Cheng et al., "Pushing the Limit of Imitation Learning-based
//! Planning for Autonomous Driving", 2024).

use super::{AugmentRandom, Augmentor, Negative, Triplet, cropped, drop_agents, negative, positive, warped};
use crate::config::ContrastiveConfig;
use crate::error::{Error, Rejection, Result};
use crate::features::{Features, validity};

/// Which part of the bystanders is left out of a positive sample, if any are.
const BYSTANDER_PORTION: [f64; 2] = [0.1, 1.0];
/// Factor of the ego's speed for an inserted agent.
const SPEED_SCALE: [f64; 2] = [0.0, 0.8];
/// Factor of width and length of an inserted agent.
const SHAPE_SCALE: [f64; 2] = [0.9, 1.1];

/// The generator. Its options count on [`crate::config::Config`] having checked them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContrastiveGenerator {
    /// Its options.
    pub options: ContrastiveConfig,
}

impl ContrastiveGenerator {
    fn positive(&self, anchor: &Features, random: &mut AugmentRandom) -> Result<Features> {
        let noise = std::array::from_fn(|i| random.uniform(self.options.low[i], self.options.high[i]));
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
        let kinds = negative::available(anchor, self.options.max_interaction_horizon);
        let kind = kinds.get(random.below(kinds.len())).copied();
        match kind {
            Some(Negative::LightInversion) => negative::invert_lights(&mut sample, || random.coin()),
            Some(Negative::AgentDropout) => drop_agents(&mut sample, &negative::restraining(anchor, self.options.max_interaction_horizon)),
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
