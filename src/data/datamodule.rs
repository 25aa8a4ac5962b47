//! The data of a run: descriptions, splits, and a pass over each.

use super::{
    batch::BatchOptions,
    cache::{self, FeatureCache},
    catalogue::Catalogue,
    loader::{Loader, Maker, Skipped},
    memory_cache::MemoryCache,
    sampler,
    splitter::{self, Splits},
    supply::Supply,
};
use crate::{
    config::Config,
    error::{Error, Result},
    features::FeatureBuilder,
    scenario::{ScenarioSource, Split},
};
use std::sync::{Arc, OnceLock};

/// Scenarios of a source, divided.
pub struct DataModule {
    maker: Arc<Maker>,
    splits: Splits,
    config: Config,
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
        let splits = splitter::split(&catalogue, &config.splitter, config.run.seed);
        let memory = MemoryCache::new(config.loader.cache_memory_mb.saturating_mul(1 << 20));
        let force = keys.force_feature_computation;
        let supply = Supply { source, catalogue, builder, memory, cache, force, write_failure: OnceLock::new() };
        Ok(Self { maker: Arc::new(Maker { supply, options }), splits, config: config.clone(), undescribed })
    }

    /// Where features come from.
    pub fn supply(&self) -> &Supply {
        &self.maker.supply
    }

    /// Scenarios that the source could not describe; they are in no split.
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

    /// Number of batches of a pass over a split.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn batches(&self, split: Split) -> Result<usize> {
        Ok(self.plan(split, Some(0))?.len())
    }

    /// Starts a pass over a split from batch `first`, at most `limit` batches. Training is shuffled for every epoch, others keep
    /// their order.
    ///
    /// # Errors
    /// [`Error::Data`] if the split is empty; [`Error::Backend`] if threads cannot be started.
    pub fn pass(&self, split: Split, epoch: usize, first: usize, limit: usize) -> Result<Loader> {
        let plan = self.plan(split, Some(epoch))?.into_iter().skip(first).take(limit).collect();
        Loader::new(Arc::clone(&self.maker), plan, self.config.loader.num_workers, self.config.loader.prefetch_factor)
    }

    /// Starts a pass without training over the first `limit` batches of a split: in its order, and to its last scenario.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn evaluation(&self, split: Split, limit: usize) -> Result<Loader> {
        let plan = self.plan(split, None)?.into_iter().take(limit).collect();
        Loader::new(Arc::clone(&self.maker), plan, self.config.loader.num_workers, self.config.loader.prefetch_factor)
    }

    /// Batches of an epoch of training, or without one for an evaluation.
    fn plan(&self, split: Split, epoch: Option<usize>) -> Result<Vec<Vec<usize>>> {
        let indices = self.splits.of(split);
        let trainer = &self.config.trainer;
        let (key, limit) = match split {
            Split::Train => ("train", trainer.limit_train_batches),
            Split::Validation => ("val", trainer.limit_val_batches),
            Split::Test => ("test", trainer.limit_test_batches),
        };
        if indices.is_empty() && !limit.is_zero() {
            return Err(self.empty(split, key));
        }
        let (size, drop_last) = (self.config.loader.batch_size, self.config.loader.drop_last);
        let mut plan = match epoch.filter(|_| split == Split::Train) {
            None => sampler::batches(indices, size, false),
            Some(_) if !trainer.overfit_batches.is_zero() => sampler::batches(indices, size, drop_last),
            Some(epoch) => sampler::batches(&sampler::shuffled(indices, self.config.run.seed, epoch), size, drop_last),
        };
        let used = limit.apply(plan.len());
        if used == 0 && !plan.is_empty() && !limit.is_zero() {
            let (batches, least) = (plan.len(), 1.0 / plan.len() as f64);
            let reason = format!("this share of {batches} batches is less than one; the smallest that gives one is {least}");
            return Err(Error::config(format!("lightning.trainer.params.limit_{key}_batches"), reason));
        }
        plan.truncate(used);
        Ok(plan)
    }

    fn empty(&self, split: Split, key: &str) -> Error {
        let (all, lost) = (self.maker.supply.catalogue.len(), self.undescribed.len());
        let counts = [Split::Train, Split::Validation, Split::Test].map(|split| format!("{} {}", self.len(split), split.name()));
        Error::Data(format!(
            "the {} split is empty (of {all} scenarios: {}, {lost} without a description); give it logs with 'splitter.log_splits.{key}', \
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
    let mut catalogue = Catalogue::default();
    for index in 0..source.len() {
        match source.info(index) {
            Ok(info) => catalogue.push_info(&info),
            Err(Error::Scenario { token, rejection, reason }) => {
                undescribed.push(Skipped { index, token, rejection, reason });
                catalogue.push_undescribed();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(catalogue)
}
