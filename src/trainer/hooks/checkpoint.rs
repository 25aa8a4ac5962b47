//! Which checkpoints are kept: the best few by a monitored value, and the last.
//!
//! Rules are those of Lightning 2.0: the best are written first, then the one that is displaced is removed, then `last` is written;
//! a file that lies there already is left alone and the new one called `name-v1`. Two things differ. `/` in a name becomes `_`,
//! where Lightning makes folders. And `every_n_train_steps` and `train_time_interval` may stand beside `every_n_epochs`, for safety
//! from crashes: they then write `last` alone.

use super::{BatchEnd, Context, Hook, file_name::FileName};
use crate::{
    config::{CheckpointConfig, CheckpointSource, Config},
    error::{Error, Result},
    files::remove_abandoned,
    logger::SavedCheckpoint,
    scenario::Split,
    trainer::{
        checkpoint::{self, EXTENSION},
        host::LogLevel,
        state::State,
        weights::File,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Name under which the state of [`Checkpoints`] is kept.
pub const NAME: &str = "model_checkpoint";

/// A checkpoint with its rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// File name in the checkpoint folder.
    pub file: String,
    /// Value of the monitored metric; none if it was not finite, which is worse than everything.
    pub score: Option<f64>,
}

/// What is known of the files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// Checkpoints that are among the best, in the order in which they were written.
    pub kept: Vec<Kept>,
    /// The best of them, or the newest without a monitor.
    pub best: Option<Kept>,
    /// Mode and monitored value by which they were ranked.
    #[serde(default)]
    ranked_by: Option<String>,
    /// File name of the last checkpoint.
    pub last: Option<String>,
    /// Step of the newest checkpoint.
    step: Option<u64>,
    /// Second of training at which the newest checkpoint for safety was written.
    seconds: f64,
}

impl Files {
    /// Those of a saved state, all in the folder of checkpoints: a file elsewhere is not ours to remove.
    fn read(state: &Value) -> std::result::Result<Self, String> {
        let files = Self::deserialize(state).map_err(|e| e.to_string())?;
        let mut names = files.kept.iter().chain(&files.best).map(|kept| &kept.file).chain(&files.last);
        match names.find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            Some(name) => Err(format!("'{name}' is no name of a file")),
            None => Ok(files),
        }
    }
}

/// Writes, ranks and removes checkpoints in one folder.
pub struct Checkpoints {
    folder: PathBuf,
    config: CheckpointConfig,
    file_name: FileName,
    /// A file that is never removed: the one that was gone on from.
    source: Option<PathBuf>,
    files: Files,
    /// What of it was written.
    written: Files,
    /// Files that were asked for and are not written yet.
    unwritten: usize,
    /// What asked for them.
    asked: Option<Ask>,
    /// The step at the last batch.
    step: u64,
    warned: bool,
}

/// Asks for checkpoints of the run as it is.
type Ask = fn(&mut Checkpoints, &mut Context) -> Result<()>;

impl Checkpoints {
    /// The hook of a run.
    ///
    /// # Errors
    /// [`Error::Config`] if the template of file names is wrong.
    pub fn new(config: &Config) -> Result<Self> {
        let checkpoint = config.checkpoint.clone();
        let source = if let CheckpointSource::Path(path) = &config.run.checkpoint { path.canonicalize().ok() } else { None };
        let mut hook = Self {
            folder: config.checkpoint_folder(),
            file_name: FileName::parse(&checkpoint.filename, checkpoint.auto_insert_metric_name)?,
            config: checkpoint,
            source,
            files: Files::default(),
            written: Files::default(),
            unwritten: 0,
            asked: None,
            step: 0,
            warned: false,
        };
        hook.files.ranked_by = hook.ranked_by();
        hook.written = hook.files.clone();
        Ok(hook)
    }

    /// The newest of the files `last`, `last-v1`, ... of a folder.
    pub fn last(folder: &Path) -> Option<PathBuf> {
        let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        let is_last = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            path.extension().is_some_and(|e| e == EXTENSION) && (stem == "last" || stem.starts_with("last-v"))
        };
        let age = |path: &PathBuf| (path.metadata().and_then(|data| data.modified()).ok(), path.clone());
        files.filter(is_last).max_by_key(age)
    }

    /// What the saved states of hooks say of the files.
    pub fn files(states: &serde_json::Map<String, Value>) -> Option<Files> {
        states.get(NAME).and_then(|state| Files::read(state).ok())
    }

    fn ranked_by(&self) -> Option<String> {
        self.config.monitor.as_ref().map(|monitor| format!("{} {monitor}", self.config.mode.name()))
    }

    /// Epochs between those that are ranked; 0 if none is.
    fn ranked_epochs(&self) -> usize {
        let other = self.config.every_n_train_steps.is_some() || self.config.train_time_interval.is_some();
        self.config.every_n_epochs.unwrap_or(usize::from(!other))
    }

    /// Asks for checkpoints, and once more in the next call of `fit` if they cannot be written in this one.
    fn ask(&mut self, context: &mut Context, ask: Ask) -> Result<()> {
        self.asked = Some(ask);
        ask(self, context)
    }

    /// Asks for what is due after an epoch or a validation.
    fn save_of_epoch(&mut self, context: &mut Context) -> Result<()> {
        if self.files.step == Some(context.state.step) {
            return Ok(());
        }
        let epochs = self.ranked_epochs();
        if epochs > 0 && (context.state.epoch + 1).is_multiple_of(epochs) {
            self.save_best(context)?;
        }
        self.save_last(context);
        Ok(())
    }

    /// True if epochs are ranked at their end, false if after validations.
    fn ranks_at_epoch_end(&self, context: &Context) -> bool {
        self.config.save_on_train_epoch_end.unwrap_or(context.limits.judges_at_epoch_end)
    }

    /// Asks for a checkpoint if the monitored value is among the best, and for the removal of the one that it displaces.
    fn save_best(&mut self, context: &mut Context) -> Result<()> {
        let most = usize::try_from(self.config.save_top_k).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(());
        }
        let score = match &self.config.monitor {
            None => None,
            Some(monitor) => match context.metric(monitor) {
                Some(score) => Some(score).filter(|score| score.is_finite()),
                None => return self.monitor_is_missing(context, monitor.clone()),
            },
        };
        let full = self.files.kept.len() >= most;
        let displaced = if full { self.worst() } else { None };
        if let (Some(worst), Some(_)) = (displaced, &self.config.monitor)
            && !self.better(score, self.files.kept[worst].score)
        {
            return Ok(());
        }
        let displaced = displaced.map(|worst| self.files.kept.remove(worst).file);
        let name = self.file_name.fill(context);
        let file = self.free_name(context, &name, displaced.as_deref());
        self.files.kept.push(Kept { file: file.clone(), score });
        self.files.best = self.best();
        self.save(context, &file);
        self.remove(context, displaced, &file);
        Ok(())
    }

    /// An error once a validation was done and the value could be there; before that, a warning.
    fn monitor_is_missing(&mut self, context: &mut Context, monitor: String) -> Result<()> {
        let known: Vec<&str> = context.state.metrics.0.iter().map(|(name, _)| name.as_str()).collect();
        let reason = format!("'{monitor}' is not logged; logged are {}", known.join(", "));
        if context.state.validated_once && !context.is_to_come(&monitor) {
            return Err(Error::config("lightning.trainer.checkpoint.monitor", reason));
        }
        if !std::mem::replace(&mut self.warned, true) {
            context.run.log(LogLevel::Warning, &format!("no checkpoint is ranked: {reason}"));
        }
        Ok(())
    }

    fn save_last(&mut self, context: &mut Context) {
        if !self.config.save_last {
            return;
        }
        // One name for the whole run: to look for it reads the files of others.
        let file = self.files.last.clone().unwrap_or_else(|| self.free_name(context, "last", None));
        self.files.last = Some(file.clone());
        self.save(context, &file);
    }

    /// Asks for a `last` checkpoint amid an epoch, whose end has its own, even with no step between.
    fn save_amid(&mut self, context: &mut Context) -> Result<()> {
        let before = self.files.step;
        self.save_last(context);
        self.files.step = before;
        Ok(())
    }

    /// Asks for what is due after a step.
    fn save_of_step(&mut self, context: &mut Context) -> Result<()> {
        if self.ranked_epochs() > 0 {
            return self.save_amid(context);
        }
        self.save_best(context)?;
        self.save_last(context);
        Ok(())
    }

    fn save(&mut self, context: &mut Context, file: &str) {
        context.save(self.folder.join(file));
        self.unwritten += 1;
        self.files.step = Some(context.state.step);
    }

    /// Removes a file that another has taken the place of.
    fn remove(&self, context: &mut Context, file: Option<String>, replaced_by: &str) {
        let Some(file) = file.filter(|file| file != replaced_by) else { return };
        let path = self.folder.join(file);
        if self.source.is_none() || path.canonicalize().ok() != self.source {
            context.remove(path);
        }
    }

    /// True if score `a` is better than `b`.
    fn better(&self, a: Option<f64>, b: Option<f64>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => self.config.mode.better(a, b),
            (a, b) => a.is_some() && b.is_none(),
        }
    }

    /// Position of the worst that is kept, the oldest of equals.
    fn worst(&self) -> Option<usize> {
        let kept = &self.files.kept;
        (0..kept.len()).reduce(|worst, i| if self.better(kept[worst].score, kept[i].score) { i } else { worst })
    }

    /// The best that is kept, the oldest of equals; the newest without a monitor.
    fn best(&self) -> Option<Kept> {
        let kept = self.files.kept.iter();
        match self.config.monitor {
            None => kept.last().cloned(),
            Some(_) => kept.reduce(|best, other| if self.better(other.score, best.score) { other } else { best }).cloned(),
        }
    }

    /// Tells the loggers of a file that was written, here or before the run was gone on with.
    fn tell_loggers(&self, context: &mut Context, path: &Path, is_earlier: bool) {
        let of_file = |kept: &&Kept| self.folder.join(&kept.file) == path;
        let score = self.files.kept.iter().find(of_file).and_then(|kept| kept.score);
        let (is_best, config) = (self.files.best.as_ref().is_some_and(|best| of_file(&best)), &self.config);
        let options = json!({
            "monitor": config.monitor, "mode": config.mode.name(),
            "save_last": config.save_last, "save_top_k": config.save_top_k,
        });
        context.loggers.checkpoint(context.run, &SavedCheckpoint { path, is_best, is_earlier, score, options: &options });
    }

    /// A file name that is not taken: `name`, `name-v1`, `name-v2`, ... A file that this run will write over is no obstacle.
    fn free_name(&self, context: &Context, name: &str, own: Option<&str>) -> String {
        let file = |version: usize| if version == 0 { format!("{name}.{EXTENSION}") } else { format!("{name}-v{version}.{EXTENSION}") };
        let free = |file: &String| {
            let path = self.folder.join(file);
            !self.config.enable_version_counter || own == Some(file.as_str()) || !path.exists() || is_of_this_moment(context, &path)
        };
        (0..).map(file).find(free).unwrap_or_else(|| file(0))
    }
}

/// True for a checkpoint that this run itself wrote at this very moment, before it was killed and gone on with from an earlier one.
fn is_of_this_moment(context: &Context, path: &Path) -> bool {
    let state = File::read(path).and_then(|file| checkpoint::header(&file)).ok().and_then(|header| header.state);
    state.is_some_and(|state| state.run == context.state.run && state.batches == context.state.batches)
}

impl Hook for Checkpoints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fit_start(&mut self, context: &mut Context) -> Result<()> {
        self.step = context.state.step;
        remove_abandoned(&self.folder);
        // A part of the run that was killed could not hand it on.
        if let Some(path) = self.files.best.as_ref().map(|best| self.folder.join(&best.file)).filter(|path| path.exists()) {
            self.tell_loggers(context, &path, true);
        }
        let Some(ask) = self.asked.filter(|_| std::mem::take(&mut self.unwritten) > 0) else { return Ok(()) };
        // One that was to make room may be gone.
        self.files.kept.retain(|kept| self.folder.join(&kept.file).exists());
        self.files.best = self.best();
        self.ask(context, ask)
    }

    fn owes(&self) -> bool {
        self.unwritten > 0
    }

    fn waits(&self, state: &State, updates: u64) -> bool {
        let comes = |n: usize| n > 0 && (state.step + updates) / n as u64 > state.step / n as u64;
        self.config.train_time_interval.is_some() || self.config.every_n_train_steps.is_some_and(comes)
    }

    fn batch_end(&mut self, context: &mut Context, _: &BatchEnd) -> Result<()> {
        let (step, seconds) = (context.state.step, context.state.seconds);
        if std::mem::replace(&mut self.step, step) == step {
            return Ok(());
        }
        let steps = self.config.every_n_train_steps.is_some_and(|n| n > 0 && step.is_multiple_of(n as u64));
        let time = self.config.train_time_interval.is_some_and(|time| seconds - self.files.seconds >= time.as_secs_f64());
        if !(steps || time) {
            return Ok(());
        }
        if time {
            self.files.seconds = seconds;
        }
        self.ask(context, Self::save_of_step)
    }

    fn evaluation_end(&mut self, context: &mut Context, split: Split) -> Result<()> {
        if context.fitting && split == Split::Validation && !self.ranks_at_epoch_end(context) {
            self.ask(context, Self::save_of_epoch)?;
        }
        Ok(())
    }

    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        if self.ranks_at_epoch_end(context) {
            self.ask(context, Self::save_of_epoch)?;
        }
        Ok(())
    }

    fn checkpoint_saved(&mut self, context: &mut Context, path: &Path) -> Result<()> {
        self.unwritten = self.unwritten.saturating_sub(1);
        if self.unwritten == 0 {
            self.written = self.files.clone();
        }
        self.tell_loggers(context, path, false);
        Ok(())
    }

    fn fit_end(&mut self, context: &mut Context) -> Result<()> {
        if context.run.is_interrupted() {
            self.ask(context, Self::save_amid)?;
        }
        Ok(())
    }

    fn exception(&mut self, _: &mut Context, _: &Error) {
        if self.unwritten > 0 {
            self.files = self.written.clone();
        }
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.files).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> std::result::Result<(), String> {
        self.files = Files::read(state)?;
        // Scores of another value say nothing about this one; as in Lightning, its files stay where they are.
        if self.files.ranked_by != self.ranked_by() {
            (self.files.kept, self.files.best, self.files.ranked_by) = (Vec::new(), None, self.ranked_by());
        }
        self.written = self.files.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_another_value_are_not_ranked_with() {
        let state = |files: &Files| serde_json::to_value(files).unwrap();
        let mut hook = Checkpoints::new(&Config::default()).unwrap();
        hook.files.kept = vec![Kept { file: "a".into(), score: Some(1.0) }];
        (hook.files.best, hook.files.last) = (hook.best(), Some("last".into()));
        let mut same = Checkpoints::new(&Config::default()).unwrap();
        same.restore(&state(&hook.files)).unwrap();
        assert_eq!(same.files, hook.files);
        let mut other = Config::default();
        other.checkpoint.monitor = Some("val/minFDE".into());
        let mut other = Checkpoints::new(&other).unwrap();
        other.restore(&state(&hook.files)).unwrap();
        assert_eq!((other.files.kept.len(), &other.files.best, &other.files.last), (0, &None, &hook.files.last));
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        let mut hook = Checkpoints::new(&Config::default()).unwrap();
        for name in ["/home/u/x", "../x", "a/b", "a/", "..", ""] {
            let kept = Kept { file: name.into(), score: None };
            for files in [
                Files { last: Some(name.into()), ..Files::default() },
                Files { best: Some(kept.clone()), ..Files::default() },
                Files { kept: vec![kept], ..Files::default() },
            ] {
                assert!(hook.restore(&serde_json::to_value(&files).unwrap()).is_err(), "{name}");
            }
        }
        assert_eq!(hook.files.last, None);
    }

    #[test]
    fn what_is_no_number_is_worst_and_the_oldest_of_equals_goes_first() {
        let mut hook = Checkpoints::new(&Config::default()).unwrap();
        let scores = [Some(2.0), None, Some(1.0), None, Some(1.0)];
        hook.files.kept = scores.iter().enumerate().map(|(i, score)| Kept { file: i.to_string(), score: *score }).collect();
        let mut order = Vec::new();
        let best = hook.best().unwrap().file;
        while let Some(worst) = hook.worst() {
            order.push(hook.files.kept.remove(worst).file);
        }
        assert_eq!((best.as_str(), order.join(" ").as_str()), ("2", "1 3 0 2 4"));
        assert!(hook.better(Some(1.0), Some(2.0)) && !hook.better(Some(1.0), Some(1.0)) && !hook.better(None, None));
        hook.config.mode = crate::config::Mode::Max;
        assert!(hook.better(Some(2.0), Some(1.0)) && hook.better(Some(1.0), None));
    }
}
