//! Options of the trainer and its hooks.

use super::{Config, setting::Setting, tree::Value};
use std::time::Duration;

/// A number of batches, or a share of them: `1` and `1.0` differ. As in Lightning, a float above 1 must be whole and is a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// At most so many.
    Count(usize),
    /// This share, rounded down.
    Share(f64),
}

impl Limit {
    /// How many of `batches` are used.
    pub fn apply(self, batches: usize) -> usize {
        match self {
            Self::Count(count) => count.min(batches),
            Self::Share(share) => (batches as f64 * share) as usize,
        }
    }

    /// True if nothing is used, however many there are.
    pub fn is_zero(self) -> bool {
        self == Self::Count(0) || self == Self::Share(0.0)
    }
}

impl Setting for Limit {
    const EXPECTED: &'static str = "a number of batches (1), a share of them (from 0.0 to 1.0) or null";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null => Some(Self::Share(1.0)),
            Value::Int(count) => (*count).try_into().ok().map(Self::Count),
            Value::Float(share) if (0.0..=1.0).contains(share) => Some(Self::Share(*share)),
            Value::Float(count) if *count > 1.0 && *count <= 1e15 && count.fract() == 0.0 => Some(Self::Count(*count as usize)),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            Self::Count(count) => count.write(),
            Self::Share(share) => Value::Float(*share),
        }
    }
}

/// Batches of a trial run: `true` is 1, `false` is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FastDevRun(pub usize);

impl Setting for FastDevRun {
    const EXPECTED: &'static str = "true, false or a number of batches";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Bool(on) => Some(Self((*on).into())),
            Value::Int(count) => (*count).try_into().ok().map(Self),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        self.0.write()
    }
}

/// `DD:HH:MM:SS`.
impl Setting for Option<Duration> {
    const EXPECTED: &'static str = "a time as 'DD:HH:MM:SS' or null";
    fn read(node: &Value) -> Option<Self> {
        let text = match node {
            Value::Null => return Some(None),
            Value::Text(text) => text,
            _ => return None,
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [days, hours, minutes, seconds] = parts[..] else { return None };
        let number = |text: &str| if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok().map(u64::from) } else { None };
        let seconds = ((number(days)? * 24 + number(hours)?) * 60 + number(minutes)?) * 60 + number(seconds)?;
        Some(Some(Duration::from_secs(seconds)))
    }
    fn write(&self) -> Value {
        self.map_or(Value::Null, |time| {
            let (days, rest) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
            Value::Text(format!("{days:02}:{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60))
        })
    }
}

/// `lightning.trainer.params.*`: the loops.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerConfig {
    /// Epochs after which training ends; none takes those of the schedule, or no end if `max_steps` or `max_time` is given; -1 no end.
    pub max_epochs: Option<i64>,
    /// Epochs before which no hook ends training.
    pub min_epochs: Option<usize>,
    /// Updates after which training ends; -1 no end.
    pub max_steps: i64,
    /// Updates before which no hook ends training.
    pub min_steps: Option<usize>,
    /// Time after which training is interrupted, that of earlier calls included. Unlike Lightning's timer it ends the call as a stop of the
    /// host does: no validation follows, and `min_epochs` and `min_steps` do not hold it up.
    pub max_time: Option<Duration>,
    /// Training batches between two validations: a number, or a share of the epoch.
    pub val_check_interval: Limit,
    /// Epochs between those with a validation; none counts `val_check_interval` across epochs.
    pub check_val_every_n_epoch: Option<usize>,
    /// Training batches of an epoch.
    pub limit_train_batches: Limit,
    /// Validation batches.
    pub limit_val_batches: Limit,
    /// Test batches.
    pub limit_test_batches: Limit,
    /// If not 0: only these batches for training and validation, in their order.
    pub overfit_batches: Limit,
    /// `lightning.trainer.overfitting.*`.
    pub overfitting: OverfittingConfig,
    /// Validation batches that are tried before training; -1 takes all.
    pub num_sanity_val_steps: i64,
    /// If not 0: a trial with so many batches of everything, without loggers and checkpoints.
    pub fast_dev_run: FastDevRun,
    /// Batches whose gradients make one update, as their mean.
    pub accumulate_grad_batches: usize,
    /// Updates between two records of the training loss in the loggers.
    pub log_every_n_steps: usize,
    /// End with an error that names the first operation whose value or gradient is not finite.
    pub detect_anomaly: bool,
    /// Write checkpoints.
    pub enable_checkpointing: bool,
    /// Log a table of the model's parts.
    pub enable_model_summary: bool,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            max_epochs: None,
            min_epochs: None,
            max_steps: -1,
            min_steps: None,
            max_time: None,
            val_check_interval: Limit::Share(1.0),
            check_val_every_n_epoch: Some(1),
            limit_train_batches: Limit::Share(1.0),
            limit_val_batches: Limit::Share(1.0),
            limit_test_batches: Limit::Share(1.0),
            overfit_batches: Limit::Share(0.0),
            overfitting: OverfittingConfig::default(),
            num_sanity_val_steps: 1,
            fast_dev_run: FastDevRun(0),
            accumulate_grad_batches: 1,
            log_every_n_steps: 50,
            detect_anomaly: false,
            enable_checkpointing: true,
            enable_model_summary: true,
        }
    }
}

/// What of a gradient is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipAlgorithm {
    /// The norm of the whole.
    Norm,
    /// The size of every element.
    Value,
}

/// Whether a low or a high value of the monitored metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Low is good.
    Min,
    /// High is good.
    Max,
}

impl Mode {
    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
        }
    }

    /// True if `a` is better than `b`; false if either is no number.
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Min => a < b,
            Self::Max => a > b,
        }
    }
}

/// `lightning.trainer.checkpoint.*`: which checkpoints are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointConfig {
    /// Their folder; none takes `checkpoints` in the output folder.
    pub dirpath: Option<String>,
    /// Name of a top-k checkpoint: `{name}` and `{name:.3f}` stand for the epoch, the step and logged values.
    pub filename: String,
    /// Put `name=` before each value in a file name.
    pub auto_insert_metric_name: bool,
    /// Give a file whose name is taken another one, with `-v1`, `-v2`, ...
    pub enable_version_counter: bool,
    /// Logged value that ranks them; none ranks the newest highest.
    pub monitor: Option<String>,
    /// Whether low or high is good.
    pub mode: Mode,
    /// How many of the best are kept; 0 keeps none, -1 all.
    pub save_top_k: i64,
    /// Keep the last one as well.
    pub save_last: bool,
    /// Epochs between those that are ranked; none: 1, or 0 where steps or times are ranked instead.
    pub every_n_epochs: Option<usize>,
    /// Updates between checkpoints. Beside `every_n_epochs`, they go to the last one alone.
    pub every_n_train_steps: Option<usize>,
    /// Time between checkpoints. Beside `every_n_epochs`, they go to the last one alone.
    pub train_time_interval: Option<Duration>,
    /// Whether epochs are ranked at their end or after the validation; none: at the end where each has one validation, at its end.
    pub save_on_train_epoch_end: Option<bool>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            dirpath: None,
            filename: "{epoch}-{val/minFDE:.3f}".into(),
            auto_insert_metric_name: true,
            enable_version_counter: true,
            monitor: Some("loss/val_loss".into()),
            mode: Mode::Min,
            save_top_k: 5,
            save_last: true,
            every_n_epochs: None,
            every_n_train_steps: None,
            train_time_interval: None,
            save_on_train_epoch_end: None,
        }
    }
}

/// `callbacks.*`: hooks beside the checkpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallbackConfig {
    /// Ends training when a value improves no more.
    pub early_stopping: EarlyStoppingConfig,
    /// When learning rates are logged.
    pub learning_rate_interval: LoggingInterval,
    /// How the model is shown before training.
    pub model_summary: ModelSummaryConfig,
    /// Log the seconds that epochs and evaluations take.
    pub time_logging: bool,
    /// Scenarios whose scenes an evaluation by itself writes: as many with the lowest loss, with the highest, and drawn.
    pub scored_scenarios: usize,
    /// Steps at the start of `fit` that are profiled.
    pub profiled_steps: usize,
}

/// `evaluation.*`: what a validation or test by itself gives besides its means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvaluationConfig {
    /// Losses and metrics by scenario type, in the report and as a file.
    pub by_type: bool,
    /// Losses and metrics of every scenario, as a file.
    pub per_scenario_csv: bool,
}

/// `callbacks.early_stopping.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyStoppingConfig {
    /// Logged value that is watched; none for no early stopping.
    pub monitor: Option<String>,
    /// What an improvement must exceed.
    pub min_delta: f64,
    /// Checks without improvement that end training.
    pub patience: usize,
    /// Whether low or high is good.
    pub mode: Mode,
    /// A missing value is an error.
    pub strict: bool,
    /// A value that is not finite ends training.
    pub check_finite: bool,
    /// A value better than this ends training.
    pub stopping_threshold: Option<f64>,
    /// A value worse than this ends training.
    pub divergence_threshold: Option<f64>,
    /// Whether it is checked at the end of epochs or after validations; none: as checkpoints are.
    pub check_on_train_epoch_end: Option<bool>,
}

impl Default for EarlyStoppingConfig {
    fn default() -> Self {
        Self {
            monitor: None,
            min_delta: 0.0,
            patience: 3,
            mode: Mode::Min,
            strict: true,
            check_finite: true,
            stopping_threshold: None,
            divergence_threshold: None,
            check_on_train_epoch_end: None,
        }
    }
}

/// When something is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoggingInterval {
    /// At the start of epochs.
    #[default]
    Epoch,
    /// At every `log_every_n_steps`-th update.
    Step,
}

/// `lightning.trainer.overfitting.*`: a run on the same few batches, to see that the network learns them.
#[derive(Debug, Clone, PartialEq)]
pub struct OverfittingConfig {
    /// Take the values below for the trainer's own, and load in the calling thread.
    pub enable: bool,
    /// Epochs of such a run.
    pub max_epochs: usize,
    /// Its batches.
    pub overfit_batches: Limit,
}

impl Default for OverfittingConfig {
    fn default() -> Self {
        Self { enable: false, max_epochs: 150, overfit_batches: Limit::Count(1) }
    }
}

/// `callbacks.model_summary.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummaryConfig {
    /// Levels of the model that are listed; -1 all, 0 none.
    pub max_depth: i64,
}

impl Default for ModelSummaryConfig {
    fn default() -> Self {
        Self { max_depth: 1 }
    }
}

/// `lightning.distributed_training.*`: what changes with the number of ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributedConfig {
    /// Scale the learning rate and AdamW's decay rates with the number of ranks.
    pub scale_lr: bool,
    /// Scale by its square root.
    pub equal_variance_scaling_strategy: bool,
}

impl Default for DistributedConfig {
    fn default() -> Self {
        Self { scale_lr: false, equal_variance_scaling_strategy: true }
    }
}

impl Config {
    /// Epochs after which training ends; none for no end.
    pub fn max_epochs(&self) -> Option<usize> {
        match self.trainer.max_epochs {
            Some(epochs) => usize::try_from(epochs).ok(),
            None if self.trainer.max_steps >= 0 || self.trainer.max_time.is_some() => None,
            None => Some(self.optimizer.epochs),
        }
    }

    /// Carries out `overfitting`, `fast_dev_run` and `overfit_batches`, which stand for the values of other keys.
    pub fn settle_trainer(&mut self) {
        let trainer = &mut self.trainer;
        if trainer.overfitting.enable {
            self.loader.num_workers = 0;
            trainer.max_epochs = Some(trainer.overfitting.max_epochs as i64);
            trainer.overfit_batches = trainer.overfitting.overfit_batches;
        }
        if !trainer.overfit_batches.is_zero() {
            trainer.limit_train_batches = trainer.overfit_batches;
            trainer.limit_val_batches = trainer.overfit_batches;
        }
        let batches = trainer.fast_dev_run.0;
        if batches > 0 {
            let limit = Limit::Count(batches);
            (trainer.limit_train_batches, trainer.limit_val_batches, trainer.limit_test_batches) = (limit, limit, limit);
            (trainer.max_epochs, trainer.max_steps) = (Some(1), batches as i64);
            (trainer.num_sanity_val_steps, trainer.val_check_interval) = (0, Limit::Share(1.0));
            trainer.check_val_every_n_epoch = Some(1);
            (trainer.enable_checkpointing, self.callbacks.early_stopping.monitor) = (false, None);
        }
    }
}
