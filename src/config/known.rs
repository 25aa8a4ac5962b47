//! Published keys that set nothing here, each with its reason, and published classes that are built in.

use super::tree::Value;
use crate::error::{Error, Result};

/// Keys, or whole groups of keys, that are accepted without effect, and why.
pub const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("worker", "the library has threads of its own: threads, data_loader.params.num_workers"),
    ("scenario_builder", "scenarios come from the host"),
    ("py_func", "the host calls te_fit, te_validate or te_test"),
    ("group", "it only makes up output_dir"),
    ("experiment_name", "it only makes up output_dir and names"),
    ("job_name", "it only makes up output_dir"),
    ("date_format", "it only makes up output_dir"),
    ("experiment_uid", "it only makes up output_dir"),
    ("experiment", "it only makes up output_dir"),
    ("metric_dir", "nothing is simulated"),
    ("aggregator_metric_dir", "nothing is simulated"),
    ("runner_report_file", "nothing is simulated"),
    ("simulation_metric", "nothing is simulated"),
    ("selected_simulation_metrics", "nothing is simulated"),
    ("max_number_of_workers", "nothing is simulated"),
    ("gpu", "lightning.trainer.params.accelerator says where to compute"),
    ("logger_level", "the host's log callback gets every level"),
    ("logger_format_string", "the host's log callback writes"),
    ("enable_profiling", "the Python profiler is not there"),
    ("verbose", "progress_bar says it"),
    ("distribute_by_scenario", "scenarios come from the host"),
    ("distributed_timeout_seconds", "scenarios come from the host"),
    ("nuplan_trainer", "custom_trainer says which module trains"),
    ("custom_trainer.objective_aggregate_mode", "PLUTO's trainer always sums its losses"),
    ("data_augmentation_scheduler", "contrastive samples follow no schedule"),
    ("lightning.hparams", "the published module does not read it"),
    ("lightning.optimization", "lr, or optimizer.lr, says it"),
    ("lightning.trainer.checkpoint.resume_training", "checkpoint says what to go on from"),
    ("lightning.trainer.params.gpus", "there is one device"),
    ("lightning.trainer.params.num_nodes", "there is one device"),
    ("lightning.trainer.params.strategy", "there is one device"),
    ("lightning.trainer.params.sync_batchnorm", "there is one device"),
    ("lightning.trainer.params.amp_level", "precision says it"),
    ("lightning.trainer.params.auto_scale_batch_size", "batch sizes are not searched for"),
    ("lightning.trainer.params.auto_lr_find", "learning rates are not searched for"),
    ("lightning.trainer.params.track_grad_norm", "gradient norms are not logged"),
    ("lightning.trainer.params.terminate_on_nan", "max_nonfinite_steps says it"),
    ("lightning.trainer.params.checkpoint_callback", "enable_checkpointing says it"),
    ("callbacks.model_checkpoint_callback", "lightning.trainer.checkpoint says it"),
    ("callbacks.scenario_scoring_callback.frequency", "scenes are written by a validation or test by itself"),
    ("callbacks.scenario_scoring_callback.output_dir", "scenes are in output_dir"),
    ("callbacks.scenario_scoring_callback.scene_converter", "scenes are what the network reads and plans"),
    ("callbacks.profile_callback.output_dir", "profiles are in output_dir"),
    ("callbacks.time_logging_callback", "callbacks.time_logging says it"),
    ("callbacks.visualization_callback", "logger.images says it"),
    ("callbacks.learning_rate_monitor_callback.log_momentum", "momenta are not logged"),
    ("lr_scheduler.optimizer", "the engine fills it in"),
    ("lr_scheduler.max_lr", "it is optimizer.lr"),
    ("lr_scheduler.last_epoch", "the checkpoint says it"),
    ("warm_up_lr_scheduler.optimizer", "the engine fills it in"),
];

/// Keys whose value is built in: another one is an error.
const FIXED: &[(&str, Value)] = &[
    ("model.polygon_channel", Value::Int(6)),
    ("model.feature_builder.history_horizon", Value::Int(2)),
    ("model.feature_builder.future_horizon", Value::Int(8)),
    ("model.feature_builder.sample_interval", Value::Float(0.1)),
    ("model.feature_builder.build_reference_line", Value::Bool(true)),
    ("data_augmentation.contrastive_augmentation.history_steps", Value::Int(21)),
    ("data_augmentation.contrastive_scenario_generator.history_steps", Value::Int(21)),
];

/// Where a class may stand, and the published classes that are built in there.
const CLASSES: &[(&str, &[&str])] = &[
    ("model", &["src.models.pluto.pluto_model.PlanningModel"]),
    ("model.feature_builder", &["src.feature_builders.pluto_feature_builder.PlutoFeatureBuilder"]),
    ("data_augmentation.contrastive_augmentation", &["src.data_augmentation.contrastive_scenario_generator.ContrastiveScenarioGenerator"]),
    (
        "data_augmentation.contrastive_scenario_generator",
        &["src.data_augmentation.contrastive_scenario_generator.ContrastiveScenarioGenerator"],
    ),
    ("splitter", &["nuplan.planning.training.data_loader.log_splitter.LogSplitter"]),
    ("scenario_filter", &["nuplan.planning.scenario_builder.scenario_filter.ScenarioFilter"]),
    ("warm_up_lr_scheduler", &["torch.optim.lr_scheduler.LambdaLR"]),
    ("warm_up_lr_scheduler.lr_lambda", &["nuplan.planning.script.builders.lr_scheduler_builder.get_warm_up_lr_scheduler_func"]),
    ("callbacks.learning_rate_monitor_callback", &["pytorch_lightning.callbacks.LearningRateMonitor"]),
    ("callbacks.scenario_scoring_callback", &["nuplan.planning.training.callbacks.scenario_scoring_callback.ScenarioScoringCallback"]),
    ("callbacks.profile_callback", &["nuplan.planning.training.callbacks.profile_callback.ProfileCallback"]),
    ("callbacks.early_stopping", &["pytorch_lightning.callbacks.EarlyStopping"]),
];

/// The entry of the table that `key` is, or is below.
pub(super) fn without_effect(key: &str) -> Option<&'static (&'static str, &'static str)> {
    let covers = |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    WITHOUT_EFFECT.iter().find(|(name, _)| covers(name))
}

/// True if the key says only how Python makes an object.
pub(super) fn is_instantiation(key: &str) -> bool {
    matches!(key.rsplit('.').next(), Some("_convert_" | "_recursive_" | "_partial_"))
}

/// True if the key says what is built in.
///
/// # Errors
/// [`Error::Config`] with a class that is not known, or a value that cannot be changed.
pub(super) fn is_built_in(key: &str, value: &Value) -> Result<bool> {
    let (group, last) = key.rsplit_once('.').unwrap_or(("", key));
    if let Some((_, fixed)) = FIXED.iter().find(|(name, _)| *name == key) {
        let same = match (value, fixed) {
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (a, b) => a == b,
        };
        return if same { Ok(true) } else { Err(Error::config(key, format!("{} must be {fixed}", value.brief()))) };
    }
    if last != "_target_" {
        return Ok(false);
    }
    let class = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some((_, classes)) = CLASSES.iter().find(|(name, _)| *name == group) {
        return match value {
            Value::Text(path) if classes.iter().any(|known| class(known) == class(path)) => Ok(true),
            other => Err(Error::config(key, format!("{} is unknown; known is {}", other.brief(), classes.join(", ")))),
        };
    }
    if group.starts_with("data_augmentation.") || group.starts_with("callbacks.") {
        let start = group.split('.').next().unwrap_or_default();
        let known = CLASSES.iter().filter(|(name, _)| name.starts_with(start)).flat_map(|(_, classes)| classes.iter().copied());
        let mut known = known.collect::<Vec<_>>();
        known.dedup();
        return Err(Error::config(key, format!("{} is unknown; known are {}", value.brief(), known.join(", "))));
    }
    Ok(false)
}
