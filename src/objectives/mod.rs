//! Losses, one per file, recorded on the graph behind the network.

mod agents_imitation;
mod classification;
pub mod collision;
mod contrastive;
mod imitation;
mod prediction;
mod reference_free;
mod regression;

use crate::{
    config::{
        ModelConfig, ObjectiveConfig,
        module::{Aggregate, ModuleKind, Objective, Term},
    },
    data::batch::{Index, Input, symbol},
    error::{Error, Result},
    graph::{Builder, Op, Parameters, Rows, TensorId},
    model::{self, Outputs},
};

/// Names and scalars of the losses, none for one that is off; the last is `loss`, which is minimised.
pub type Losses = Vec<(&'static str, Option<TensorId>)>;

/// Most losses that there can be, the last included.
pub const MOST: usize = Objective::ALL.len() + 1;

/// The losses of PLUTO's trainer, in the order in which they are logged.
const PLUTO: [Term; 6] = {
    use Objective::{Classification, Collision, Contrastive, Prediction, ReferenceFree, Regression};
    let list = [Regression, Classification, ReferenceFree, Collision, Prediction, Contrastive];
    let mut terms = [Term { objective: Regression, weight: 1.0 }; 6];
    let mut i = 0;
    while i < list.len() {
        terms[i].objective = list[i];
        i += 1;
    }
    terms
};

/// Checks the options.
///
/// # Errors
/// [`Error::Config`] with the key.
pub fn validate(objectives: &ObjectiveConfig, model: &ModelConfig) -> Result<()> {
    if objectives.use_contrast_loss && !model.use_hidden_proj {
        return Err(Error::config("model.use_hidden_proj", "the contrastive loss needs it"));
    }
    if objectives.module == ModuleKind::Standard {
        if objectives.terms.is_empty() {
            return Err(Error::config("objective", "the standard module needs an objective"));
        }
        let twice = |i: usize| objectives.terms[..i].iter().any(|term| term.objective == objectives.terms[i].objective);
        if (0..objectives.terms.len()).any(twice) {
            return Err(Error::config("objective", "an objective stands there twice"));
        }
        if (1..objectives.metrics.len()).any(|i| objectives.metrics[..i].contains(&objectives.metrics[i])) {
            return Err(Error::config("training_metric", "a metric stands there twice"));
        }
        if objectives.terms.iter().any(|term| term.objective == Objective::ReferenceFree) && !model.ref_free_traj {
            return Err(Error::config("model.ref_free_traj", "the objective 'ref_free_reg_loss' needs it"));
        }
    }
    Ok(())
}

/// What a person may not expect of the objectives, in words.
pub fn warning(objectives: &ObjectiveConfig) -> Option<&'static str> {
    let trained = terms(objectives).iter().any(|term| term.objective == Objective::Classification);
    (!trained)
        .then_some("no objective trains the scores of the candidates, so that the most probable one is a matter of chance; add cls_loss")
}

/// The losses of a module, off or not.
fn terms(objectives: &ObjectiveConfig) -> &[Term] {
    match objectives.module {
        ModuleKind::Pluto => &PLUTO,
        ModuleKind::Standard => &objectives.terms,
    }
}

/// Prefixes of the parameters that no loss reaches: they stay as they are.
pub fn idle(objectives: &ObjectiveConfig, model: &ModelConfig) -> Vec<&'static str> {
    use Objective::*;
    let any = |list: &[Objective]| terms(objectives).iter().any(|term| list.contains(&term.objective));
    let trajectory = any(&[Imitation, DecayingImitation, Regression, Collision]);
    let parts = [
        ("hidden_proj.", objectives.use_contrast_loss),
        ("ref_free_decoder.", any(&[ReferenceFree]) && model.ref_free_traj),
        ("agent_predictor.", any(&[AgentsImitation, Prediction])),
        ("planning_decoder.pi_head.", any(&[Classification])),
        ("planning_decoder.loc_head.", trajectory),
        ("planning_decoder.yaw_head.", trajectory),
        ("planning_decoder.vel_head.", trajectory),
        ("planning_decoder.", trajectory || any(&[Classification])),
    ];
    parts.into_iter().filter(|(_, used)| !used).map(|(prefix, _)| prefix).collect()
}

/// Records every loss that is on, and what they make together. The ego's imitation losses read the candidate that is right (the
/// one nearest to what the ego did, chosen on the host), not the most probable one, whose choice has no gradient: what trains the
/// scores is the classification loss. In training that candidate is decoded once more, for the rows that are right alone, so
/// that the gradient of the heads runs through these rows only.
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
    let mut recorder = Recorder { outputs, parameters, model, objectives, cost_map_size, chosen: None, ego: None };
    let mut losses = Losses::new();
    for term in terms(objectives) {
        losses.push((term.objective.name(), recorder.one(b, term)?));
    }
    let values: Vec<TensorId> = losses.iter().filter_map(|(_, loss)| *loss).collect();
    // There is no largest of nothing, but a sum: 0.
    let summed = objectives.module == ModuleKind::Pluto || values.is_empty();
    let aggregate = if summed { Aggregate::Sum } else { objectives.aggregate };
    let loss = match aggregate {
        Aggregate::Max => b.loss(Op::Largest, &values),
        Aggregate::Sum => b.loss(Op::Sum, &values),
        Aggregate::Mean => {
            let sum = b.loss(Op::Sum, &values);
            // Those that are off count: as 0.
            b.loss(Op::Scale { factor: 1.0 / losses.len() as f64 }, &[sum])
        }
    };
    losses.push(("loss", Some(loss)));
    b.leave();
    Ok(losses)
}

/// What several losses read is recorded once, when the first of them wants it.
struct Recorder<'a> {
    outputs: &'a Outputs,
    parameters: &'a Parameters,
    model: &'a ModelConfig,
    objectives: &'a ObjectiveConfig,
    cost_map_size: usize,
    chosen: Option<TensorId>,
    ego: Option<[TensorId; 2]>,
}

impl Recorder<'_> {
    fn one(&mut self, b: &mut Builder, term: &Term) -> Result<Option<TensorId>> {
        let steps = self.model.future_steps;
        let loss = match term.objective {
            Objective::Imitation | Objective::DecayingImitation => {
                let (chosen, [target, valid]) = (self.chosen(b)?, self.ego(b));
                // The weight is in it.
                return Ok(Some(imitation::record(b, chosen, target, valid, steps, term)));
            }
            Objective::AgentsImitation => {
                return Ok(Some(agents_imitation::record(b, self.outputs.prediction, steps, term.weight)));
            }
            Objective::Regression => {
                let (chosen, [target, valid]) = (self.chosen(b)?, self.ego(b));
                regression::record(b, chosen, target, valid, steps, self.objectives.regulate_yaw)
            }
            Objective::Classification => classification::record(b, self.outputs.logits),
            Objective::ReferenceFree => {
                let Some(free) = self.outputs.ref_free_trajectory else { return Ok(None) };
                let [target, valid] = self.ego(b);
                reference_free::record(b, free, target, valid, steps)
            }
            Objective::Collision if !self.objectives.use_collision_loss => return Ok(None),
            Objective::Collision => {
                let chosen = self.chosen(b)?;
                collision::record(b, chosen, steps, self.cost_map_size)
            }
            Objective::Prediction => prediction::record(b, self.outputs.prediction, steps),
            Objective::Contrastive if !self.objectives.use_contrast_loss || !b.training() => return Ok(None),
            Objective::Contrastive => {
                let hidden = self.outputs.hidden;
                contrastive::record(b, hidden.ok_or_else(|| Error::Graph("the contrastive loss needs the projected ego token".into()))?)
            }
        };
        Ok(Some(if term.weight == 1.0 { loss } else { b.loss(Op::Scale { factor: term.weight }, &[loss]) }))
    }

    /// The trajectories that are right: `[imitated, F * 6]`.
    fn chosen(&mut self, b: &mut Builder) -> Result<TensorId> {
        if let Some(chosen) = self.chosen {
            return Ok(chosen);
        }
        let imitated = Rows::of(symbol::IMITATED);
        let chosen = if b.training() {
            let queries = b.gather(self.outputs.queries, Index::Choice as usize, imitated); // [imitated, D]
            model::trajectory_heads(b, self.parameters, queries, self.model)?
        } else {
            b.gather(self.outputs.trajectory, Index::Choice as usize, imitated)
        };
        Ok(*self.chosen.insert(chosen))
    }

    /// What the ego did `[B, F * 6]`, and where it is known `[B, F]`.
    fn ego(&mut self, b: &mut Builder) -> [TensorId; 2] {
        let (steps, scenarios) = (self.model.future_steps, Rows::of(symbol::SCENARIOS));
        *self.ego.get_or_insert_with(|| {
            let target = b.input("ego target", Input::EgoTarget as usize, scenarios, steps * 6);
            [target, b.input("ego valid", Input::EgoValid as usize, scenarios, steps)]
        })
    }
}
