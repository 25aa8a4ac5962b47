//! Training: loops, checkpoints, what the host is told. Read `fit` first.
//!
//! - [`Trainer`], here: what lasts between calls; `fit`: epochs, batches and validations; `evaluate`: one pass without training; `caching`: features
//!   ahead of it.
//! - [`limits`]: the bounds that configuration and data give together; [`state`]: how far a run is.
//! - [`session`]: the one place that runs the network; [`module`]: the network with its optimiser.
//! - [`hooks`]: everything beside the loops, checkpoints among it; `loggers`: where values go.
//! - [`checkpoint`], `resume`: how a run gets to disk and back. [`weights`]: files of weights, those of PyTorch among them.
//! - [`host`], `run`: events, log records, reports, requests to stop.
//! - [`trace`]: where the time of steps goes.
//! - [`predict`]: one scenario to trajectories. `report`, `scene`: what an evaluation says beyond its means.

mod caching;
pub mod checkpoint;
mod drawing;
mod evaluate;
mod fit;
pub mod hooks;
pub mod host;
pub mod limits;
pub mod loggers;
pub mod module;
pub mod predict;
mod report;
mod resume;
pub mod run;
mod scene;
pub mod session;
pub mod state;
mod tally;
pub mod trace;
pub mod weights;

pub use hooks::summary;
pub use host::{CacheReport, EvaluationReport, Event, EventSink, FitReport, Flow, Host, LogLevel, LogSink, StopHandle, TypeReport};
pub use module::TrainingModule;
pub use resume::download;
pub use session::Session;

use crate::{
    config::{CheckpointSource, Config},
    data::DataModule,
    error::{Error, Result},
    logger::Status,
    metrics::MetricTable,
    scenario::Split,
};
use evaluate::{evaluate, prefix};
use fit::Fit;
use hooks::{Hooks, Stage};
use limits::Limits;
use loggers::Loggers;
use run::Run;
use session::Buffer;
use state::State;
use std::path::PathBuf;

/// Runs the loops over a model and its data, and remembers how far it is.
pub struct Trainer {
    config: Config,
    host: Host,
    stop: StopHandle,
    hooks: Hooks,
    loggers: Loggers,
    state: State,
}

impl Trainer {
    /// A trainer at the start of a run.
    ///
    /// # Errors
    /// [`Error::Config`] if a hook cannot be had as configured.
    pub fn new(config: &Config, host: Host, stop: StopHandle) -> Result<Self> {
        let state = State { run: resume::new_run(), seed: config.run.seed, ..State::default() };
        Ok(Self { config: config.clone(), host, stop, hooks: Hooks::new(config)?, loggers: Loggers::default(), state })
    }

    /// How far the run is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes back to the checkpoint that the configuration names, if it names one; else to the weights that it names. The `last`
    /// checkpoint may be missing: the run then starts anew. If anything is wrong, nothing changes.
    ///
    /// # Errors
    /// [`Error::File`] if the file is missing, is no checkpoint, or is one of another model or precision.
    pub fn resume(&mut self, module: &mut TrainingModule) -> Result<()> {
        if let Some(path) = resume::find(&self.config.run.checkpoint, &self.config, &self.host)? {
            self.state = resume::restore(&path, &self.config, &self.host, &mut self.hooks, module)?;
            self.loggers.set_position(self.state.loggers.clone());
            return Ok(());
        }
        resume::start_from_weights(&self.config, &self.host, module)
    }

    /// Trains until a bound is reached or until the host ends the run, from where the trainer is.
    ///
    /// # Errors
    /// [`Error::Data`] if a split has nothing to use; [`Error::NotFinite`] after too many steps that cannot be applied;
    /// [`Error::File`] if a checkpoint cannot be written.
    pub fn fit(&mut self, module: &mut TrainingModule, data: &DataModule) -> Result<FitReport> {
        self.begin(data);
        let limits = Limits::new(&self.config, data)?;
        let stage = Stage {
            config: &self.config,
            limits: &limits,
            run: Run::new(&self.host, &self.stop),
            hooks: &mut self.hooks,
            loggers: &mut self.loggers,
            fitting: true,
        };
        let mut fit = Fit { stage, state: &mut self.state, module, data, skipped_steps: 0 };
        let result = fit.run();
        caching::end(&fit.stage.run, data);
        result?;
        let mut report = FitReport {
            epochs: fit.state.epochs(),
            steps: usize::try_from(fit.state.step).unwrap_or(usize::MAX),
            skipped_steps: fit.skipped_steps,
            skipped_scenarios: fit.stage.run.skipped(),
            skipped_by_rule: fit.stage.run.skipped_by_rule(),
            stopped: !fit.is_over(),
            metrics: fit.state.metrics.clone(),
            ..FitReport::default()
        };
        if let Some(files) = self.hooks.checkpoints() {
            let folder = self.config.checkpoint_folder();
            let path = |file: String| Some(folder.join(file)).filter(|path| path.exists()).map(|path| path.display().to_string());
            report.best_score = files.best.as_ref().and_then(|best| best.score);
            report.best_checkpoint = files.best.and_then(|best| path(best.file)).unwrap_or_default();
            report.last_checkpoint = files.last.and_then(path).unwrap_or_default();
        }
        Ok(report)
    }

    /// Losses and metrics over a split, to its last scenario: of a checkpoint if one is named, else of the weights as they are, which
    /// stay as they are. They are logged as those of the present step.
    ///
    /// # Errors
    /// [`Error::Data`] if the split has nothing to use; [`Error::Stopped`] if the host ended the run; [`Error::File`] if the checkpoint
    /// is missing or of another model.
    pub fn evaluate(
        &mut self,
        module: &mut TrainingModule,
        data: &DataModule,
        split: Split,
        checkpoint: &CheckpointSource,
    ) -> Result<EvaluationReport> {
        // Before a file is read: a stop meanwhile is not lost.
        self.begin(data);
        let Some(path) = self.checkpoint(checkpoint)? else { return self.evaluate_present(module, data, split) };
        self.host.log(LogLevel::Info, &format!("evaluating '{}'", path.display()));
        let kept = [Buffer::Parameters, Buffer::Statistics, Buffer::Gradients, Buffer::PendingStatistics];
        let present = kept.map(|buffer| module.session().read(buffer).map(|values| (buffer, values)));
        let present = present.into_iter().collect::<Result<Vec<_>>>()?;
        weights::File::read(&path)?.load(module.session_mut(), &weights::LoadOptions::default())?;
        let report = self.evaluate_present(module, data, split);
        for (buffer, values) in &present {
            module.session_mut().write(*buffer, values)?;
        }
        report
    }

    /// Begins a call: an earlier request to stop is forgotten, and what an earlier call could not cache, which may be possible by now.
    fn begin(&self, data: &DataModule) {
        self.stop.reset();
        drop(data.supply().take_unwritten());
    }

    /// Path of a checkpoint: the best or the last that this run knows of, or a file.
    fn checkpoint(&self, source: &CheckpointSource) -> Result<Option<PathBuf>> {
        let folder = self.config.checkpoint_folder();
        let files = self.hooks.checkpoints().unwrap_or_default();
        let (what, file) = match source {
            CheckpointSource::None => return Ok(None),
            CheckpointSource::Path(path) => return Ok(Some(path.clone())),
            CheckpointSource::Best => ("best", files.best.map(|best| best.file)),
            CheckpointSource::Last => ("last", files.last),
        };
        if let Some(file) = file {
            return Ok(Some(folder.join(file)));
        }
        // What an earlier process left.
        let found = resume::find(source, &self.config, &self.host)?;
        found.map(Some).ok_or_else(|| Error::file(&folder, format!("holds no {what} checkpoint")))
    }

    /// Evaluates the weights that the module holds, which may be those of a checkpoint.
    fn evaluate_present(&mut self, module: &mut TrainingModule, data: &DataModule, split: Split) -> Result<EvaluationReport> {
        let limits = Limits::default();
        let mut stage = Stage {
            config: &self.config,
            limits: &limits,
            run: Run::new(&self.host, &self.stop),
            hooks: &mut self.hooks,
            loggers: &mut self.loggers,
            fitting: false,
        };
        stage.run.skip(data.undescribed());
        stage.loggers.open(&self.config, &stage.run, false);
        let result = Self::pass(&mut stage, &self.state, module, data, split);
        stage.loggers.finish(&stage.run, Status::of(&result, stage.run.is_interrupted()));
        result
    }

    fn pass(stage: &mut Stage, state: &State, module: &mut TrainingModule, data: &DataModule, split: Split) -> Result<EvaluationReport> {
        let tally = evaluate(stage, state, module, data, split, None);
        caching::end(&stage.run, data);
        let tally = tally?.ok_or(Error::Stopped)?;
        let mut metrics = MetricTable::default();
        tally.write(prefix(split), &mut metrics);
        stage.loggers.scalars(&stage.run, state.logger_step(), Some(state.epoch), &metrics.0);
        // Of the run, which this is no part of, only the values differ.
        let state = State { metrics, ..state.clone() };
        stage.notify(&state, module, |hook, context| hook.evaluation_end(context, split))?;
        let by_type = report::report(stage, &state, module, data, split)?;
        Ok(EvaluationReport {
            by_type,
            scenarios: tally.scenarios,
            skipped_scenarios: stage.run.skipped(),
            skipped_by_rule: stage.run.skipped_by_rule(),
            metrics: state.metrics,
        })
    }
}
