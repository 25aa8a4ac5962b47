//! Going on from a checkpoint.

use super::{
    checkpoint,
    hooks::{Checkpoints, Hooks, NAME_OF_CHECKPOINTS},
    host::{Host, LogLevel},
    module::TrainingModule,
    state::State,
    weights,
};
use crate::{
    config::{CheckpointSource, Config, WandbMode, module::ModuleKind, text},
    error::{Error, Result},
    logger::wandb,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Options that may change between a checkpoint and the run that goes on from it, although they are the model's.
const FREE_MODEL_KEYS: [&str; 4] = ["model.dropout", "model.drop_path", "model.state_dropout", "model.feature_builder.max_agents"];

/// Other options that may not: what the parameters and the optimiser's moments are.
const FIXED_KEYS: [&str; 2] = ["lightning.trainer.params.precision", "custom_trainer._target_"];

/// Fronts of options that say how large batches are: with others, room for those of the checkpoint is of no use.
const SIZE_KEYS: [&str; 4] = ["data_loader.params.batch_size", "model.feature_builder.", "custom_trainer.", "objective."];

/// The configuration with the model that `wandb.artifact` names in the place of its checkpoint, and the run that made it in the
/// place of its run. The model is downloaded by the service's client.
///
/// # Errors
/// [`Error::Config`] if it cannot be had.
pub fn download(mut config: Config, host: &Host) -> Result<Config> {
    let wandb = &mut config.logger.wandb;
    let Some(artifact) = wandb.artifact.as_ref().filter(|_| wandb.mode != WandbMode::Disabled) else { return Ok(config) };
    let download = wandb::download(&wandb.command, artifact, &config.run.output_dir, wandb::DOWNLOAD_TIMEOUT);
    let download = download.map_err(|reason| Error::config("wandb.artifact", reason))?;
    host.log(LogLevel::Info, &format!("'{artifact}' is in '{}'", download.checkpoint.display()));
    wandb.run_id = Some(download.run_id);
    config.run.checkpoint = CheckpointSource::Path(download.checkpoint);
    Ok(config)
}

/// The checkpoint that is asked for; none if none is, or if there is no `last` one.
///
/// # Errors
/// [`Error::File`] if the `best` one is asked for and not known.
pub(super) fn find(source: &CheckpointSource, config: &Config, host: &Host) -> Result<Option<PathBuf>> {
    let folder = config.checkpoint_folder();
    let last = Checkpoints::last(&folder);
    match source {
        CheckpointSource::None => Ok(None),
        CheckpointSource::Path(path) => Ok(Some(path.clone())),
        CheckpointSource::Last => {
            if last.is_none() {
                let text = format!("there is no last checkpoint in '{}' to go on from; the run starts anew", folder.display());
                host.log(LogLevel::Warning, &text);
            }
            Ok(last)
        }
        CheckpointSource::Best => {
            let last = last.ok_or_else(|| Error::file(&folder, "holds no last checkpoint, which would know the best"))?;
            let state = checkpoint::header(&weights::File::read(&last)?)?.state;
            let best = state.and_then(|state| Checkpoints::files(&state.hooks)).and_then(|files| files.best);
            let best = best.ok_or_else(|| Error::file(&last, "it knows of no best checkpoint"))?;
            Ok(Some(folder.join(best.file)))
        }
    }
}

/// Reads a checkpoint into module and hooks, and gives its state. If anything is wrong, both are as before.
///
/// # Errors
/// [`Error::File`] if the file is missing, is no checkpoint, or is one of another model or precision.
pub(super) fn restore(path: &Path, config: &Config, host: &Host, hooks: &mut Hooks, module: &mut TrainingModule) -> Result<State> {
    let file = weights::File::read(path)?;
    if let Some(state) = file.lightning_state()? {
        return restore_lightning(&file, state, config, host, module);
    }
    let header = checkpoint::header(&file)?;
    let mut state = header
        .state
        .ok_or_else(|| Error::file(path, "holds weights alone and no state of a run; start from them with 'pretrained.path'"))?;
    let changes = changes(path, &header.config, config)?;
    let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let elsewhere = !same(folder, &config.checkpoint_folder());
    if elsewhere {
        state.hooks.remove(NAME_OF_CHECKPOINTS);
        // A table that lies here is another run's, unless the checkpoint names the folder of its own.
        if state.loggers.table.as_ref().is_none_or(|table| Path::new(table).is_relative()) {
            state.loggers.rows_elsewhere = state.loggers.rows;
        }
    }
    let before = hooks.states();
    let restored = hooks.restore(path, &state.hooks).and_then(|()| checkpoint::restore(&file, module.session_mut()));
    if restored.is_err() {
        hooks.restore(path, &before)?;
    }
    restored?;
    if !changes.iter().any(|change| SIZE_KEYS.iter().any(|key| change.starts_with(key))) {
        module.session_mut().set_room(header.room);
    }
    if !changes.is_empty() {
        host.log(LogLevel::Warning, &format!("the configuration differs from the checkpoint's: {}", changes.join("; ")));
    }
    if elsewhere {
        let text = "the checkpoint lies in another folder than new ones will; the best ones so far are not ranked with them";
        host.log(LogLevel::Warning, text);
    }
    state.seed = config.run.seed;
    if config.run.checkpoint != CheckpointSource::Last {
        // Another branch of the run: the files of the first one are not its own.
        state.run = new_run();
        state.loggers.branches = true;
    }
    module.set_state(state.module);
    let text = format!("going on from '{}': {} epochs, {} steps", path.display(), state.epochs(), state.step);
    host.log(LogLevel::Info, &text);
    Ok(state)
}

/// A name for a run that no other has.
pub(super) fn new_run() -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("{time:x}-{:x}-{:x}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

/// Reads a checkpoint of PyTorch Lightning: weights, how far it is, and the optimiser's moments where they fit.
fn restore_lightning(file: &weights::File, mut state: State, config: &Config, host: &Host, module: &mut TrainingModule) -> Result<State> {
    let pluto = config.objectives.module == ModuleKind::Pluto;
    if let Err(reason) = file.restore_lightning(module.session_mut(), pluto)? {
        host.log(LogLevel::Warning, &format!("the optimiser's state is not taken from the Lightning checkpoint: {reason}"));
        // Moments of zero are those before the first update.
        state.module.updates = 0;
    }
    (state.run, state.seed) = (new_run(), config.run.seed);
    module.set_state(state.module);
    host.log(LogLevel::Info, &format!("going on from a Lightning checkpoint: {} epochs, {} steps", state.epochs(), state.step));
    Ok(state)
}

/// Reads the weights that the configuration names, if it names any.
///
/// # Errors
/// [`Error::File`] with the file and the tensor.
pub(super) fn start_from_weights(config: &Config, host: &Host, module: &mut TrainingModule) -> Result<()> {
    let pretrained = &config.run.pretrained;
    let Some(path) = &pretrained.path else { return Ok(()) };
    let options = weights::LoadOptions {
        strip_prefix: pretrained.strip_prefix.clone(),
        add_prefix: pretrained.add_prefix.clone().unwrap_or_default(),
        strict: pretrained.strict,
    };
    let report = weights::File::read(Path::new(path))?.load(module.session_mut(), &options)?;
    host.log(LogLevel::Info, &format!("starting from the weights of '{path}'"));
    for (what, names) in [("not in the file and stay as they were", report.missing), ("in the file and not in the model", report.extra)] {
        if !names.is_empty() {
            host.log(LogLevel::Warning, &format!("{} tensors are {what}: {}", names.len(), names.join(", ")));
        }
    }
    Ok(())
}

/// Keys whose values differ from a checkpoint's, in words.
fn changes(path: &Path, before: &str, config: &Config) -> Result<Vec<String>> {
    let leaves = |text: &str| Ok::<BTreeMap<String, _>, Error>(text::parse(text)?.leaves().into_iter().collect());
    let before = leaves(before).map_err(|e| Error::file(path, format!("its configuration: {e}")))?;
    let standard = config.objectives.module == ModuleKind::Standard;
    let mut changes = Vec::new();
    for (key, value) in &leaves(&config.to_text())? {
        let Some(old) = before.get(key).filter(|old| *old != value) else { continue };
        let change = format!("{key} was {old} and is {value}");
        let fixed = key.starts_with("model.") && !FREE_MODEL_KEYS.contains(&key.as_str());
        let fixed = fixed || FIXED_KEYS.contains(&key.as_str()) || (key == "optimizer._target_" && standard);
        if fixed {
            return Err(Error::file(path, format!("is a checkpoint of another run: {change}")));
        }
        if key != "checkpoint" {
            changes.push(change);
        }
    }
    Ok(changes)
}
