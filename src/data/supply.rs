//! Features of one scenario: from memory, from the cache on disk, or built anew.

use super::{
    cache::{Check, FeatureCache, Lookup},
    catalogue::Catalogue,
    loader::Skipped,
    memory_cache::MemoryCache,
};
use crate::{
    error::{Error, Rejection, Result},
    features::{FeatureBuilder, Features},
    scenario::{Scenario, ScenarioSource},
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Everything that features of scenarios come from, shared by all threads.
pub struct Supply {
    /// Where scenarios come from; none if the cache has all.
    pub source: Option<Arc<dyn ScenarioSource>>,
    /// Their descriptions.
    pub catalogue: Catalogue,
    /// Makes features.
    pub builder: FeatureBuilder,
    /// Features of earlier passes.
    pub memory: MemoryCache,
    /// Features of earlier runs.
    pub cache: Option<FeatureCache>,
    /// Whether what earlier runs cached is computed again.
    pub force: bool,
    /// What could not be written to the cache.
    pub unwritten: Mutex<Unwritten>,
}

/// Why features could not be written to the cache on disk. Training goes on without.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// The cache cannot be written to, and no longer is.
    pub cache: Option<String>,
    /// Positions of the scenarios that no entry can hold.
    pub scenarios: HashSet<usize>,
    /// Why not the first of them.
    pub reason: String,
}

impl Supply {
    /// True if scenarios may be loaded on any thread.
    pub fn is_thread_safe(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.is_thread_safe())
    }

    /// Calls the source, unless the features can be had without.
    pub fn load(&self, index: usize) -> Option<Result<Scenario>> {
        if self.memory.contains(index) { None } else { self.load_unstored(index) }
    }

    /// That a scenario is left out. It bears the name that it was described by, whatever it was loaded as.
    pub fn skipped(&self, index: usize, rejection: Rejection, reason: String) -> Skipped {
        Skipped { index, token: self.catalogue.token(index).to_owned(), rejection, reason }
    }

    /// What could not be written since this was asked for the last time.
    pub fn take_unwritten(&self) -> Unwritten {
        std::mem::take(&mut *self.unwritten())
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the cache on disk has of a scenario and may be used.
    pub fn check(&self, index: usize) -> Check {
        let name = self.catalogue.name(index);
        match &self.cache {
            Some(cache) if !self.force || cache.is_recent(&name) => cache.check(&name),
            _ => Check::Missing,
        }
    }

    /// Calls the source, unless the cache on disk has the features.
    pub(super) fn load_unstored(&self, index: usize) -> Option<Result<Scenario>> {
        let source = self.source.as_ref()?;
        if self.check(index) == Check::Missing { Some(source.load(index)) } else { None }
    }

    /// Features of a scenario, which was loaded already or is if it must be and `may_load` says that this thread may call the
    /// source.
    ///
    /// # Errors
    /// [`Error::Scenario`] if it has none; what the source fails with.
    pub fn features(&self, index: usize, scenario: Option<Result<Scenario>>, may_load: bool) -> Result<Features> {
        let Some(scenario) = scenario else {
            if let Some(features) = self.memory.get(index) {
                return Ok(features);
            }
            if let Some(features) = self.stored(index)? {
                self.memory.put(index, &features);
                return Ok(features);
            }
            return self.features(index, Some(self.load_anew(index, may_load)), may_load);
        };
        let scenario = scenario?;
        let features = self.build(&scenario);
        // The run does without.
        let _ = self.store(index, &scenario, &features);
        let mut features = features?;
        features.cost_map = features.cost_map.filter(|_| self.builder.cost_map);
        self.memory.put(index, &features);
        Ok(features)
    }

    /// Builds features and writes them, or that there are none, to the cache on disk.
    ///
    /// # Errors
    /// [`Error::Scenario`] if there are none, or no entry can hold them; [`Error::File`] if the cache cannot be written to; what the source
    /// fails with.
    pub(super) fn fill(&self, index: usize, scenario: Option<Result<Scenario>>, may_load: bool) -> Result<()> {
        let scenario = scenario.unwrap_or_else(|| self.load_anew(index, may_load))?;
        let features = self.build(&scenario);
        let stored = self.store(index, &scenario, &features);
        if let Some(reason) = &self.unwritten().cache {
            return Err(Error::Data(format!("the cache cannot be written to: {reason}")));
        }
        features.and(stored)
    }

    fn load_anew(&self, index: usize, may_load: bool) -> Result<Scenario> {
        match &self.source {
            Some(source) if may_load => source.load(index),
            // Without a source, or if the disk failed between two looks at an entry.
            _ => Err(Error::scenario(self.catalogue.token(index), Rejection::Unreadable, "its cache entry is damaged")),
        }
    }

    /// Features from the cache on disk.
    fn stored(&self, index: usize) -> Result<Option<Features>> {
        let name = self.catalogue.name(index);
        let Some(cache) = self.cache.as_ref().filter(|cache| !self.force || cache.is_recent(&name)) else { return Ok(None) };
        match cache.get(&name) {
            Lookup::Features(features) => Ok(Some(*features)),
            Lookup::Rejected(rejection, reason) => Err(Error::scenario(name.token, rejection, reason)),
            Lookup::Missing => Ok(None),
        }
    }

    fn build(&self, scenario: &Scenario) -> Result<Features> {
        if !scenario.has_future() {
            let reason = format!("{} ego states are no training scenario: history and future are needed", scenario.ego.len());
            return Err(Error::scenario(&scenario.token, Rejection::StepCount, reason));
        }
        self.cache.as_ref().map_or(self.builder, FeatureCache::builder).build(scenario)
    }

    /// Writes to the cache on disk what was built. A scenario that came under another name than it was described by is not
    /// written: nobody would find it.
    ///
    /// # Errors
    /// [`Error::Scenario`] if no entry can hold it: others may be written. [`Error::File`]: nothing more is.
    fn store(&self, index: usize, scenario: &Scenario, features: &Result<Features>) -> Result<()> {
        let name = self.catalogue.name(index);
        let described = scenario.token == name.token && scenario.log_name == name.log_name && scenario.scenario_type == name.scenario_type;
        let Some(cache) = self.cache.as_ref().filter(|_| described && self.unwritten().cache.is_none()) else { return Ok(()) };
        let written = match features {
            Ok(features) => cache.put(&name, scenario, features),
            Err(Error::Scenario { rejection, reason, .. }) => cache.put_rejected(&name, *rejection, reason),
            Err(_) => Ok(()),
        };
        written.map_err(|error| {
            let mut unwritten = self.unwritten();
            match error {
                Error::Data(reason) => {
                    if unwritten.scenarios.is_empty() {
                        unwritten.reason.clone_from(&reason);
                    }
                    unwritten.scenarios.insert(index);
                    Error::scenario(name.token, Rejection::NotCacheable, reason)
                }
                error => {
                    unwritten.cache.get_or_insert_with(|| error.to_string());
                    error
                }
            }
        })
    }
}
