//! The built whole: trainer, model and data, and the calls that the C ABI exposes.

pub use crate::trainer::{
    host::{CacheReport, EvaluationReport, Event, EventSink, FitReport, Flow, Host, LogLevel, LogSink, StopHandle},
    predict::{AgentPrediction, Candidate, Prediction},
    weights::{LoadOptions, LoadReport, SaveOptions},
};
use crate::{
    config::{CheckpointSource, Config},
    data::{DataModule, datamodule::REJECTED},
    error::{Error, Result},
    objectives,
    scenario::{Scenario, ScenarioSource, Split},
    trainer::{self, Session, Trainer, TrainingModule, predict::Predictor, summary, weights},
};
use std::{path::Path, sync::Arc};

/// An engine, immutable in its configuration once built; one thread uses it at a time.
///
/// Of a source that is not thread-safe, only the thread that built the engine or called `fit`, `validate` or `test` is used.
pub struct Engine {
    config: Config,
    host: Host,
    stop: StopHandle,
    trainer: Trainer,
    model: TrainingModule,
    datamodule: Option<DataModule>,
    predictor: Predictor,
}

impl Engine {
    /// Builds trainer, model and data, and goes back to the checkpoint that the configuration names. `source` may be absent
    /// for an engine that only predicts, or that has its data from the cache alone.
    ///
    /// # Errors
    /// Whatever in the configuration cannot be had.
    pub fn build(config: Config, source: Option<Arc<dyn ScenarioSource>>, host: Host) -> Result<Self> {
        let config = update_config_for_training(trainer::download(config, &host)?, &host);
        let stop = StopHandle::default();
        let mut trainer = build_trainer(&config, host.clone(), stop.clone())?;
        let network = build_model(&config)?;
        host.log(LogLevel::Info, network.device());
        let has_data = source.is_some() || config.cache.use_cache_without_dataset;
        let datamodule = has_data.then(|| build_datamodule(&config, source, &network, &host)).transpose()?;
        let predictor = Predictor::new(&config, network.batch_options(false));
        let mut model = build_training_module(&config, network);
        trainer.resume(&mut model)?;
        Ok(Self { config, host, stop, trainer, model, datamodule, predictor })
    }

    /// Trains, validates after every epoch, writes checkpoints, from where the engine is: the start, the checkpoint that the
    /// configuration names, or where an earlier call was stopped.
    ///
    /// # Errors
    /// See [`Trainer::fit`].
    pub fn fit(&mut self) -> Result<FitReport> {
        let data = data(&self.datamodule)?;
        let report = self.trainer.fit(&mut self.model, data);
        list_rejections(data, &self.host);
        report
    }

    /// Evaluates the present weights on the validation split.
    ///
    /// # Errors
    /// See [`Trainer::evaluate`].
    pub fn validate(&mut self) -> Result<EvaluationReport> {
        self.evaluate(Split::Validation, &CheckpointSource::None)
    }

    /// Evaluates the present weights on the test split.
    ///
    /// # Errors
    /// See [`Trainer::evaluate`].
    pub fn test(&mut self) -> Result<EvaluationReport> {
        self.evaluate(Split::Test, &CheckpointSource::None)
    }

    /// Evaluates on a split: a checkpoint, or the present weights without one, which stay as they are.
    ///
    /// # Errors
    /// See [`Trainer::evaluate`].
    pub fn evaluate(&mut self, split: Split, checkpoint: &CheckpointSource) -> Result<EvaluationReport> {
        let data = data(&self.datamodule)?;
        let report = self.trainer.evaluate(&mut self.model, data, split, checkpoint);
        list_rejections(data, &self.host);
        report
    }

    /// Computes the features that the cache lacks, of all scenarios of all splits.
    ///
    /// # Errors
    /// See [`Trainer::cache`].
    pub fn cache(&mut self) -> Result<CacheReport> {
        let data = data(&self.datamodule)?;
        let report = self.trainer.cache(data);
        list_rejections(data, &self.host);
        report
    }

    /// Plans one scenario; its future, if there, is not read.
    ///
    /// # Errors
    /// See [`Predictor::predict`].
    pub fn predict(&mut self, scenario: &Scenario) -> Result<Prediction> {
        self.predictor.predict(self.model.session_mut(), scenario)
    }

    /// Writes the weights by published name, atomically: a Lightning checkpoint to a name that ends in `.ckpt`, else safetensors.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_weights(&self, path: &Path, options: &SaveOptions) -> Result<()> {
        weights::save(path, self.model.session(), &self.config, self.trainer.state(), options)
    }

    /// Reads weights, from a file of weights or a checkpoint, of this library, PyTorch or Lightning. A missing, extra or misshapen
    /// one is an error that names it, unless `options` tolerates it; on an error nothing is changed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn load_weights(&mut self, path: &Path, options: &LoadOptions) -> Result<LoadReport> {
        weights::File::read(path)?.load(self.model.session_mut(), options)
    }

    /// Ends a run in progress.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The final configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The trainer, which knows how far the run is.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The network with its optimiser.
    pub fn model(&self) -> &TrainingModule {
        &self.model
    }

    /// Table of the model's parts with their numbers of parameters.
    pub fn summary(&self) -> String {
        summary::table(self.model.session(), self.config.callbacks.model_summary.max_depth)
    }
}

/// Settles what depends on the machine or on other keys, and reports the result, which is never changed again.
pub fn update_config_for_training(mut config: Config, host: &Host) -> Config {
    config.settle_trainer();
    if !config.without_effect.0.is_empty() {
        let keys: Vec<_> = config.without_effect.0.iter().map(|(key, reason)| format!("{key} ({reason})")).collect();
        host.log(LogLevel::Info, &format!("keys without effect here: {}", keys.join("; ")));
    }
    if config.cache.cache_path.is_none() {
        host.log(LogLevel::Debug, "cache.cache_path is not given: no features are kept on disk");
    }
    host.log(if config.run.log_config { LogLevel::Info } else { LogLevel::Debug }, &config.to_text());
    if let Some(warning) = objectives::warning(&config.objectives) {
        host.log(LogLevel::Warning, warning);
    }
    config
}

/// Loops, checkpoints, loggers.
///
/// # Errors
/// [`Error::Config`].
pub fn build_trainer(config: &Config, host: Host, stop: StopHandle) -> Result<Trainer> {
    Trainer::new(config, host, stop)
}

/// The network with initial weights on the device of the configuration, and the losses that it is trained with.
///
/// # Errors
/// [`Error::Config`]; [`Error::Backend`] of a device that fails.
pub fn build_model(config: &Config) -> Result<Session> {
    let mut session = Session::on_device(&config.model, &config.objectives, &config.run)?;
    session.freeze(&config.run.freeze)?;
    if config.trainer.detect_anomaly {
        session.detect_anomaly();
    }
    if config.callbacks.profiled_steps > 0 {
        session.profile();
    }
    Ok(session)
}

/// Scenarios of the source or of the cache, divided, as the model wants them.
///
/// # Errors
/// See [`DataModule::new`].
pub fn build_datamodule(config: &Config, source: Option<Arc<dyn ScenarioSource>>, model: &Session, host: &Host) -> Result<DataModule> {
    let data = DataModule::new(config, source, model.batch_options(config.objectives.use_contrast_loss))?;
    match (&data.supply().cache, &config.cache.cache_path) {
        (Some(cache), Some(path)) => {
            let found = cache.contents();
            let level = if found.damaged > 0 || found.other_shards > 0 { LogLevel::Warning } else { LogLevel::Info };
            host.log(level, &format!("the feature cache '{path}' holds {found}"));
        }
        _ => host.log(LogLevel::Warning, "features are not cached on disk: 'cache.cache_path' names no folder"),
    }
    Ok(data)
}

/// The network with its optimiser and schedule.
pub fn build_training_module(config: &Config, model: Session) -> TrainingModule {
    TrainingModule::new(model, config)
}

fn data(datamodule: &Option<DataModule>) -> Result<&DataModule> {
    datamodule.as_ref().ok_or_else(|| Error::Argument("the engine was built without a source of scenarios".into()))
}

/// Brings the list of scenarios that were left out up to date. A run whose list cannot be written is a run all the same.
fn list_rejections(data: &DataModule, host: &Host) {
    let summary = data.rejections().summary();
    if !summary.is_empty() {
        host.log(LogLevel::Info, &format!("scenarios left out so far, by rule, listed in {REJECTED}: {summary}"));
    }
    if let Err(error) = data.write_rejections() {
        host.log(LogLevel::Warning, &error.to_string());
    }
}
