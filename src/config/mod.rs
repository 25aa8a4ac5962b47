//! Configuration: text (YAML or JSON) and overrides to one validated, immutable value; all defaults stand here.
//!
//! - [`text`]: YAML and JSON to a tree; `scalar`: the types of its values.
//! - [`overrides`]: `key=value` and its kin; `grammar`: how they write values.
//! - `compose`: one tree of several files, by their `defaults` lists.
//! - `interpolation`: `${...}`; `clock`: the time in it.
//! - [`tree`]: the tree, and its echo as YAML.
//! - [`known`]: published keys that set nothing here, and why.
//! - `keys`: the table of all keys: name, other names, field, range; `trainer_keys`: those of the trainer and its hooks.
//! - `trainer`: the options of the trainer and its hooks.
//! - [`module`]: the standard module's objectives, metrics, optimiser and schedule.
//! - `cache`: the features on disk.
//! - [`selection`]: which scenarios are used; `selection_keys`: its keys.
//! - `setting`: how each type of field is read and written.

mod cache;
pub(crate) mod clock;
mod compose;
mod grammar;
mod interpolation;
mod keys;
pub mod known;
mod logger;
pub mod module;
pub mod overrides;
mod scalar;
pub mod selection;
mod selection_keys;
mod setting;
pub mod text;
mod trainer;
mod trainer_keys;
pub mod tree;

pub use cache::CacheConfig;
pub use logger::*;
pub use trainer::*;

use crate::error::Result;
use module::{Aggregate, Metric, ModuleKind, ScheduleConfig, StandardOptimizer, Term};
use selection::SelectionConfig;
use std::path::{Path, PathBuf};

/// The final configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The whole run.
    pub run: RunConfig,
    /// `model.*`.
    pub model: ModelConfig,
    /// `model.feature_builder.*`.
    pub features: FeatureConfig,
    /// `custom_trainer.*` losses.
    pub objectives: ObjectiveConfig,
    /// Optimiser and learning-rate schedule.
    pub optimizer: OptimizerConfig,
    /// `splitter.*`.
    pub splitter: SplitterConfig,
    /// `scenario_filter.*`, `data_loader.datamodule.*` and `scenario_type_weights.scenario_type_sampling_weights.*`.
    pub selection: SelectionConfig,
    /// `data_loader.params.*` and what is kept in memory.
    pub loader: LoaderConfig,
    /// `cache.*` on disk.
    pub cache: CacheConfig,
    /// `data_augmentation.contrastive_scenario_generator.*`.
    pub contrastive: ContrastiveConfig,
    /// `lightning.trainer.params.*`.
    pub trainer: TrainerConfig,
    /// `lightning.trainer.checkpoint.*`.
    pub checkpoint: CheckpointConfig,
    /// `callbacks.*`.
    pub callbacks: CallbackConfig,
    /// `evaluation.*`.
    pub evaluation: EvaluationConfig,
    /// `lightning.distributed_training.*`.
    pub distributed: DistributedConfig,
    /// `logger.*` and `wandb.*`.
    pub logger: LoggerConfig,
    /// Keys that were given and have no effect.
    pub without_effect: WithoutEffect,
}

/// Keys that were given and have no effect here, with the reasons. They are not part of the configuration's value: all are equal.
#[derive(Debug, Clone, Default)]
pub struct WithoutEffect(pub Vec<(&'static str, &'static str)>);

impl PartialEq for WithoutEffect {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The tree that a text, a folder and overrides make, before its keys are looked at: composed, overridden, without interpolations.
///
/// # Errors
/// [`crate::error::Error::Config`] with the dotted key.
pub fn resolve(text: &str, folder: Option<&Path>, overrides: &[&str]) -> Result<tree::Value> {
    let overrides = overrides.iter().map(|text| overrides::Override::parse(text)).collect::<Result<Vec<_>>>()?;
    let compose::Composed { mut tree, choices, overrides, allowance } = compose::compose(text, folder, overrides)?;
    for one in overrides {
        let key = keys::place(&one.key, &tree)?;
        one.apply(&key, &mut tree)?;
    }
    let defaults = keys::write(&Config::default());
    interpolation::resolve(&tree, &interpolation::Surroundings { defaults: &defaults, choices: &choices }, allowance)
}

/// What concerns the whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Source of all randomness.
    pub seed: u64,
    /// Threads of the backend; 0 takes all cores.
    pub threads: usize,
    /// Where to compute.
    pub accelerator: Accelerator,
    /// Which device of the accelerator.
    pub devices: Devices,
    /// Precision of parameters and arithmetic.
    pub precision: Precision,
    /// How a GPU multiplies matrices in single precision.
    pub matmul_precision: MatmulPrecision,
    /// Folder of everything that a run writes.
    pub output_dir: PathBuf,
    /// What to go on from.
    pub checkpoint: CheckpointSource,
    /// Weights to start from, where there is no checkpoint to go on from.
    pub pretrained: PretrainedConfig,
    /// Patterns of the parameters that stay as they are.
    pub freeze: Vec<String>,
    /// Show a progress bar on standard error, where that is a terminal.
    pub progress_bar: bool,
    /// Report the final configuration at level info.
    pub log_config: bool,
    /// Training steps with a non-finite loss or gradient, one after the other, that end the run.
    pub max_nonfinite_steps: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            threads: 0,
            accelerator: Accelerator::Auto,
            devices: Devices::All,
            precision: Precision::Single,
            matmul_precision: MatmulPrecision::Highest,
            output_dir: "output".into(),
            checkpoint: CheckpointSource::None,
            pretrained: PretrainedConfig::default(),
            freeze: Vec::new(),
            progress_bar: false,
            log_config: false,
            max_nonfinite_steps: 10,
        }
    }
}

/// Weights that a run starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainedConfig {
    /// File of weights or checkpoint, of this library, PyTorch or Lightning; none starts from initial ones.
    pub path: Option<String>,
    /// Taken off its names that begin so; none takes off `model.`.
    pub strip_prefix: Option<String>,
    /// Put in front of names afterwards.
    pub add_prefix: Option<String>,
    /// A tensor that is missing or extra is an error, not a warning.
    pub strict: bool,
}

impl Default for PretrainedConfig {
    fn default() -> Self {
        Self { path: None, strip_prefix: None, add_prefix: None, strict: true }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The best that there is.
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Gpu,
}

/// Which devices of the accelerator; one is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// All that there are (`-1`, `auto`): the first.
    All,
    /// So many, from the first on.
    Count(usize),
    /// Those with these numbers, from 0.
    These(Vec<usize>),
}

/// How a GPU multiplies matrices in single precision; sums are always in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// As exactly as single precision.
    Highest,
    /// In tf32.
    High,
    /// In bfloat16.
    Medium,
}

/// Precision of parameters and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// `32`.
    Single,
    /// `64`.
    Double,
    /// `16-mixed`: products on a GPU in half precision, the loss scaled.
    HalfMixed,
    /// `bf16-mixed`: products on a GPU in bfloat16.
    BrainMixed,
}

/// What a run goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointSource {
    /// Nothing: it starts anew.
    None,
    /// The last checkpoint in the checkpoint folder.
    Last,
    /// The best checkpoint that the last one knows of.
    Best,
    /// A file.
    Path(PathBuf),
}

impl From<&str> for CheckpointSource {
    fn from(text: &str) -> Self {
        match text {
            "last" => Self::Last,
            "best" => Self::Best,
            "" => Self::None,
            path => Self::Path(path.into()),
        }
    }
}

/// The network's options, by their published names.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Model width D.
    pub dim: usize,
    /// Channels of the ego state that are read.
    pub state_channel: usize,
    /// Channels of an agent's history step.
    pub history_channel: usize,
    /// T.
    pub history_steps: usize,
    /// F.
    pub future_steps: usize,
    /// Encoder layers.
    pub encoder_depth: usize,
    /// Decoder layers.
    pub decoder_depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Modes M of each reference line.
    pub num_modes: usize,
    /// Encode the ego from its history instead of its state.
    pub use_ego_history: bool,
    /// Encode the ego state by attention (otherwise by an MLP).
    pub state_attn_encoder: bool,
    /// Project the ego token for the contrastive loss.
    pub use_hidden_proj: bool,
    /// Concatenate the ego token to every query.
    pub cat_x: bool,
    /// Decode a trajectory without reference lines as well.
    pub ref_free_traj: bool,
    /// Length of reference lines, metres.
    pub radius: f64,
    /// Dropout in the decoder.
    pub dropout: f64,
    /// Highest drop-path rate in the encoders.
    pub drop_path: f64,
    /// Dropout of tokens 3.. of the ego state.
    pub state_dropout: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            dim: 128,
            state_channel: 6,
            history_channel: 9,
            history_steps: 21,
            future_steps: 80,
            encoder_depth: 4,
            decoder_depth: 4,
            num_heads: 4,
            num_modes: 12,
            use_ego_history: false,
            state_attn_encoder: true,
            use_hidden_proj: false,
            cat_x: false,
            ref_free_traj: false,
            radius: 120.0,
            dropout: 0.1,
            drop_path: 0.2,
            state_dropout: 0.75,
        }
    }
}

/// What features are built; the radius is the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureConfig {
    /// Agents besides the ego, the nearest first.
    pub max_agents: usize,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self { max_agents: 48 }
    }
}

/// What is minimised and measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveConfig {
    /// Add the collision loss on the cost map.
    pub use_collision_loss: bool,
    /// Add the contrastive loss; batches are then triplets.
    pub use_contrast_loss: bool,
    /// Add the unit-norm term of the heading vector to the regression loss.
    pub regulate_yaw: bool,
    /// Which module trains. The fields below are the standard one's; with it, the switches above follow from `terms`.
    pub module: ModuleKind,
    /// `objective.*`.
    pub terms: Vec<Term>,
    /// How they make one loss. PLUTO's trainer always sums.
    pub aggregate: Aggregate,
    /// `training_metric.*`.
    pub metrics: Vec<Metric>,
    /// Factor of the ego's imitation objectives by scenario type; 1 for others.
    pub type_weights: Vec<(String, f64)>,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self {
            use_collision_loss: true,
            use_contrast_loss: false,
            regulate_yaw: false,
            module: ModuleKind::Pluto,
            terms: Vec::new(),
            aggregate: Aggregate::Mean,
            metrics: Vec::new(),
            type_weights: Vec::new(),
        }
    }
}

/// Optimiser and schedule of PLUTO's trainer (AdamW; linear warm-up, then a cosine, per epoch) and of the standard module.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerConfig {
    /// Highest learning rate.
    pub lr: f64,
    /// Weight decay of the decayed group.
    pub weight_decay: f64,
    /// Epochs over which the schedule runs.
    pub epochs: usize,
    /// Epochs of warm-up among them.
    pub warmup_epochs: usize,
    /// Bound of the gradient; none or 0 leaves it.
    pub gradient_clip_val: Option<f64>,
    /// What is bounded.
    pub gradient_clip_algorithm: ClipAlgorithm,
    /// `optimizer.*`: the standard module's.
    pub standard: StandardOptimizer,
    /// `lr_scheduler.*` and `warm_up_lr_scheduler.*`: the standard module's.
    pub schedule: ScheduleConfig,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            weight_decay: 1e-4,
            epochs: 25,
            warmup_epochs: 3,
            gradient_clip_val: Some(5.0),
            gradient_clip_algorithm: ClipAlgorithm::Norm,
            standard: StandardOptimizer::default(),
            schedule: ScheduleConfig::default(),
        }
    }
}

/// How scenarios are divided. Log lists, where one is given, stand above the source's own split; scenarios for which
/// neither speaks are divided by log name.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitterConfig {
    /// Log names of the training split.
    pub train_logs: Vec<String>,
    /// Log names of the validation split.
    pub val_logs: Vec<String>,
    /// Log names of the test split.
    pub test_logs: Vec<String>,
    /// Share of the logs that goes to validation where nothing else decides.
    pub val_fraction: f64,
    /// Share of the logs that goes to the test where nothing else decides.
    pub test_fraction: f64,
}

impl Default for SplitterConfig {
    fn default() -> Self {
        Self { train_logs: Vec::new(), val_logs: Vec::new(), test_logs: Vec::new(), val_fraction: 0.1, test_fraction: 0.1 }
    }
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Scenarios of a batch.
    pub batch_size: usize,
    /// Threads that build features and pack batches ahead; 0 does it in the calling thread.
    pub num_workers: usize,
    /// Batches that each worker may be ahead.
    pub prefetch_factor: usize,
    /// Leave out the last training batch if it is not full. Validation and test always see every scenario.
    pub drop_last: bool,
    /// Page-locked memory for copies to a GPU; without one it changes nothing.
    pub pin_memory: bool,
    /// Built features that are kept in memory, MiB; 0 builds them anew in every epoch.
    pub cache_memory_mb: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { batch_size: 32, num_workers: 4, prefetch_factor: 2, drop_last: true, pin_memory: false, cache_memory_mb: 1024 }
    }
}

/// The published generator of contrastive samples.
#[derive(Debug, Clone, PartialEq)]
pub struct ContrastiveConfig {
    /// Least noise on x, y (metres), heading, velocity, acceleration, steering angle and yaw rate of a positive sample's ego.
    pub low: [f64; 7],
    /// Most noise.
    pub high: [f64; 7],
    /// Agents that pass fewer steps than this before the ego do interact with it.
    pub max_interaction_horizon: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        let high = [1.0, 0.75, 0.35, 1.0, 0.5, 0.2, 0.1];
        Self { low: high.map(|h| -h), high, max_interaction_horizon: 40.0 }
    }
}

impl Config {
    /// [`Config::compose`] without a folder.
    ///
    /// # Errors
    /// As there.
    pub fn from_text(text: &str, overrides: &[&str]) -> Result<Self> {
        Self::compose(text, None, overrides)
    }

    /// Reads YAML or JSON; composes what its `defaults` list names, from the files of a folder; applies overrides in Hydra's
    /// grammar, in order; resolves interpolations, which see the defaults of keys that are left out; checks every value.
    ///
    /// # Errors
    /// [`crate::error::Error::Config`] with the dotted key; an unknown key names the nearest known one.
    pub fn compose(text: &str, folder: Option<&Path>, overrides: &[&str]) -> Result<Self> {
        let (tree, without_effect) = keys::canonical(resolve(text, folder, overrides)?)?;
        let config = keys::read(&tree)?;
        Ok(Self { without_effect: WithoutEffect(without_effect.into_iter().copied().collect()), ..config })
    }

    /// The final configuration as YAML text with every default.
    pub fn to_text(&self) -> String {
        keys::write(self).to_yaml()
    }

    /// Folder of the checkpoints.
    pub fn checkpoint_folder(&self) -> PathBuf {
        self.checkpoint.dirpath.as_ref().map_or_else(|| self.run.output_dir.join("checkpoints"), PathBuf::from)
    }
}

#[cfg(test)]
mod tests;
