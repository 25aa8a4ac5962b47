//! Losses, one per file, recorded on the graph behind the network.

mod classification;
pub mod collision;
mod contrastive;
mod prediction;
mod reference_free;
mod regression;

use crate::{
    config::{ModelConfig, ObjectiveConfig},
    data::batch::{Index, Input, symbol},
    error::{Error, Result},
    graph::{Builder, Op, Parameters, Rows, TensorId},
    model::{self, Outputs},
};

/// Names under which the losses are logged; the last is the sum of the others.
pub const NAMES: [&str; 7] = ["reg_loss", "cls_loss", "ref_free_reg_loss", "collision_loss", "prediction_loss", "contrastive_loss", "loss"];

/// Scalars by the order of [`NAMES`]; none for a loss that is off.
pub type Losses = [Option<TensorId>; 7];

/// Checks the options.
///
/// # Errors
/// [`Error::Config`] with the key.
pub fn validate(objectives: &ObjectiveConfig, model: &ModelConfig) -> Result<()> {
    if objectives.use_contrast_loss && !model.use_hidden_proj {
        return Err(Error::config("model.use_hidden_proj", "the contrastive loss needs it"));
    }
    Ok(())
}

/// Records every loss that is on and their sum. In training the chosen trajectories are decoded once more, for the rows that
/// are right alone, so that the gradient of the heads runs through these rows only.
///
/// # Errors
/// [`Error::Graph`] if shapes do not fit.
pub fn record(
    b: &mut Builder,
    outputs: &Outputs,
    parameters: &Parameters,
    model: &ModelConfig,
    objectives: &ObjectiveConfig,
    cost_map_size: usize,
) -> Result<Losses> {
    b.enter("objectives");
    let imitated = Rows::of(symbol::IMITATED);
    let chosen = if b.training() {
        let queries = b.gather(outputs.queries, Index::Choice as usize, imitated); // [imitated, D]
        model::trajectory_heads(b, parameters, queries, model)? // [imitated, F * 6]
    } else {
        b.gather(outputs.trajectory, Index::Choice as usize, imitated) // [imitated, F * 6]
    };
    let steps = model.future_steps;
    let scenarios = Rows::of(symbol::SCENARIOS);
    let target = b.input("ego target", Input::EgoTarget as usize, scenarios, steps * 6);
    let valid = b.input("ego valid", Input::EgoValid as usize, scenarios, steps);

    let mut losses: Losses = [None; 7];
    losses[0] = Some(regression::record(b, chosen, target, valid, steps, objectives.regulate_yaw));
    losses[1] = Some(classification::record(b, outputs.logits));
    losses[2] = outputs.ref_free_trajectory.map(|free| reference_free::record(b, free, target, valid, steps));
    if objectives.use_collision_loss {
        losses[3] = Some(collision::record(b, chosen, steps, cost_map_size));
    }
    losses[4] = Some(prediction::record(b, outputs.prediction, steps));
    if objectives.use_contrast_loss && b.training() {
        let hidden = outputs.hidden.ok_or_else(|| Error::Graph("the contrastive loss needs the projected ego token".into()))?;
        losses[5] = Some(contrastive::record(b, hidden));
    }
    let terms: Vec<TensorId> = losses.iter().flatten().copied().collect();
    losses[6] = Some(b.loss(Op::Sum, &terms));
    b.leave();
    Ok(losses)
}
