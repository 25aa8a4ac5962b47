//! The data of a run: descriptions, splits, and a pass over each.

use super::{
    batch::BatchOptions,
    cache::{self, FeatureCache, fill::Nodes},
    catalogue::{Catalogue, Name},
    filter::{self, Survey},
    loader::{Loader, Maker, Pass, Skipped, guarded},
    memory_cache::MemoryCache,
    rejections::Rejections,
    sampler::{self, Plan},
    splitter::{self, Splits},
    stop::StopHandle,
    supply::Supply,
};
use crate::{
    augment,
    config::Config,
    error::{Error, Rejection, Result},
    features::{FeatureBuilder, Features},
    scenario::{ScenarioSource, Split},
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex},
};

/// Name of the list of scenarios that were left out.
pub const REJECTED: &str = "rejected_scenarios.csv";

/// Scenarios of a source, divided.
pub struct DataModule {
    maker: Arc<Maker>,
    splits: Splits,
    /// By number of the type: how often its scenarios are drawn.
    weights: Vec<f64>,
    config: Config,
    rank: usize,
    ranks: usize,
    undescribed: Vec<Skipped>,
}

impl DataModule {
    /// Asks the source, or with `cache.use_cache_without_dataset` the cache, what scenarios there are, and divides them. `options`
    /// says how the model wants its batches. `source` may then be absent, and is not called.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no scenario; what the source fails with, other than [`Error::Scenario`]; [`Error::File`] or
    /// [`Error::Config`] if the cache cannot be used.
    pub fn new(config: &Config, source: Option<Arc<dyn ScenarioSource>>, options: BatchOptions) -> Result<Self> {
        let builder = FeatureBuilder {
            radius: config.model.radius,
            max_agents: config.features.max_agents,
            cost_map: config.objectives.use_collision_loss,
        };
        let keys = &config.cache;
        let source = source.filter(|_| !keys.use_cache_without_dataset);
        if let Some(path) = keys.cache_path.as_ref().filter(|_| keys.cleanup_cache) {
            if Nodes::from_environment()?.count > 1 {
                let reason = "with NUM_NODES above 1 in the environment each node would remove what the others wrote";
                return Err(Error::config("cache.cleanup_cache", reason));
            }
            cache::remove(path)?;
        }
        let mut undescribed = Vec::new();
        let (catalogue, cache) = match (&source, &keys.cache_path) {
            (Some(source), path) => {
                let cache = path.as_ref().map(|path| FeatureCache::open(path, builder)).transpose()?;
                (describe(&**source, &mut undescribed)?, cache)
            }
            (None, Some(path)) => {
                let (cache, catalogue) = FeatureCache::open_with_catalogue(path, builder)?;
                if cache.contents().entries == 0 {
                    return Err(Error::file(
                        path,
                        "the cache has no scenario with these features: 'cache.use_cache_without_dataset' needs some",
                    ));
                }
                (catalogue, Some(cache))
            }
            (None, None) => return Err(Error::Argument("there is neither a source of scenarios nor a cache".into())),
        };
        let (selection, seed) = (&config.selection, config.run.seed);
        let order = filter::filter(&catalogue, &selection.filter, seed, |scenarios, wanted| {
            survey(source.as_deref(), scenarios, config.loader.num_workers, wanted)
        })?;
        let mut splits = splitter::split(&catalogue, &order, &config.splitter, seed);
        splits.sample(selection, seed);
        let weight = |name: &String| selection.sampling_weights.iter().find(|(other, _)| other == name).map_or(1.0, |(_, weight)| *weight);
        let weights: Vec<f64> = catalogue.types().iter().map(weight).collect();
        let memory = MemoryCache::new(config.loader.cache_memory_mb.saturating_mul(1 << 20));
        let force = keys.force_feature_computation;
        let supply = Supply { source, catalogue, builder, memory, cache, force, unwritten: Mutex::default() };
        let rejections = Rejections::default();
        rejections.note(&[], &undescribed);
        let maker = Maker { supply, options, augmentor: augment::from_config(config), seed, rejections };
        Ok(Self { maker: Arc::new(maker), splits, weights, config: config.clone(), rank: 0, ranks: 1, undescribed })
    }

    /// The same data for one of several ranks: passes then load every `ranks`-th scenario from `rank` on, and all ranks have
    /// as many batches. The last scenarios that do not go round are repeated from the first ones, in evaluations as well.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such rank.
    pub fn for_rank(self, rank: usize, ranks: usize) -> Result<Self> {
        if rank >= ranks {
            return Err(Error::Argument(format!("rank {rank} of {ranks}")));
        }
        Ok(Self { rank, ranks, ..self })
    }

    /// Where features come from.
    pub fn supply(&self) -> &Supply {
        &self.maker.supply
    }

    /// Scenarios that the source could not describe, or described as another one; they are in no split.
    pub fn undescribed(&self) -> &[Skipped] {
        &self.undescribed
    }

    /// All scenarios of all splits.
    pub fn all(&self) -> Vec<usize> {
        [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(|split| self.splits.of(split).iter().copied()).collect()
    }

    /// Number of scenarios of a split, before any is found to be unusable.
    pub fn len(&self, split: Split) -> usize {
        self.splits.of(split).len()
    }

    /// True if a split has no scenario.
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }

    /// Names the scenarios of training in their order: data with another one are others.
    pub fn fingerprint(&self) -> u64 {
        let token = |index: &usize| self.maker.supply.catalogue.token(*index);
        self.splits.train.iter().fold(0, |hash, index| sampler::hash(token(index), hash))
    }

    /// Number of batches of a pass over a split, or of an epoch of training.
    ///
    /// # Errors
    /// As [`Self::evaluation`].
    pub fn batches(&self, split: Split) -> Result<usize> {
        self.count(split, split == Split::Train && self.config.loader.drop_last)
    }

    fn count(&self, split: Split, drop_last: bool) -> Result<usize> {
        let trainer = &self.config.trainer;
        let (key, limit) = match split {
            Split::Train => ("train", trainer.limit_train_batches),
            Split::Validation => ("val", trainer.limit_val_batches),
            Split::Test => ("test", trainer.limit_test_batches),
        };
        if self.is_empty(split) && !limit.is_zero() {
            return Err(self.empty(split, key));
        }
        let len = sampler::shard_len(self.len(split), self.ranks);
        let batches = sampler::batches(len, self.config.loader.batch_size, drop_last);
        let used = limit.apply(batches);
        if used == 0 && batches > 0 && !limit.is_zero() {
            let least = 1.0 / batches as f64;
            let reason = format!("this share of {batches} batches is less than one; the smallest that gives one is {least}");
            return Err(Error::config(format!("lightning.trainer.params.limit_{key}_batches"), reason));
        }
        Ok(used)
    }

    /// Starts a pass without training over the first `limit` batches of a split: in its order, to its last scenario, without
    /// augmentation.
    ///
    /// # Errors
    /// [`Error::Data`] if the split is empty; [`Error::Backend`] if threads cannot be started.
    pub fn evaluation(&self, split: Split, limit: usize, stop: &StopHandle) -> Result<Loader> {
        let batches = self.count(split, false)?.min(limit);
        self.start(self.splits.of(split).to_vec(), 0..batches, None, stop)
    }

    /// The scenarios that a pass over a split without training reads, in its order, by their positions in the source.
    ///
    /// # Errors
    /// As [`Self::evaluation`].
    pub fn evaluated(&self, split: Split) -> Result<Vec<usize>> {
        let most = self.count(split, false)?.saturating_mul(self.config.loader.batch_size);
        let mut scenarios = sampler::shard(self.splits.of(split).to_vec(), self.rank, self.ranks);
        scenarios.truncate(most);
        Ok(scenarios)
    }

    /// Features of one scenario, on the calling thread; none if it is left out.
    ///
    /// # Errors
    /// What the source fails with.
    pub fn features(&self, index: usize) -> Result<Option<Features>> {
        match guarded(|| self.supply().features(index, None, true)) {
            Ok(features) => Ok(Some(features)),
            Err(Error::Scenario { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts an epoch of training from batch `first`: shuffled, or drawn by weight, unless a few
    /// batches are to be overfitted; augmented, if anything is.
    ///
    /// # Errors
    /// As [`Self::evaluation`].
    pub fn training_pass(&self, epoch: usize, first: usize, stop: &StopHandle) -> Result<Loader> {
        let batches = self.batches(Split::Train)?;
        let (scenarios, seed) = (&self.splits.train, self.config.run.seed);
        let order = if !self.config.trainer.overfit_batches.is_zero() {
            scenarios.clone()
        } else if self.config.selection.weighted_sampling {
            sampler::weighted(scenarios, |i| self.weights[self.maker.supply.catalogue.type_number(i)], seed, epoch)
        } else {
            sampler::shuffled(scenarios, seed, epoch)
        };
        if order.is_empty() && batches > 0 {
            let key = "scenario_type_weights.scenario_type_sampling_weights.scenario_type_weights";
            return Err(Error::config(key, "no scenario of the training split has a weight above 0"));
        }
        self.start(order, first..batches, Some(epoch), stop)
    }

    fn start(&self, order: Vec<usize>, wanted: Range<usize>, epoch: Option<usize>, stop: &StopHandle) -> Result<Loader> {
        let loader = &self.config.loader;
        let plan = Plan::new(sampler::shard(order, self.rank, self.ranks), loader.batch_size, wanted);
        Loader::new(Arc::clone(&self.maker), Pass { plan, epoch }, loader.num_workers, loader.prefetch_factor, stop.clone())
    }

    /// What was left out so far.
    pub fn rejections(&self) -> &Rejections {
        &self.maker.rejections
    }

    /// Brings the list of what was left out up to date, in [`REJECTED`] in the output folder.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_rejections(&self) -> Result<()> {
        self.maker.rejections.write(&self.config.run.output_dir.join(REJECTED), &self.maker.supply.catalogue, &self.splits)
    }

    fn empty(&self, split: Split, key: &str) -> Error {
        let (all, lost) = (self.maker.supply.catalogue.len(), self.undescribed.len());
        let counts = [Split::Train, Split::Validation, Split::Test].map(|split| format!("{} {}", self.len(split), split.name()));
        Error::Data(format!(
            "the {} split is empty (of {all} scenarios: {}, {lost} without a description of their own); give it logs with 'splitter.log_splits.{key}', \
             or do without it with 'lightning.trainer.params.limit_{key}_batches=0'",
            split.name(),
            counts.join(", "),
        ))
    }
}

fn describe(source: &dyn ScenarioSource, undescribed: &mut Vec<Skipped>) -> Result<Catalogue> {
    if source.is_empty() {
        return Err(Error::Data("the source has no scenario".into()));
    }
    let (mut catalogue, mut first) = (Catalogue::default(), HashMap::new());
    for index in 0..source.len() {
        match source.info(index) {
            Ok(info) => {
                let name = Name::from(&info);
                catalogue.push(&name);
                // In a cache the two would be one.
                let before = *first.entry(cache::key(0, &name)).or_insert(index);
                if before < index {
                    let reason = format!("it has the token, log and type of scenario {before} of the source");
                    undescribed.push(Skipped { index, token: info.token, rejection: Rejection::Repeated, reason });
                    catalogue.leave_out(index);
                }
            }
            Err(Error::Scenario { token, rejection, reason }) => {
                undescribed.push(Skipped { index, token, rejection, reason });
                catalogue.push_undescribed();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(catalogue)
}

/// Loads scenarios to look at them: with `workers` threads, or, for a source that wants it, on the calling one alone.
fn survey(source: Option<&dyn ScenarioSource>, scenarios: &[usize], workers: usize, wanted: &Survey) -> Result<Vec<bool>> {
    let Some(source) = source else {
        let key = wanted.key().unwrap_or_default();
        return Err(Error::config(key, "needs the scenarios themselves, which are not there when the cache is used without them"));
    };
    let look = |index: &usize| match source.load(*index) {
        Ok(scenario) => Ok(wanted.passes(&scenario) || !scenario.has_future() || scenario.validate().is_err()),
        Err(Error::Scenario { .. }) => Ok(true),
        Err(error) => Err(error),
    };
    let look_at = |part: &[usize]| guarded(|| part.iter().map(look).collect::<Result<Vec<bool>>>());
    if !source.is_thread_safe() || workers < 2 {
        return look_at(scenarios);
    }
    let parts = std::thread::scope(|scope| {
        let parts = scenarios.chunks(scenarios.len().div_ceil(workers)).enumerate();
        let threads = parts.map(|(i, part)| {
            let thread = std::thread::Builder::new().name(format!("te-filter-{i}"));
            let spawned = thread.spawn_scoped(scope, move || look_at(part));
            spawned.map_err(|e| Error::Backend(format!("a thread that filters scenarios: {e}")))
        });
        let threads = threads.collect::<Result<Vec<_>>>()?;
        // Their panics were caught and handed over.
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::Panic("while scenarios were filtered".into()))))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.concat())
}
