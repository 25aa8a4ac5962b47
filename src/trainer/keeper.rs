//! Which checkpoints are kept: the best few by a monitored value, and the last.

use super::{
    checkpoint::{self, EXTENSION},
    file_name::FileName,
    session::Session,
    state::{Kept, State},
};
use crate::{
    config::{CheckpointConfig, Config, Mode},
    error::{Error, Result},
    metrics::MetricTable,
};
use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

/// Writes, ranks and removes checkpoints in one folder.
pub struct Keeper {
    folder: PathBuf,
    config: CheckpointConfig,
    file_name: FileName,
    /// Configuration of the run, as checkpoints carry it.
    text: String,
}

impl Keeper {
    /// A keeper for a run.
    ///
    /// # Errors
    /// [`Error::Config`] if the template of file names is wrong.
    pub fn new(config: &Config) -> Result<Self> {
        let file_name = FileName::parse(&config.checkpoint.filename)?;
        Ok(Self { folder: config.checkpoint_folder(), config: config.checkpoint.clone(), file_name, text: config.to_text() })
    }

    /// Folder of all checkpoints.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of a file in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Path of the last checkpoint.
    pub fn last(&self) -> PathBuf {
        self.path(&format!("last.{EXTENSION}"))
    }

    /// Writes a checkpoint if its score is among the best, and removes the one that it displaces. Gives the path if written.
    /// `epoch` is the one that ended, from 0.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written; [`Error::Config`] if the monitored value is not among `metrics`.
    pub fn save_best(&self, session: &Session, state: &mut State, epoch: usize, metrics: &MetricTable) -> Result<Option<PathBuf>> {
        let limit = usize::try_from(self.config.save_top_k).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(None);
        }
        let Some(score) = metrics.get(&self.config.monitor) else {
            let known: Vec<&str> = metrics.0.iter().map(|(name, _)| name.as_str()).collect();
            let reason = format!("'{}' is not logged; logged are {}", self.config.monitor, known.join(", "));
            return Err(Error::config("lightning.trainer.checkpoint.monitor", reason));
        };
        let score = Some(score).filter(|score| score.is_finite());
        let rank = state.kept.iter().position(|kept| self.compare(score, kept.score) == Ordering::Less).unwrap_or(state.kept.len());
        if rank >= limit {
            return Ok(None);
        }
        let kept = Kept { file: self.free_name(&self.file_name.fill(epoch, state.step, metrics), state), score };
        if score.is_some() && state.best.as_ref().is_none_or(|best| self.compare(score, best.score) == Ordering::Less) {
            state.best = Some(kept.clone());
        }
        let path = self.path(&kept.file);
        state.kept.insert(rank, kept);
        let dropped = if state.kept.len() > limit { state.kept.pop() } else { None };
        checkpoint::save(&path, session, &self.text, Some(state))?;
        if let Some(dropped) = dropped {
            let path = self.path(&dropped.file);
            if path.exists() {
                std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
            }
        }
        Ok(Some(path))
    }

    /// Writes the last checkpoint, if the configuration wants one. Gives the path if written.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_last(&self, session: &Session, state: &State) -> Result<Option<PathBuf>> {
        if !self.config.save_last {
            return Ok(None);
        }
        let path = self.last();
        checkpoint::save(&path, session, &self.text, Some(state))?;
        Ok(Some(path))
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
    fn free_name(&self, name: &str, state: &State) -> String {
        let file = |version: usize| if version == 0 { format!("{name}.{EXTENSION}") } else { format!("{name}-v{version}.{EXTENSION}") };
        let taken = |file: &String| self.path(file).exists() || state.kept.iter().any(|kept| kept.file == *file);
        (0..).map(file).find(|file| !taken(file)).unwrap_or_else(|| file(0))
    }
}
