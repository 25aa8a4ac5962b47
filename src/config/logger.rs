//! `logger.*` and `wandb.*`: where a run is logged to.

use super::{
    Config,
    keys::{NOT_EMPTY, Rule, SWITCH, Visitor, any},
    setting::{Setting, words},
    tree::Value,
};
use crate::error::Result;
use std::{path::PathBuf, time::Duration};

/// What is logged where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerConfig {
    /// Write a TensorBoard event file.
    pub tensorboard: bool,
    /// Write `metrics.csv`.
    pub csv: bool,
    /// Folder of both; none takes the output folder.
    pub dirpath: Option<String>,
    /// Scenarios of a validation whose prediction is drawn.
    pub images: usize,
    /// `wandb.*`.
    pub wandb: WandbConfig,
}

impl Default for LoggerConfig {
    fn default() -> Self {
        Self { tensorboard: true, csv: false, dirpath: None, images: 4, wandb: WandbConfig::default() }
    }
}

/// Whether a run is logged to Weights & Biases, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WandbMode {
    /// Not.
    Disabled,
    /// To files that its client uploads later.
    Offline,
    /// To files that its client uploads at once.
    Online,
}

words!(WandbMode, "online, offline or disabled", Disabled = "disabled" | "disable", Offline = "offline" | "dryrun", Online = "online");

/// Which checkpoints are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogModel {
    /// None.
    None,
    /// The best one, when training is over.
    Best,
    /// Every one.
    All,
}

impl Setting for LogModel {
    const EXPECTED: &'static str = "all, best (or true) or none (or false)";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null | Value::Bool(false) => Some(Self::None),
            Value::Bool(true) => Some(Self::Best),
            Value::Text(word) => match word.as_str() {
                "none" => Some(Self::None),
                "best" => Some(Self::Best),
                "all" => Some(Self::All),
                _ => None,
            },
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::Text(
            match self {
                Self::None => "none",
                Self::Best => "best",
                Self::All => "all",
            }
            .into(),
        )
    }
}

/// Seconds.
impl Setting for Duration {
    const EXPECTED: &'static str = "a whole number of seconds";
    fn read(node: &Value) -> Option<Self> {
        u64::read(node).map(Self::from_secs)
    }
    fn write(&self) -> Value {
        self.as_secs().write()
    }
}

/// A run in Weights & Biases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WandbConfig {
    /// Whether and how.
    pub mode: WandbMode,
    /// Team or user; none takes that of the key.
    pub entity: Option<String>,
    /// Project; none leaves the choice to the client.
    pub project: Option<String>,
    /// Name that people see; none lets the service choose.
    pub name: Option<String>,
    /// Name of the run in the service. One that is there is gone on with; none draws a new one.
    pub run_id: Option<String>,
    /// Group of runs.
    pub group: Option<String>,
    /// Which checkpoints are uploaded.
    pub log_model: LogModel,
    /// A model `ENTITY/PROJECT/NAME:ALIAS` to go on from, and its run with it.
    pub artifact: Option<String>,
    /// The official client: a program among the folders of `PATH`, or its path.
    pub command: String,
    /// How long the end of a run waits for the client.
    pub finish_timeout: Duration,
}

impl Default for WandbConfig {
    fn default() -> Self {
        Self {
            mode: WandbMode::Disabled,
            entity: None,
            project: None,
            name: None,
            run_id: None,
            group: None,
            log_model: LogModel::None,
            artifact: None,
            command: "wandb".into(),
            finish_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Folder of the TensorBoard file and the table.
    pub fn logger_folder(&self) -> PathBuf {
        self.logger.dirpath.as_ref().map_or_else(|| self.run.output_dir.clone(), PathBuf::from)
    }
}

/// Shows every key to the visitor, in the order of the echo.
#[rustfmt::skip]
pub(super) fn visit(c: &mut Config, v: &mut impl Visitor) -> Result<()> {
    let logger = &mut c.logger;
    v.key("logger.tensorboard", &[], &mut logger.tensorboard, SWITCH)?;
    v.key("logger.csv", &[], &mut logger.csv, SWITCH)?;
    v.key("logger.dirpath", &[], &mut logger.dirpath, NOT_EMPTY)?;
    v.key("logger.images", &[], &mut logger.images, Rule(|x| *x <= 1000, "at most 1000"))?;

    let wandb = &mut logger.wandb;
    v.key("wandb.mode", &[], &mut wandb.mode, any())?;
    v.key("wandb.entity", &[], &mut wandb.entity, any())?;
    v.key("wandb.project", &[], &mut wandb.project, any())?;
    v.key("wandb.name", &[], &mut wandb.name, any())?;
    v.key("wandb.run_id", &[], &mut wandb.run_id, Rule(|x| x.as_deref().is_none_or(is_run_id), "1 to 64 letters, digits, - and _"))?;
    v.key("wandb.group", &[], &mut wandb.group, any())?;
    v.key("wandb.log_model", &[], &mut wandb.log_model, any())?;
    v.key("wandb.artifact", &[], &mut wandb.artifact, any())?;
    v.key("wandb.command", &[], &mut wandb.command, Rule(|x| !x.is_empty(), "not empty"))?;
    v.key("wandb.finish_timeout", &[], &mut wandb.finish_timeout, Rule(|x| x.as_secs() <= 86_400, "at most 86400"))
}

/// True for what can be a name in the service and part of a file's name.
fn is_run_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
