//! Contrastive samples: for every scenario of a batch (the anchor) one that asks for the same behaviour (the positive) and one
//! that asks for another (the negative).
//!
//! [`ContrastiveGenerator`] is the published one. Another takes a file here with an `impl Augmentor`, a line in [`from_config`] that
//! chooses it, and its keys in `config`; loader, collation and losses know the trait alone. Frames are those of the features.

mod agents;
mod collision;
mod contrastive;
pub mod negative;
pub mod positive;
mod random;
mod warp;

pub use agents::drop_agents;
pub use contrastive::ContrastiveGenerator;
pub use negative::Negative;
pub use random::AugmentRandom;
pub use warp::{CROPPED_SIZE, cropped, warped};

use crate::config::Config;
use crate::error::Result;
use crate::features::Features;

/// Makes contrastive samples.
pub trait Augmentor: std::fmt::Debug + Send + Sync {
    /// The triplet of a scenario with a future. It depends on the arguments alone: whoever gives the same random numbers gets
    /// the same bits.
    ///
    /// # Errors
    /// [`crate::error::Error::Scenario`] if the features have no future, or a sample would not be finite and sane.
    fn augment(&self, anchor: &Features, random: &mut AugmentRandom) -> Result<Triplet>;
}

/// What changes the scenarios of training, if anything does.
pub fn from_config(config: &Config) -> Option<Box<dyn Augmentor>> {
    config.objectives.use_contrast_loss.then(|| Box::new(ContrastiveGenerator { options: config.contrastive.clone() }) as _)
}

/// A scenario and its contrastive samples.
#[derive(Debug, Clone)]
pub struct Triplet {
    /// The scenario itself, its cost map cut to that of the positive.
    pub anchor: Features,
    /// To be driven like the anchor; it is imitated, too.
    pub positive: Features,
    /// To be driven differently, without a cost map, because it is not imitated; a copy of the anchor if there is none.
    pub negative: Features,
    /// What was done to the negative; None if nothing could be.
    pub kind: Option<Negative>,
}

/// The order in which triplets are packed into a batch: all anchors, all positives, all negatives; and of each triplet whether
/// the contrastive loss may read its negative.
pub fn batch_order(triplets: &[Triplet]) -> (Vec<&Features>, Vec<bool>) {
    let anchors = triplets.iter().map(|t| &t.anchor);
    let positives = triplets.iter().map(|t| &t.positive);
    let negatives = triplets.iter().map(|t| &t.negative);
    (anchors.chain(positives).chain(negatives).collect(), triplets.iter().map(|t| t.kind.is_some()).collect())
}
