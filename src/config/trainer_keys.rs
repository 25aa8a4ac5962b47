//! The keys of the trainer and its hooks.

use super::{
    Config, Devices, Limit,
    keys::{NOT_EMPTY, Rule, SOME, SWITCH, TEXT, Visitor, any},
};
use crate::error::{Error, Result};

const FINITE: Rule<f64> = Rule(|x| x.is_finite(), "finite");

/// Shows every key to the visitor, in the order of the echo.
#[rustfmt::skip]
pub(super) fn visit(c: &mut Config, v: &mut impl Visitor) -> Result<()> {
    let trainer = &mut c.trainer;
    v.key("lightning.trainer.params.max_epochs", &["max_epochs"], &mut trainer.max_epochs,
        Rule(|x| x.is_none_or(|x| x == -1 || (1..=1_000_000).contains(&x)), "from 1 to 1000000, -1 or null"))?;
    v.key("lightning.trainer.params.min_epochs", &["min_epochs"], &mut trainer.min_epochs, any())?;
    v.key("lightning.trainer.params.max_steps", &["max_steps"], &mut trainer.max_steps, Rule(|x| *x >= -1, "at least -1"))?;
    v.key("lightning.trainer.params.min_steps", &["min_steps"], &mut trainer.min_steps, any())?;
    v.key("lightning.trainer.params.max_time", &["max_time"], &mut trainer.max_time, any())?;
    v.key("lightning.trainer.params.accelerator", &["accelerator"], &mut c.run.accelerator, any())?;
    v.key("lightning.trainer.params.devices", &["devices"], &mut c.run.devices, Rule(Devices::is_one, "one device: -1, auto, 1 or [number]"))?;
    v.key("lightning.trainer.params.precision", &["precision"], &mut c.run.precision, any())?;
    v.key("float32_matmul_precision", &[], &mut c.run.matmul_precision, any())?;
    v.key("lightning.trainer.params.val_check_interval", &["val_check_interval"], &mut trainer.val_check_interval,
        Rule(|x| *x != Limit::Count(0), "at least 1, or a share"))?;
    v.key("lightning.trainer.params.check_val_every_n_epoch", &["check_val_every_n_epoch"], &mut trainer.check_val_every_n_epoch,
        Rule(|x| *x != Some(0), "at least 1 or null"))?;
    v.key("lightning.trainer.params.limit_train_batches", &[], &mut trainer.limit_train_batches, any())?;
    v.key("lightning.trainer.params.limit_val_batches", &[], &mut trainer.limit_val_batches, any())?;
    v.key("lightning.trainer.params.limit_test_batches", &[], &mut trainer.limit_test_batches, any())?;
    v.key("lightning.trainer.params.overfit_batches", &[], &mut trainer.overfit_batches, any())?;
    v.key("lightning.trainer.params.num_sanity_val_steps", &[], &mut trainer.num_sanity_val_steps, Rule(|x| *x >= -1, "at least -1"))?;
    v.key("lightning.trainer.params.fast_dev_run", &[], &mut trainer.fast_dev_run, any())?;
    v.key("lightning.trainer.params.accumulate_grad_batches", &[], &mut trainer.accumulate_grad_batches, SOME)?;
    v.key("lightning.trainer.params.gradient_clip_val", &["gradient_clip_val"], &mut c.optimizer.gradient_clip_val,
        Rule(|x| x.is_none_or(|x| x >= 0.0), "at least 0"))?;
    v.key("lightning.trainer.params.gradient_clip_algorithm", &[], &mut c.optimizer.gradient_clip_algorithm, any())?;
    v.key("lightning.trainer.params.log_every_n_steps", &[], &mut trainer.log_every_n_steps, SOME)?;
    v.key("lightning.trainer.params.detect_anomaly", &[], &mut trainer.detect_anomaly, SWITCH)?;
    v.key("lightning.trainer.params.enable_checkpointing", &[], &mut trainer.enable_checkpointing, SWITCH)?;
    v.key("lightning.trainer.params.enable_model_summary", &[], &mut trainer.enable_model_summary, SWITCH)?;

    let overfitting = &mut trainer.overfitting;
    v.key("lightning.trainer.overfitting.enable", &[], &mut overfitting.enable, SWITCH)?;
    v.key("lightning.trainer.overfitting.params.max_epochs", &[], &mut overfitting.max_epochs, SOME)?;
    v.key("lightning.trainer.overfitting.params.overfit_batches", &[], &mut overfitting.overfit_batches, any())?;

    let distributed = &mut c.distributed;
    v.key("lightning.distributed_training.scale_lr", &[], &mut distributed.scale_lr, SWITCH)?;
    v.key("lightning.distributed_training.equal_variance_scaling_strategy", &[], &mut distributed.equal_variance_scaling_strategy, SWITCH)?;

    let checkpoint = &mut c.checkpoint;
    v.key("lightning.trainer.checkpoint.dirpath", &[], &mut checkpoint.dirpath, NOT_EMPTY)?;
    v.key("lightning.trainer.checkpoint.filename", &[], &mut checkpoint.filename, TEXT)?;
    v.key("lightning.trainer.checkpoint.auto_insert_metric_name", &[], &mut checkpoint.auto_insert_metric_name, SWITCH)?;
    v.key("lightning.trainer.checkpoint.enable_version_counter", &[], &mut checkpoint.enable_version_counter, SWITCH)?;
    v.key("lightning.trainer.checkpoint.monitor", &[], &mut checkpoint.monitor, NOT_EMPTY)?;
    v.key("lightning.trainer.checkpoint.mode", &[], &mut checkpoint.mode, any())?;
    v.key("lightning.trainer.checkpoint.save_top_k", &[], &mut checkpoint.save_top_k, Rule(|x| *x >= -1, "at least -1"))?;
    v.key("lightning.trainer.checkpoint.save_last", &[], &mut checkpoint.save_last, SWITCH)?;
    v.key("lightning.trainer.checkpoint.every_n_epochs", &[], &mut checkpoint.every_n_epochs, any())?;
    v.key("lightning.trainer.checkpoint.every_n_train_steps", &[], &mut checkpoint.every_n_train_steps, any())?;
    v.key("lightning.trainer.checkpoint.train_time_interval", &[], &mut checkpoint.train_time_interval, any())?;
    v.key("lightning.trainer.checkpoint.save_on_train_epoch_end", &[], &mut checkpoint.save_on_train_epoch_end, any())?;

    let callbacks = &mut c.callbacks;
    let stopping = &mut callbacks.early_stopping;
    v.key("callbacks.early_stopping.monitor", &[], &mut stopping.monitor, NOT_EMPTY)?;
    v.key("callbacks.early_stopping.min_delta", &[], &mut stopping.min_delta, FINITE)?;
    v.key("callbacks.early_stopping.patience", &[], &mut stopping.patience, any())?;
    v.key("callbacks.early_stopping.mode", &[], &mut stopping.mode, any())?;
    v.key("callbacks.early_stopping.strict", &[], &mut stopping.strict, SWITCH)?;
    v.key("callbacks.early_stopping.check_finite", &[], &mut stopping.check_finite, SWITCH)?;
    v.key("callbacks.early_stopping.stopping_threshold", &[], &mut stopping.stopping_threshold, any())?;
    v.key("callbacks.early_stopping.divergence_threshold", &[], &mut stopping.divergence_threshold, any())?;
    v.key("callbacks.early_stopping.check_on_train_epoch_end", &[], &mut stopping.check_on_train_epoch_end, any())?;
    v.key("callbacks.learning_rate_monitor.logging_interval", &["callbacks.learning_rate_monitor_callback.logging_interval"], &mut callbacks.learning_rate_interval, any())?;
    v.key("callbacks.model_summary.max_depth", &[], &mut callbacks.model_summary.max_depth, Rule(|x| *x >= -1, "at least -1"))?;
    v.key("callbacks.time_logging", &[], &mut callbacks.time_logging, SWITCH)?;
    v.key("callbacks.scenario_scoring_callback.num_store", &[], &mut callbacks.scored_scenarios, any())?;
    v.key("callbacks.profile_callback.steps", &[], &mut callbacks.profiled_steps, any())?;
    v.key("evaluation.by_type", &[], &mut c.evaluation.by_type, SWITCH)?;
    v.key("evaluation.per_scenario_csv", &[], &mut c.evaluation.per_scenario_csv, SWITCH)
}

/// What no single key can say.
pub(super) fn check(config: &Config) -> Result<()> {
    let (trainer, checkpoint) = (&config.trainer, &config.checkpoint);
    if trainer.check_val_every_n_epoch.is_none() && matches!(trainer.val_check_interval, Limit::Share(_)) {
        let reason = "must be a number of batches where check_val_every_n_epoch is null";
        return Err(Error::config("lightning.trainer.params.val_check_interval", reason));
    }
    if checkpoint.monitor.is_none() && checkpoint.save_top_k > 1 {
        let reason = format!("{} needs a monitor that ranks; without one it is -1, 0 or 1", checkpoint.save_top_k);
        return Err(Error::config("lightning.trainer.checkpoint.save_top_k", reason));
    }
    Ok(())
}
