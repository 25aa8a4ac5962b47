//! The table of all keys: name, other names, field, range. It reads, checks and echoes a configuration.

use super::{
    Accelerator, Config, ContrastiveConfig, Precision, interpolation, known, module, selection_keys, setting::Setting, text::MAX_DEPTH,
    trainer_keys, tree::Value,
};
use crate::error::{Error, Result};
use std::collections::HashSet;

/// What is done with every key in turn.
pub(super) trait Visitor {
    /// Visits one key: its name, other names for the same field, the field, and what it may be.
    fn key<T: Setting>(&mut self, name: &'static str, others: &'static [&'static str], field: &mut T, rule: Rule<T>) -> Result<()>;
}

/// What a field may be: a test, and the same in words.
pub(super) struct Rule<T>(pub fn(&T) -> bool, pub &'static str);

const ANY_COUNT: Rule<usize> = Rule(|_| true, "");
pub(super) const SOME: Rule<usize> = Rule(|x| (1..=1_000_000).contains(x), "from 1 to 1000000");
pub(super) const RATE: Rule<f64> = Rule(|x| (0.0..1.0).contains(x), "at least 0 and below 1");
pub(super) const SWITCH: Rule<bool> = Rule(|_| true, "");
pub(super) const TEXT: Rule<String> = Rule(|x| !x.is_empty(), "not empty");
const LOGS: Rule<Vec<String>> = Rule(|_| true, "");
pub(super) const NOT_EMPTY: Rule<Option<String>> = Rule(|x| x.as_ref().is_none_or(|x| !x.is_empty()), "not empty");

pub(super) fn any<T>() -> Rule<T> {
    Rule(|_| true, "")
}

/// Shows every key to the visitor, in the order of the echo.
#[rustfmt::skip]
fn visit(c: &mut Config, v: &mut impl Visitor) -> Result<()> {
    let run = &mut c.run;
    v.key("seed", &[], &mut run.seed, any())?;
    v.key("output_dir", &[], &mut run.output_dir, Rule(|x| !x.as_os_str().is_empty(), "not empty"))?;
    v.key("checkpoint", &["lightning.trainer.checkpoint.resume_path"], &mut run.checkpoint, any())?;
    v.key("pretrained.path", &[], &mut run.pretrained.path, NOT_EMPTY)?;
    v.key("pretrained.strip_prefix", &[], &mut run.pretrained.strip_prefix, any())?;
    v.key("pretrained.add_prefix", &[], &mut run.pretrained.add_prefix, any())?;
    v.key("pretrained.strict", &[], &mut run.pretrained.strict, SWITCH)?;
    v.key("freeze", &[], &mut run.freeze, Rule(|x| x.iter().all(|x| !x.is_empty()), "without empty patterns"))?;
    v.key("threads", &[], &mut run.threads, Rule(|x| *x <= 1024, "at most 1024"))?;
    v.key("progress_bar", &["lightning.trainer.params.enable_progress_bar"], &mut run.progress_bar, SWITCH)?;
    v.key("log_config", &[], &mut run.log_config, SWITCH)?;
    v.key("max_nonfinite_steps", &[], &mut run.max_nonfinite_steps, SOME)?;

    let optimizer = &mut c.optimizer;
    v.key("lr", &["custom_trainer.lr"], &mut optimizer.lr, Rule(|x| *x > 0.0, "above 0"))?;
    v.key("weight_decay", &["custom_trainer.weight_decay"], &mut optimizer.weight_decay, Rule(|x| *x >= 0.0, "at least 0"))?;
    v.key("epochs", &["custom_trainer.epochs"], &mut optimizer.epochs, SOME)?;
    v.key("warmup_epochs", &["custom_trainer.warmup_epochs"], &mut optimizer.warmup_epochs, ANY_COUNT)?;

    let objectives = &mut c.objectives;
    v.key("custom_trainer._target_", &[], &mut objectives.module, any())?;
    v.key("custom_trainer.use_collision_loss", &["use_collision_loss"], &mut objectives.use_collision_loss, SWITCH)?;
    v.key("custom_trainer.use_contrast_loss", &["use_contrast_loss"], &mut objectives.use_contrast_loss, SWITCH)?;
    v.key("custom_trainer.regulate_yaw", &["regulate_yaw"], &mut objectives.regulate_yaw, SWITCH)?;
    module::keys::visit(c, v)?;

    let model = &mut c.model;
    v.key("model.dim", &[], &mut model.dim, Rule(|x| (8..=4096).contains(x), "from 8 to 4096"))?;
    v.key("model.state_channel", &[], &mut model.state_channel, Rule(|x| (3..=7).contains(x), "from 3 to 7"))?;
    v.key("model.history_channel", &[], &mut model.history_channel, Rule(|x| *x == 9, "9"))?;
    v.key("model.history_steps", &[], &mut model.history_steps, Rule(|x| *x == 21, "21: 2 s at 10 Hz and the present"))?;
    v.key("model.future_steps", &[], &mut model.future_steps, Rule(|x| *x == 80, "80: 8 s at 10 Hz"))?;
    v.key("model.encoder_depth", &[], &mut model.encoder_depth, Rule(|x| (1..=64).contains(x), "from 1 to 64"))?;
    v.key("model.decoder_depth", &[], &mut model.decoder_depth, Rule(|x| (1..=64).contains(x), "from 1 to 64"))?;
    v.key("model.num_heads", &[], &mut model.num_heads, Rule(|x| (1..=256).contains(x), "from 1 to 256"))?;
    v.key("model.num_modes", &[], &mut model.num_modes, Rule(|x| (1..=256).contains(x), "from 1 to 256"))?;
    v.key("model.use_ego_history", &[], &mut model.use_ego_history, SWITCH)?;
    v.key("model.state_attn_encoder", &[], &mut model.state_attn_encoder, SWITCH)?;
    v.key("model.use_hidden_proj", &[], &mut model.use_hidden_proj, SWITCH)?;
    v.key("model.cat_x", &[], &mut model.cat_x, SWITCH)?;
    v.key("model.ref_free_traj", &[], &mut model.ref_free_traj, SWITCH)?;
    v.key("model.dropout", &[], &mut model.dropout, RATE)?;
    v.key("model.drop_path", &[], &mut model.drop_path, RATE)?;
    v.key("model.state_dropout", &[], &mut model.state_dropout, RATE)?;
    v.key("model.feature_builder.radius", &["model.radius", "radius"], &mut model.radius,
        Rule(|x| (8.0..=1000.0).contains(x) && x.fract() == 0.0, "whole metres from 8 to 1000"))?;
    v.key("model.feature_builder.max_agents", &["max_agents"], &mut c.features.max_agents, Rule(|x| *x <= 1000, "at most 1000"))?;

    let loader = &mut c.loader;
    v.key("data_loader.params.batch_size", &["batch_size"], &mut loader.batch_size, Rule(|x| (1..=65536).contains(x), "from 1 to 65536"))?;
    v.key("data_loader.params.num_workers", &["num_workers"], &mut loader.num_workers, Rule(|x| *x <= 1024, "at most 1024"))?;
    v.key("data_loader.params.prefetch_factor", &[], &mut loader.prefetch_factor, Rule(|x| (1..=1024).contains(x), "from 1 to 1024"))?;
    v.key("data_loader.params.drop_last", &["drop_last"], &mut loader.drop_last, SWITCH)?;
    v.key("data_loader.params.pin_memory", &["pin_memory"], &mut loader.pin_memory, SWITCH)?;
    v.key("cache.memory_mb", &[], &mut loader.cache_memory_mb, Rule(|x| *x <= 1 << 40, "at most 2^40"))?;
    v.key("cache.cache_path", &[], &mut c.cache.cache_path, NOT_EMPTY)?;
    v.key("cache.force_feature_computation", &[], &mut c.cache.force_feature_computation, SWITCH)?;
    v.key("cache.cleanup_cache", &[], &mut c.cache.cleanup_cache, SWITCH)?;
    v.key("cache.use_cache_without_dataset", &[], &mut c.cache.use_cache_without_dataset, SWITCH)?;

    let contrastive = &mut c.contrastive;
    v.key("data_augmentation.contrastive_scenario_generator.low", &["data_augmentation.contrastive_augmentation.low"],
        &mut contrastive.low, any())?;
    v.key("data_augmentation.contrastive_scenario_generator.high", &["data_augmentation.contrastive_augmentation.high"],
        &mut contrastive.high, any())?;
    v.key("data_augmentation.contrastive_scenario_generator.max_interaction_horizon",
        &["data_augmentation.contrastive_augmentation.max_interaction_horizon"], &mut contrastive.max_interaction_horizon,
        Rule(|x| *x >= 0.0, "at least 0"))?;

    selection_keys::visit(&mut c.selection, v)?;

    let splitter = &mut c.splitter;
    v.key("splitter.log_splits.train", &["splitter.train_logs"], &mut splitter.train_logs, LOGS)?;
    v.key("splitter.log_splits.val", &["splitter.val_logs"], &mut splitter.val_logs, LOGS)?;
    v.key("splitter.log_splits.test", &["splitter.test_logs"], &mut splitter.test_logs, LOGS)?;
    v.key("splitter.val_fraction", &[], &mut splitter.val_fraction, RATE)?;
    v.key("splitter.test_fraction", &[], &mut splitter.test_fraction, RATE)?;

    trainer_keys::visit(c, v)?;

    super::logger::visit(c, v)
}

/// Collects all names: (every name, the first name of the same field, whether the field takes all that is below it).
#[derive(Default)]
struct Names(Vec<(&'static str, &'static str, bool)>);

impl Visitor for Names {
    fn key<T: Setting>(&mut self, name: &'static str, others: &'static [&'static str], _: &mut T, _: Rule<T>) -> Result<()> {
        self.0.push((name, name, T::TREE));
        self.0.extend(others.iter().map(|other| (*other, name, T::TREE)));
        Ok(())
    }
}

impl Names {
    fn all() -> Result<Self> {
        let mut names = Self::default();
        visit(&mut Config::default(), &mut names)?;
        Ok(names)
    }

    /// `key` by the first name of its field.
    fn field(&self, key: &str) -> Option<String> {
        self.0.iter().find_map(|(name, first, tree)| {
            let rest = key.strip_prefix(name)?;
            (rest.is_empty() || (*tree && rest.starts_with('.'))).then(|| format!("{first}{rest}"))
        })
    }

    /// The known name, of a key or of a group, that a person who wrote `key` most likely meant: fewest letters changed, groups
    /// counting little.
    fn nearest(&self, key: &str) -> &'static str {
        let key = key.get(..256).unwrap_or(key);
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let distance = |name: &str| strsim::osa_distance(key, name).min(strsim::osa_distance(&last(key), &last(name)) + 2);
        let groups = self.0.iter().flat_map(|(name, ..)| name.match_indices('.').map(|(at, _)| &name[..at]));
        groups.chain(self.0.iter().map(|(name, ..)| *name)).min_by_key(|name| distance(name)).unwrap_or_default()
    }
}

struct Reader<'a>(&'a Value);

impl Visitor for Reader<'_> {
    fn key<T: Setting>(&mut self, name: &'static str, _: &'static [&'static str], field: &mut T, rule: Rule<T>) -> Result<()> {
        let Some(node) = self.0.get(name) else { return Ok(()) };
        if node.is_missing() {
            return Err(Error::config(name, "is '???', a value that must be given"));
        }
        let value = T::read(node).ok_or_else(|| Error::config(name, format!("{} is not {}", node.brief(), T::EXPECTED)))?;
        if !(rule.0)(&value) {
            return Err(Error::config(name, format!("{} must be {}", node.brief(), rule.1)));
        }
        *field = value;
        Ok(())
    }
}

struct Writer(Value);

impl Visitor for Writer {
    fn key<T: Setting>(&mut self, name: &'static str, _: &'static [&'static str], field: &mut T, _: Rule<T>) -> Result<()> {
        self.0.set(name, field.write());
        Ok(())
    }
}

/// The same tree with every field under its first name, and the keys that were left out since they have no effect.
///
/// # Errors
/// A key that is not known; two names of one field with different values.
pub(super) fn canonical(tree: Value) -> Result<(Value, Vec<&'static (&'static str, &'static str)>)> {
    let names = Names::all()?;
    let mut result = Value::Map(Vec::new());
    let mut idle: Vec<&'static (&'static str, &'static str)> = Vec::new();
    tree.each_leaf(&mut |key, value| {
        if key.split('.').count() > MAX_DEPTH {
            return Err(Error::config("", format!("a key of more than {MAX_DEPTH} names")));
        }
        if key == "custom_trainer" && value == Value::Null {
            // Not a group without keys, but the other module.
            result.set("custom_trainer._target_", value);
            return Ok(());
        }
        if known::is_instantiation(key) {
            return Ok(());
        }
        if let Some(first) = names.field(key) {
            if let Some(other) = result.get(&first)
                && *other != value
            {
                let reason = format!("is another name of '{first}', and they differ: {} and {}", value.brief(), other.brief());
                return Err(Error::config(key, reason));
            }
            result.set(&first, value);
            return Ok(());
        }
        if let Some(entry) = known::without_effect(key) {
            if !idle.contains(&entry) {
                idle.push(entry);
            }
            return Ok(());
        }
        if known::is_built_in(key, &value)? {
            return Ok(());
        }
        let group = names.0.iter().any(|(name, ..)| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
        match group {
            true if value == Value::Null || value.is_missing() => Ok(()),
            true => Err(Error::config(key, format!("is a group of keys and cannot be {}", value.brief()))),
            false => Err(Error::config(key, format!("unknown; the nearest known key is '{}'", names.nearest(key)))),
        }
    })?;
    Ok((result, idle))
}

/// The name under which the field that `key` names stands in a tree: `key` itself, unless another name of it is there.
pub(super) fn place(key: &str, tree: &Value) -> Result<String> {
    if tree.get(key).is_some() {
        return Ok(key.to_owned());
    }
    let names = Names::all()?;
    let Some(first) = names.0.iter().find(|(name, ..)| *name == key).map(|(_, first, _)| *first) else { return Ok(key.to_owned()) };
    let others = names.0.iter().filter(|(_, other, _)| *other == first).map(|(name, ..)| *name);
    Ok(others.into_iter().find(|name| tree.get(name).is_some()).unwrap_or(key).to_owned())
}

/// A checked configuration from a canonical tree.
pub(super) fn read(tree: &Value) -> Result<Config> {
    let mut config = Config::default();
    visit(&mut config, &mut Reader(tree))?;
    module::keys::settle(&mut config.objectives, tree);
    check(&config)?;
    Ok(config)
}

/// Every key with its value.
pub(super) fn write(config: &Config) -> Value {
    let mut writer = Writer(Value::Map(Vec::new()));
    // Writing has nothing that fails.
    let _ = visit(&mut config.clone(), &mut writer);
    interpolation::escape(writer.0)
}

/// What no single key can say.
fn check(config: &Config) -> Result<()> {
    let model = &config.model;
    let fail = |key: &str, reason: String| Err(Error::config(key, reason));
    if !model.dim.is_multiple_of(model.num_heads) {
        return fail("model.dim", format!("{} must be a multiple of model.num_heads = {}", model.dim, model.num_heads));
    }
    if !model.dim.is_multiple_of(8) {
        return fail("model.dim", format!("{} must be a multiple of 8", model.dim));
    }
    if config.objectives.use_contrast_loss && !model.use_hidden_proj {
        return fail("custom_trainer.use_contrast_loss", "needs 'model.use_hidden_proj': true".into());
    }
    let reason = match (config.run.precision, config.run.accelerator) {
        (Precision::HalfMixed, Accelerator::Cpu) => "16-mixed needs a GPU; use 32 or 64",
        (Precision::BrainMixed, Accelerator::Cpu) => "bf16-mixed needs a GPU; use 32 or 64",
        (Precision::Double, Accelerator::Gpu) => "64 is for the CPU alone; a GPU has 32, 16-mixed and bf16-mixed",
        _ => "",
    };
    if !reason.is_empty() {
        return fail("lightning.trainer.params.precision", reason.into());
    }
    trainer_keys::check(config)?;
    let cache = &config.cache;
    if cache.use_cache_without_dataset {
        let others = [("force_feature_computation", cache.force_feature_computation), ("cleanup_cache", cache.cleanup_cache)];
        if let Some((key, _)) = others.iter().find(|(_, set)| *set) {
            return fail(&format!("cache.{key}"), "cannot be together with cache.use_cache_without_dataset".into());
        }
        if cache.cache_path.is_none() {
            return fail("cache.cache_path", "is needed by cache.use_cache_without_dataset".into());
        }
    }
    let splitter = &config.splitter;
    if splitter.val_fraction + splitter.test_fraction >= 1.0 {
        return fail("splitter.val_fraction", "with splitter.test_fraction it must leave something to train on".into());
    }
    let ContrastiveConfig { low, high, .. } = &config.contrastive;
    if let Some(i) = (0..low.len()).find(|&i| low[i] > high[i]) {
        let reason = format!("component {i} is {}, above that of high, {}", low[i], high[i]);
        return fail("data_augmentation.contrastive_scenario_generator.low", reason);
    }
    let mut seen = HashSet::new();
    for (name, logs) in [("train", &splitter.train_logs), ("val", &splitter.val_logs), ("test", &splitter.test_logs)] {
        let mut own = logs.iter().collect::<HashSet<_>>();
        if let Some(log) = own.iter().find(|log| seen.contains(**log)) {
            return fail(&format!("splitter.log_splits.{name}"), format!("log '{log}' is in another split as well"));
        }
        seen.extend(own.drain());
    }
    Ok(())
}
