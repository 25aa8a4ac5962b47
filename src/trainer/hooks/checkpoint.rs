//! Which checkpoints are kept: the best few by a monitored value, and the last.

use super::{Context, Hook, file_name::FileName};
use crate::{
    config::{CheckpointConfig, Config, Mode},
    error::{Error, Result},
    trainer::checkpoint::EXTENSION,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

/// Name under which the state of [`Checkpoints`] is kept.
pub const NAME: &str = "model_checkpoint";

/// A checkpoint with its rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// File name in the checkpoint folder.
    pub file: String,
    /// Value of the monitored metric; none if it was not finite.
    pub score: Option<f64>,
}

/// What is known of the files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// Checkpoints that are among the best, best first.
    pub kept: Vec<Kept>,
    /// The best of all that were ever seen.
    pub best: Option<Kept>,
}

/// Writes, ranks and removes checkpoints in one folder.
pub struct Checkpoints {
    folder: PathBuf,
    config: CheckpointConfig,
    file_name: FileName,
    files: Files,
}

impl Checkpoints {
    /// The hook of a run.
    ///
    /// # Errors
    /// [`Error::Config`] if the template of file names is wrong.
    pub fn new(config: &Config) -> Result<Self> {
        let file_name = FileName::parse(&config.checkpoint.filename)?;
        Ok(Self { folder: config.checkpoint_folder(), config: config.checkpoint.clone(), file_name, files: Files::default() })
    }

    /// Path of the last checkpoint.
    pub fn last(folder: &Path) -> PathBuf {
        folder.join(format!("last.{EXTENSION}"))
    }

    /// What the saved states of hooks say of the files.
    pub fn files(states: &serde_json::Map<String, Value>) -> Option<Files> {
        states.get(NAME).and_then(|state| Files::deserialize(state).ok())
    }

    /// Asks for a checkpoint if the monitored value is among the best, and for the removal of the one that it displaces.
    fn save_best(&mut self, context: &mut Context) -> Result<()> {
        let limit = usize::try_from(self.config.save_top_k).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(());
        }
        let metrics = &context.state.metrics;
        let Some(score) = metrics.get(&self.config.monitor) else {
            if !context.state.validated_once {
                return Ok(());
            }
            let known: Vec<&str> = metrics.0.iter().map(|(name, _)| name.as_str()).collect();
            let reason = format!("'{}' is not logged; logged are {}", self.config.monitor, known.join(", "));
            return Err(Error::config("lightning.trainer.checkpoint.monitor", reason));
        };
        let score = Some(score).filter(|score| score.is_finite());
        let kept = &self.files.kept;
        let rank = kept.iter().position(|kept| self.compare(score, kept.score) == Ordering::Less).unwrap_or(kept.len());
        if rank >= limit {
            return Ok(());
        }
        let name = self.file_name.fill(context.state.epoch, context.state.step, metrics);
        let kept = Kept { file: self.free_name(&name), score };
        if score.is_some() && self.files.best.as_ref().is_none_or(|best| self.compare(score, best.score) == Ordering::Less) {
            self.files.best = Some(kept.clone());
        }
        context.save(self.folder.join(&kept.file));
        self.files.kept.insert(rank, kept);
        if self.files.kept.len() > limit
            && let Some(dropped) = self.files.kept.pop()
        {
            context.remove(self.folder.join(dropped.file));
        }
        Ok(())
    }

    fn save_last(&mut self, context: &mut Context) {
        if self.config.save_last {
            context.save(Self::last(&self.folder));
        }
    }

    /// Less if `a` is better. What is not finite is worse than everything.
    fn compare(&self, a: Option<f64>, b: Option<f64>) -> Ordering {
        match (a, b, self.config.mode) {
            (Some(a), Some(b), Mode::Min) => a.total_cmp(&b),
            (Some(a), Some(b), Mode::Max) => b.total_cmp(&a),
            (Some(_), None, _) => Ordering::Less,
            (None, Some(_), _) => Ordering::Greater,
            (None, None, _) => Ordering::Equal,
        }
    }

    /// A file name that is not taken: `name`, `name-v1`, `name-v2`, ...
    fn free_name(&self, name: &str) -> String {
        let file = |version: usize| if version == 0 { format!("{name}.{EXTENSION}") } else { format!("{name}-v{version}.{EXTENSION}") };
        let taken = |file: &String| self.folder.join(file).exists() || self.files.kept.iter().any(|kept| kept.file == *file);
        (0..).map(file).find(|file| !taken(file)).unwrap_or_else(|| file(0))
    }
}

impl Hook for Checkpoints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        self.save_best(context)?;
        self.save_last(context);
        Ok(())
    }

    fn fit_end(&mut self, context: &mut Context) -> Result<()> {
        if context.run.is_interrupted() {
            self.save_last(context);
        }
        Ok(())
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.files).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> std::result::Result<(), String> {
        self.files = Files::deserialize(state).map_err(|e| e.to_string())?;
        Ok(())
    }
}
