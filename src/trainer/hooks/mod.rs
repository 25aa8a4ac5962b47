//! What is done at certain moments of a run beside the loops: one trait, one hook per file.
//!
//! Moments come in this order; those in braces repeat, those in parentheses may be left out:
//! `fit_start`, `sanity_start`, `sanity_end`, { `epoch_start`, { `batch_end`, (`evaluation_start`, { `evaluation_batch_end` },
//! `evaluation_end`) }, `epoch_end` }, `fit_end`. A test or a validation by itself has the `evaluation_*` ones alone. The sanity
//! check gives no `evaluation_*`. `checkpoint_saved` follows every file that is written, `exception` an error that ends the call.
//!
//! At each moment hooks are called in the order of [`Hooks::new`]: what measures and logs (learning rate, time), then what tells
//! people and host (summary, progress bar, events), then what may end the run (early stopping), and checkpoints last, so that a checkpoint holds what the others have just learnt.

mod checkpoint;
mod early_stopping;
mod file_name;
mod host;
mod learning_rate;
mod pictures;
mod profile;
pub mod progress;
pub mod summary;
mod time;

use super::{
    checkpoint as file, host::Event, limits::Limits, loggers::Loggers, module::TrainingModule, run::Run, session::Losses, state::State,
    trace::Phase,
};
use crate::{
    config::Config,
    data::batch::Batch,
    error::{Error, Result},
    metrics::{self, MetricSums},
    scenario::Split,
};
pub use checkpoint::{Checkpoints, Files as KeptFiles, NAME as NAME_OF_CHECKPOINTS};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What became of a training batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// Its gradient was added to those of the batches before it; no update yet.
    Gathered,
    /// Parameters were updated.
    Applied,
    /// Loss or gradient was not finite: the gathered gradients were dropped.
    Skipped,
}

/// A batch that was trained on or evaluated.
#[derive(Debug, Clone, Copy)]
pub struct BatchEnd<'a> {
    /// Position in the epoch or pass, from 0.
    pub index: usize,
    /// Batches of the epoch or pass.
    pub total: usize,
    /// The batch; none for an update that waited for others, none of whose scenarios could be used: it is told of with the tokens, losses
    /// and metrics of the last batch that could, as far as this call has seen it.
    pub batch: Option<&'a Batch>,
    /// Its scenarios.
    pub tokens: &'a [String],
    /// Its losses.
    pub losses: &'a Losses,
    /// Its metrics; none where a loss is not finite.
    pub metrics: &'a MetricSums,
    /// Learning rate of the epoch; 0 in an evaluation.
    pub learning_rate: f64,
    /// What became of it; [`Outcome::Gathered`] in an evaluation.
    pub outcome: Outcome,
}

/// What a hook sees of the trainer, and what it may ask for.
pub struct Context<'a, 'h> {
    /// Configuration of the run.
    pub config: &'a Config,
    /// The numbers that the configuration and the data give together.
    pub limits: &'a Limits,
    /// How far the run is, with the latest value of everything that was logged ([`State::metrics`]).
    pub state: &'a State,
    /// The network with its optimiser.
    pub module: &'a TrainingModule,
    /// The host: events, log records.
    pub run: &'a mut Run<'h>,
    /// Loggers of the run.
    pub loggers: &'a mut Loggers,
    /// True within `fit`, false in a test or validation by itself.
    pub fitting: bool,
    files: &'a mut Vec<Files>,
}

/// What is to be done with files when a hook has returned, in order.
enum Files {
    Save(PathBuf),
    Remove(PathBuf),
}

impl Context<'_, '_> {
    /// The latest value of a name. `epoch` and `step` count; `name_epoch` is another name of `name`, as it is in Lightning.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let metrics = &self.state.metrics;
        match name {
            "epoch" => Some(self.state.epoch as f64),
            "step" => Some(self.state.step as f64),
            _ => metrics.get(name).or_else(|| metrics.get(name.strip_suffix("_epoch")?)),
        }
    }

    /// True for a value of training before the first epoch has ended, which brings it.
    pub fn is_to_come(&self, name: &str) -> bool {
        self.state.epochs() == 0 && metrics::is_of("train", name)
    }

    /// Logs values at the present step, with the epoch beside them.
    pub fn log(&mut self, values: &[(String, f64)]) {
        self.loggers.scalars(self.run, self.state.logger_step(), Some(self.state.epoch), values);
    }

    /// Tells the host; its answer may end the run.
    pub fn event(&mut self, event: &Event) {
        self.run.event(event);
    }

    /// Ends training once `min_epochs` and `min_steps` are reached.
    pub fn stop(&mut self, reason: &str) {
        self.run.end(reason);
    }

    /// Writes a checkpoint of the run as it is when this hook has returned, the states of all hooks included.
    pub fn save(&mut self, path: PathBuf) {
        self.files.push(Files::Save(path));
    }

    /// Removes a file, if it is there, after what was asked for before.
    pub fn remove(&mut self, path: PathBuf) {
        self.files.push(Files::Remove(path));
    }
}

/// Something that is done at certain moments of a run. An error ends the run.
#[allow(unused_variables, reason = "the names say what a hook is given")]
pub trait Hook: Send {
    /// Name under which its state is kept; no other hook has it.
    fn name(&self) -> &'static str;

    /// Training begins, or goes on.
    fn fit_start(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// True if an earlier call has left something undone, which [`Hook::fit_start`] makes up for even if nothing is left to train.
    fn owes(&self) -> bool {
        false
    }
    /// A few validation batches are tried; nothing comes of them.
    fn sanity_start(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// They went well.
    fn sanity_end(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// The epoch in the state begins; not called when it is gone on with.
    fn epoch_start(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// A training batch is done, or an update after it. This is the step loop: nothing is allocated here without need.
    fn batch_end(&mut self, context: &mut Context, batch: &BatchEnd) -> Result<()> {
        Ok(())
    }
    /// True if the hook will look at parameters or files at the end of one of the batches under way, which bring so many updates: these are
    /// done then before the next batch begins. Elsewhere [`Hook::batch_end`] may come when later batches are under way.
    fn waits(&self, state: &State, updates: u64) -> bool {
        false
    }
    /// A pass over a split without training begins.
    fn evaluation_start(&mut self, context: &mut Context, split: Split, batches: usize) -> Result<()> {
        Ok(())
    }
    /// True if the hook will look at the network's outputs for the next of its batches: that one is done then before a further one begins.
    /// Elsewhere [`Hook::evaluation_batch_end`] may come when later batches are under way.
    fn looks_at_outputs(&self) -> bool {
        false
    }
    /// One of its batches is done.
    fn evaluation_batch_end(&mut self, context: &mut Context, split: Split, batch: &BatchEnd) -> Result<()> {
        Ok(())
    }
    /// It ended, and its losses and metrics are in the state.
    fn evaluation_end(&mut self, context: &mut Context, split: Split) -> Result<()> {
        Ok(())
    }
    /// The last batch of the epoch is done, and validated where that is due; the state still counts the epoch.
    fn epoch_end(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// A checkpoint was written.
    fn checkpoint_saved(&mut self, context: &mut Context, path: &Path) -> Result<()> {
        Ok(())
    }
    /// Training is over, or stops for now (`context.run.is_interrupted()`).
    fn fit_end(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }
    /// The call ends with an error.
    fn exception(&mut self, context: &mut Context, error: &Error) {}

    /// What it must know to go on; null for nothing.
    fn state(&self) -> Value {
        Value::Null
    }
    /// Takes back what [`Hook::state`] gave.
    ///
    /// # Errors
    /// What is wrong with it.
    fn restore(&mut self, state: &Value) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// All hooks of a trainer, in the order in which they are called.
pub struct Hooks {
    hooks: Vec<Box<dyn Hook>>,
    files: Vec<Files>,
    /// Configuration as checkpoints carry it.
    text: String,
}

impl Hooks {
    /// The hooks that a configuration asks for.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(config: &Config) -> Result<Self> {
        let mut hooks: Vec<Box<dyn Hook>> = vec![Box::new(learning_rate::LearningRate::default())];
        if config.logger.images > 0 {
            hooks.push(Box::new(pictures::Pictures::default()));
        }
        if config.callbacks.time_logging {
            hooks.push(Box::new(time::Times::default()));
        }
        if let Some(profile) = profile::Profile::new(config.callbacks.profiled_steps) {
            hooks.push(Box::new(profile));
        }
        if config.trainer.enable_model_summary && config.callbacks.model_summary.max_depth != 0 {
            hooks.push(Box::new(summary::Summary));
        }
        if config.run.progress_bar {
            hooks.push(Box::new(progress::Progress::default()));
        }
        hooks.push(Box::new(host::HostEvents::default()));
        if let Some(stopping) = early_stopping::EarlyStopping::new(&config.callbacks.early_stopping) {
            hooks.push(Box::new(stopping));
        }
        if config.trainer.enable_checkpointing {
            hooks.push(Box::new(Checkpoints::new(config)?));
        }
        Ok(Self { hooks, files: Vec::new(), text: config.to_text() })
    }

    /// States by name, as a checkpoint keeps them.
    pub fn states(&self) -> serde_json::Map<String, Value> {
        let states = self.hooks.iter().map(|hook| (hook.name().to_owned(), hook.state()));
        states.filter(|(_, state)| !state.is_null()).collect()
    }

    /// What the checkpoint hook knows of its files.
    pub fn checkpoints(&self) -> Option<KeptFiles> {
        Checkpoints::files(&self.states())
    }

    /// Gives every hook its state back; one that is not there leaves its hook as it is.
    ///
    /// # Errors
    /// [`Error::File`] if a hook cannot read its state.
    pub fn restore(&mut self, path: &Path, states: &serde_json::Map<String, Value>) -> Result<()> {
        for hook in &mut self.hooks {
            if let Some(state) = states.get(hook.name()) {
                hook.restore(state).map_err(|reason| Error::file(path, format!("state of '{}': {reason}", hook.name())))?;
            }
        }
        Ok(())
    }
}

/// The parts of a trainer that hooks see, and the hooks.
pub(super) struct Stage<'a, 'h> {
    pub config: &'a Config,
    pub limits: &'a Limits,
    pub run: Run<'h>,
    pub hooks: &'a mut Hooks,
    pub loggers: &'a mut Loggers,
    pub fitting: bool,
}

impl Stage<'_, '_> {
    /// Calls every hook in order, and does what each asks for with files before the next one is called.
    pub fn notify(
        &mut self,
        state: &State,
        module: &TrainingModule,
        call: impl Fn(&mut dyn Hook, &mut Context) -> Result<()>,
    ) -> Result<()> {
        for i in 0..self.hooks.hooks.len() {
            self.call(i, state, module, &call)?;
            if self.hooks.files.is_empty() {
                continue;
            }
            for file in std::mem::take(&mut self.hooks.files) {
                match file {
                    Files::Save(path) => {
                        let loggers = self.loggers.position().clone();
                        let state = State { hooks: self.hooks.states(), loggers, ..state.clone() };
                        let start = module.session().clock();
                        file::save(&path, module.session(), &self.hooks.text, &state)?;
                        module.session().note(Phase::Checkpoint, start);
                        for i in 0..self.hooks.hooks.len() {
                            self.call(i, &state, module, &|hook, context| hook.checkpoint_saved(context, &path))?;
                        }
                    }
                    Files::Remove(path) => crate::files::remove(&path)?,
                }
            }
        }
        Ok(())
    }

    /// Whether a hook waits for the batches that are under way; see [`Hook::waits`].
    pub fn waits(&self, state: &State, updates: u64) -> bool {
        self.hooks.hooks.iter().any(|hook| hook.waits(state, updates))
    }

    /// Whether a hook has something left to do; see [`Hook::owes`].
    pub fn owes(&self) -> bool {
        self.hooks.hooks.iter().any(|hook| hook.owes())
    }

    /// Whether a hook looks at the outputs for the next batch of an evaluation; see [`Hook::looks_at_outputs`].
    pub fn looks_at_outputs(&self) -> bool {
        self.hooks.hooks.iter().any(|hook| hook.looks_at_outputs())
    }

    fn call(
        &mut self,
        hook: usize,
        state: &State,
        module: &TrainingModule,
        call: &dyn Fn(&mut dyn Hook, &mut Context) -> Result<()>,
    ) -> Result<()> {
        let Hooks { hooks, files, .. } = &mut *self.hooks;
        let (run, loggers) = (&mut self.run, &mut *self.loggers);
        let mut context = Context { config: self.config, limits: self.limits, state, module, run, loggers, fitting: self.fitting, files };
        call(&mut *hooks[hook], &mut context)
    }
}
