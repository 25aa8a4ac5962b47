//! The keys of the standard module.

use super::{ModuleKind, Objective};
use crate::{
    config::{
        Config, ObjectiveConfig,
        keys::{RATE, Rule, SWITCH, Visitor, any},
        tree::Value,
    },
    error::Result,
};

/// Shows every key to the visitor, in the order of the echo.
#[rustfmt::skip]
pub(in crate::config) fn visit(c: &mut Config, v: &mut impl Visitor) -> Result<()> {
    let objectives = &mut c.objectives;
    v.key("objective", &[], &mut objectives.terms, Rule(|x| x.iter().all(|term| term.weight > 0.0), "a group of weights above 0"))?;
    v.key("objective_aggregate_mode", &[], &mut objectives.aggregate, any())?;
    v.key("training_metric", &[], &mut objectives.metrics, any())?;
    v.key("scenario_type_weights.scenario_type_loss_weights", &[], &mut objectives.type_weights,
        Rule(|x| x.iter().all(|(_, weight)| *weight >= 0.0), "weights of at least 0"))?;

    let standard = &mut c.optimizer.standard;
    v.key("optimizer._target_", &[], &mut standard.kind, any())?;
    v.key("optimizer.lr", &[], &mut standard.lr, Rule(|x| *x > 0.0, "above 0"))?;
    v.key("optimizer.weight_decay", &[], &mut standard.weight_decay, Rule(|x| x.is_none_or(|x| x >= 0.0), "at least 0"))?;
    v.key("optimizer.betas", &[], &mut standard.betas, Rule(|x| x.iter().all(|x| (0.0..1.0).contains(x)), "at least 0 and below 1"))?;
    // 0 would make 0 / 0 of a parameter without a gradient.
    v.key("optimizer.eps", &[], &mut standard.eps, Rule(|x| *x as f32 > 0.0, "above 0 in single precision"))?;
    v.key("optimizer.momentum", &[], &mut standard.momentum, RATE)?;
    v.key("optimizer.dampening", &[], &mut standard.dampening, Rule(|x| *x >= 0.0, "at least 0"))?;
    v.key("optimizer.nesterov", &[], &mut standard.nesterov, SWITCH)?;

    let schedule = &mut c.optimizer.schedule;
    v.key("lr_scheduler._target_", &[], &mut schedule.kind, any())?;
    let cycle = &mut schedule.one_cycle;
    v.key("lr_scheduler.epochs", &[], &mut cycle.epochs, Rule(|x| x.is_none_or(|x| (1..=1_000_000).contains(&x)), "from 1 to 1000000"))?;
    v.key("lr_scheduler.steps_per_epoch", &[], &mut cycle.steps_per_epoch,
        Rule(|x| x.is_none_or(|x| (1..=1 << 40).contains(&x)), "from 1 to 2^40"))?;
    v.key("lr_scheduler.pct_start", &[], &mut cycle.pct_start, Rule(|x| (0.0..=1.0).contains(x), "from 0 to 1"))?;
    v.key("lr_scheduler.anneal_strategy", &[], &mut cycle.anneal_strategy, any())?;
    v.key("lr_scheduler.cycle_momentum", &[], &mut cycle.cycle_momentum, SWITCH)?;
    v.key("lr_scheduler.base_momentum", &[], &mut cycle.base_momentum, RATE)?;
    v.key("lr_scheduler.max_momentum", &[], &mut cycle.max_momentum, RATE)?;
    v.key("lr_scheduler.div_factor", &[], &mut cycle.div_factor, Rule(|x| *x > 0.0, "above 0"))?;
    v.key("lr_scheduler.final_div_factor", &[], &mut cycle.final_div_factor, Rule(|x| *x > 0.0, "above 0"))?;
    v.key("lr_scheduler.milestones", &[], &mut schedule.milestones, any())?;
    v.key("lr_scheduler.gamma", &[], &mut schedule.gamma, Rule(|x| *x > 0.0, "above 0"))?;
    let warm_up = &mut schedule.warm_up;
    v.key("warm_up_lr_scheduler.lr_lambda.warm_up_steps", &[], &mut warm_up.steps, Rule(|x| *x <= 1 << 40, "at most 2^40"))?;
    v.key("warm_up_lr_scheduler.lr_lambda.warm_up_strategy", &[], &mut warm_up.strategy, any())
}

/// Which module trains, and which of PLUTO's switches follow from the standard one's objectives.
pub(in crate::config) fn settle(objectives: &mut ObjectiveConfig, tree: &Value) {
    if tree.get("custom_trainer._target_").is_none() && !objectives.terms.is_empty() {
        objectives.module = ModuleKind::Standard;
    }
    if objectives.module == ModuleKind::Standard {
        let has = |objective| objectives.terms.iter().any(|term| term.objective == objective);
        (objectives.use_collision_loss, objectives.use_contrast_loss) = (has(Objective::Collision), has(Objective::Contrastive));
    }
}
