//! The training loop.

use super::{
    checkpoint,
    evaluate::{evaluate, unusable},
    host::{EvaluationReport, Event, FitReport, Host, LogLevel, StopHandle},
    keeper::Keeper,
    module::TrainingModule,
    progress::Progress,
    run::Run,
    state::State,
    summary,
    tally::Tally,
};
use crate::{
    config::{CheckpointSource, Config, Limit, text},
    data::DataModule,
    error::{Error, Result},
    logger::{Logger, tensorboard::TensorBoard},
    metrics::MetricTable,
    scenario::Split,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Options that may change between a checkpoint and the run that goes on from it, although they are the model's.
const FREE_MODEL_KEYS: [&str; 4] = ["model.dropout", "model.drop_path", "model.state_dropout", "model.feature_builder.max_agents"];

/// Runs the loops over a model and its data, and remembers how far it is.
pub struct Trainer {
    config: Config,
    host: Host,
    stop: StopHandle,
    keeper: Keeper,
    state: State,
    logger: Option<Box<dyn Logger>>,
}

impl Trainer {
    /// A trainer at the start of a run.
    ///
    /// # Errors
    /// [`Error::Config`] if the template of checkpoint names is wrong.
    pub fn new(config: &Config, host: Host, stop: StopHandle) -> Result<Self> {
        let state = State { seed: config.run.seed, ..State::default() };
        Ok(Self { config: config.clone(), host, stop, keeper: Keeper::new(config)?, state, logger: None })
    }

    /// How far the run is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes back to the checkpoint that the configuration names, if it names one. The `last` one may be missing: the run then
    /// starts anew. If anything is wrong, nothing changes.
    ///
    /// # Errors
    /// [`Error::File`] if the file is missing, is no checkpoint, or is one of another model or precision.
    pub fn resume(&mut self, module: &mut TrainingModule) -> Result<()> {
        let path = match &self.config.run.checkpoint {
            CheckpointSource::None => return Ok(()),
            CheckpointSource::Path(path) => path.clone(),
            CheckpointSource::Last => {
                let last = self.keeper.last();
                if !last.exists() {
                    self.host.log(LogLevel::Warning, &format!("there is no '{}' to go on from; the run starts anew", last.display()));
                    return Ok(());
                }
                last
            }
            CheckpointSource::Best => {
                let last = self.keeper.last();
                let state = checkpoint::File::read(&last)?.header()?.state;
                let best = state.and_then(|state| state.best).ok_or_else(|| Error::file(&last, "it knows of no best checkpoint"))?;
                self.keeper.path(&best.file)
            }
        };
        self.resume_from(&path, module)
    }

    fn resume_from(&mut self, path: &Path, module: &mut TrainingModule) -> Result<()> {
        let file = checkpoint::File::read(path)?;
        let header = file.header()?;
        let mut state = header.state.ok_or_else(|| Error::file(path, "holds weights alone and no state of a run; load it as weights"))?;
        let changes = self.changes(path, &header.config)?;
        file.restore(module.session_mut(), true)?;
        if !changes.is_empty() {
            self.host.log(LogLevel::Warning, &format!("the configuration differs from the checkpoint's: {}", changes.join("; ")));
        }
        let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !same(folder, self.keeper.folder()) {
            self.host.log(
                LogLevel::Warning,
                "the checkpoint lies in another folder than new ones will; the best ones so far are not ranked with them",
            );
            state.kept.clear();
            state.best = None;
        }
        state.kept.retain(|kept| self.keeper.path(&kept.file).exists());
        state.seed = self.config.run.seed;
        let text = format!("going on from '{}': {} epochs, {} steps", path.display(), state.epoch, state.step);
        self.host.log(LogLevel::Info, &text);
        self.state = state;
        Ok(())
    }

    /// Keys whose values differ from a checkpoint's, in words.
    fn changes(&self, path: &Path, before: &str) -> Result<Vec<String>> {
        let leaves = |text: &str| Ok::<BTreeMap<String, _>, Error>(text::parse(text)?.leaves().into_iter().collect());
        let before = leaves(before).map_err(|e| Error::file(path, format!("its configuration: {e}")))?;
        let now = leaves(&self.config.to_text())?;
        let mut changes = Vec::new();
        for (key, value) in &now {
            let Some(old) = before.get(key).filter(|old| *old != value) else { continue };
            let change = format!("{key} was {old} and is {value}");
            let fixed = key.starts_with("model.") && !FREE_MODEL_KEYS.contains(&key.as_str());
            if fixed || key == "lightning.trainer.params.precision" {
                return Err(Error::file(path, format!("is a checkpoint of another run: {change}")));
            }
            if key != "checkpoint" {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// Trains until the last epoch or until the host ends the run, from where the trainer is.
    ///
    /// # Errors
    /// [`Error::Data`] if a split has nothing to use; [`Error::NotFinite`] after too many steps that cannot be applied;
    /// [`Error::File`] if a checkpoint cannot be written.
    pub fn fit(&mut self, module: &mut TrainingModule, data: &DataModule) -> Result<FitReport> {
        let (host, stop) = (self.host.clone(), self.stop.clone());
        let mut run = Run::new(&host, &stop);
        let mut report = FitReport::default();
        let max_epochs = self.config.max_epochs();
        run.skip(data.undescribed());
        if self.state.epoch < max_epochs {
            // An empty split is found before the first step, not after the first epoch.
            data.batches(Split::Train)?;
            data.batches(Split::Validation)?;
            run.log(LogLevel::Info, &summary::table(module.session()));
            self.start_logger(&run);
            if self.state.batches == 0 {
                let limit = usize::try_from(self.config.trainer.num_sanity_val_steps).unwrap_or(usize::MAX);
                evaluate(&mut run, module, data, Split::Validation, limit, false)?;
            }
        }
        while self.state.epoch < max_epochs && !run.is_stopped() {
            if !self.epoch(&mut run, module, data, &mut report)? {
                self.save_last(&mut run, module)?;
            }
        }
        self.state.report(&mut report);
        report.skipped_scenarios = run.skipped();
        report.stopped = self.state.epoch < max_epochs;
        let existing = |path: PathBuf| if path.exists() { path.display().to_string() } else { String::new() };
        report.best_checkpoint = self.state.best.as_ref().map(|best| existing(self.keeper.path(&best.file))).unwrap_or_default();
        report.last_checkpoint = existing(self.keeper.last());
        Ok(report)
    }

    /// Losses and metrics over a split, logged under `prefix`.
    ///
    /// # Errors
    /// [`Error::Data`] if the split has nothing to use; [`Error::Stopped`] if the host ended the run.
    pub fn evaluate(&mut self, module: &mut TrainingModule, data: &DataModule, split: Split) -> Result<EvaluationReport> {
        let (host, stop) = (self.host.clone(), self.stop.clone());
        let mut run = Run::new(&host, &stop);
        run.skip(data.undescribed());
        let tally = evaluate(&mut run, module, data, split, usize::MAX, self.config.run.progress_bar)?.ok_or(Error::Stopped)?;
        let mut metrics = MetricTable::default();
        tally.write(prefix(split), &mut metrics);
        Ok(EvaluationReport { scenarios: tally.scenarios, skipped_scenarios: run.skipped(), metrics })
    }

    /// Trains and validates one epoch, or what is left of it; false if the host ended the run meanwhile.
    fn epoch(&mut self, run: &mut Run, module: &mut TrainingModule, data: &DataModule, report: &mut FitReport) -> Result<bool> {
        let epoch = self.state.epoch;
        let rate = module.learning_rate(epoch);
        self.log_scalars(run, &["lr-AdamW/pg1", "lr-AdamW/pg2"].map(|tag| (tag.to_owned(), rate)));
        if !self.train(run, module, data, rate, report)? {
            return Ok(false);
        }
        let mut metrics = MetricTable::default();
        self.state.tally.write("train", &mut metrics);
        let validated = (epoch + 1).is_multiple_of(self.config.trainer.check_val_every_n_epoch) && self.validates();
        if validated {
            let show = self.config.run.progress_bar;
            let Some(tally) = evaluate(run, module, data, Split::Validation, usize::MAX, show)? else { return Ok(false) };
            tally.write("val", &mut metrics);
        }
        self.state.metrics = metrics.0.iter().map(|(name, value)| (name.clone(), Some(*value).filter(|v| v.is_finite()))).collect();
        self.log_scalars(run, &metrics.0);
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.tally = Tally::default();
        self.flush_logger(run);
        let loss = |name| metrics.get(name).map_or("none".to_owned(), |x| format!("{x:.4}"));
        let (train, val) = (loss("loss/train_loss"), loss("loss/val_loss"));
        run.log(LogLevel::Info, &format!("epoch {epoch}: training loss {train}, validation loss {val}, learning rate {rate:.3e}"));
        run.event(&Event::Epoch { epoch, step: self.state.step as usize, metrics: metrics.clone() });
        // Without validation in this epoch the monitored value may be missing, and nothing is ranked.
        if (validated || metrics.get(&self.config.checkpoint.monitor).is_some())
            && let Some(path) = self.keeper.save_best(module.session(), &mut self.state, epoch, &metrics)?
        {
            run.event(&Event::Checkpoint { path: path.display().to_string() });
        }
        self.save_last(run, module)?;
        Ok(true)
    }

    /// Trains on what is left of the present epoch; false if the host ended the run before its last batch.
    fn train(&mut self, run: &mut Run, module: &mut TrainingModule, data: &DataModule, rate: f64, report: &mut FitReport) -> Result<bool> {
        let epoch = self.state.epoch;
        let batches = data.batches(Split::Train)?;
        let total_steps = batches * self.config.max_epochs();
        let mut loader = data.pass(Split::Train, epoch, self.state.batch, usize::MAX)?;
        let progress = Progress::new(self.config.run.progress_bar, format!("epoch {epoch}"), batches);
        while let Some(loaded) = loader.next() {
            let loaded = loaded?;
            run.skip(&loaded.skipped);
            self.state.batch += 1;
            if let Some(batch) = loaded.batch {
                let trained = module.train(&batch, rate, self.state.batches, self.state.step + 1)?;
                self.state.batches += 1;
                let loss = trained.losses.loss;
                if trained.applied {
                    self.state.step += 1;
                    self.state.nonfinite_in_a_row = 0;
                    self.state.tally.add(batch.len(), &trained.losses, &trained.metrics);
                    if self.state.step.is_multiple_of(self.config.trainer.log_every_n_steps as u64) {
                        self.log_scalars(run, &[("loss/train_loss_step".to_owned(), loss)]);
                    }
                    run.event(&Event::Step { epoch, step: self.state.step as usize, total_steps, loss, learning_rate: rate });
                } else {
                    self.skip_step(run, epoch, loss, &batch.tokens, report)?;
                }
                progress.step(self.state.batch, loss);
                loader.recycle(batch);
            }
            if run.is_stopped() {
                return Ok(false);
            }
        }
        if self.state.tally.batches == 0 && batches > 0 {
            return Err(unusable(Split::Train, run));
        }
        Ok(true)
    }

    /// Reports a step that was not applied.
    fn skip_step(&mut self, run: &mut Run, epoch: usize, loss: f64, tokens: &[String], report: &mut FitReport) -> Result<()> {
        report.skipped_steps += 1;
        self.state.nonfinite_in_a_row += 1;
        self.state.tally.batches += 1;
        let what = if loss.is_finite() { "gradient" } else { "loss" };
        let names = tokens.join(", ");
        run.log(LogLevel::Warning, &format!("a step of epoch {epoch} is not applied: its {what} is not finite; its scenarios: {names}"));
        run.event(&Event::StepSkipped { epoch, step: self.state.step as usize, tokens: tokens.to_vec() });
        let count = self.state.nonfinite_in_a_row;
        if count >= self.config.run.max_nonfinite_steps {
            let reason = format!("{what} in {count} training steps one after the other, the last with scenarios {names}");
            return Err(Error::NotFinite(reason));
        }
        Ok(())
    }

    /// True if epochs end with a validation.
    fn validates(&self) -> bool {
        !matches!(self.config.trainer.limit_val_batches, Limit::Count(0)) && self.config.trainer.limit_val_batches != Limit::Share(0.0)
    }

    fn save_last(&self, run: &mut Run, module: &TrainingModule) -> Result<()> {
        if let Some(path) = self.keeper.save_last(module.session(), &self.state)? {
            run.event(&Event::Checkpoint { path: path.display().to_string() });
        }
        Ok(())
    }

    /// Opens the logger of the run. A run goes on without one that cannot be written.
    fn start_logger(&mut self, run: &Run) {
        if self.config.logger.tensorboard && self.logger.is_none() {
            match TensorBoard::new(&self.config.logger_folder()) {
                Ok(logger) => self.logger = Some(Box::new(logger)),
                Err(error) => run.log(LogLevel::Warning, &format!("nothing is logged to TensorBoard: {error}")),
            }
        }
    }

    /// Logs values with the epoch beside them.
    fn log_scalars(&mut self, run: &Run, values: &[(String, f64)]) {
        let mut values = values.to_vec();
        values.push(("epoch".to_owned(), self.state.epoch as f64));
        let (step, logger) = (self.state.step, self.logger.take());
        self.logger = keep(run, logger, |logger| logger.scalars(step, &values));
    }

    fn flush_logger(&mut self, run: &Run) {
        let logger = self.logger.take();
        self.logger = keep(run, logger, |logger| logger.flush());
    }
}

/// Uses the logger, and gives it up with one warning if it fails.
fn keep(run: &Run, logger: Option<Box<dyn Logger>>, using: impl FnOnce(&mut dyn Logger) -> Result<()>) -> Option<Box<dyn Logger>> {
    let mut logger = logger?;
    match using(&mut *logger) {
        Ok(()) => Some(logger),
        Err(error) => {
            run.log(LogLevel::Warning, &format!("nothing is logged from here on: {error}"));
            None
        }
    }
}

/// Prefix of a split's names.
fn prefix(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "val",
        Split::Test => "test",
    }
}
