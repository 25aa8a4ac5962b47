//! Filling the feature cache ahead of training.

use super::{Trainer, hooks::progress::Bar, host::CacheReport, host::LogLevel, run::Run};
use crate::{
    data::{
        DataModule,
        cache::fill::{Filled, Nodes, fill},
    },
    error::{Error, Result},
};

impl Trainer {
    /// Computes the features of all scenarios of all splits that the cache lacks, on all cores (`threads`), and writes them. With
    /// `NUM_NODES` and `NODE_RANK` in the environment this node does its share of them. The host may end it by the stop call or
    /// its answer to an event; what was written stays.
    ///
    /// # Errors
    /// [`Error::Config`] without `cache.cache_path`; [`Error::Argument`] for an unusable environment; [`Error::Data`] or
    /// [`Error::File`] if the cache cannot be written to; what the source fails with.
    pub fn cache(&mut self, data: &DataModule) -> Result<CacheReport> {
        let supply = data.supply();
        let (Some(cache), Some(path)) = (&supply.cache, &self.config.cache.cache_path) else {
            return Err(Error::config("cache.cache_path", "must name a folder to cache features in"));
        };
        self.begin(data);
        let mut run = Run::new(&self.host, &self.stop);
        run.skip(data.undescribed());
        let nodes = Nodes::from_environment()?;
        let indices: Vec<usize> = data.all().into_iter().skip(nodes.rank).step_by(nodes.count).collect();
        let threads = match self.config.run.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut report = CacheReport { path: path.clone(), scenarios: indices.len(), ..CacheReport::default() };
        let mut bar = self.config.run.progress_bar.then(Bar::default);
        let before = cache.damaged();
        let mut seen = 0;
        let filled = fill(supply, &indices, threads, |filled| {
            seen += 1;
            match filled {
                Filled::Computed => report.computed += 1,
                Filled::Present => report.present += 1,
                Filled::Rejected(skipped) => {
                    report.failed += 1;
                    *report.failures.entry(skipped.rejection.name().to_owned()).or_default() += 1;
                    data.rejections().note(&[skipped.index], std::slice::from_ref(&skipped));
                    run.skip(&[skipped]);
                }
            }
            if let Some(bar) = &mut bar {
                bar.set(|| "features".to_owned(), seen, report.scenarios, format!("{} failed", report.failed));
            }
            !run.is_interrupted()
        });
        let ended = cache.finish();
        filled?;
        ended?;
        report.stopped = seen < indices.len();
        report.damaged = cache.damaged() - before;
        run.log(
            LogLevel::Info,
            &format!(
                "cached features in '{path}': {} computed, {} there before, {} damaged and computed anew; failed features and targets: {} \
                 out of {}",
                report.computed, report.present, report.damaged, report.failed, report.scenarios
            ),
        );
        Ok(report)
    }
}

/// Ends the shard that a run wrote to, and tells the host what could not be cached.
pub(super) fn end(run: &Run, data: &DataModule) {
    let supply = data.supply();
    let Some(cache) = &supply.cache else { return };
    let unwritten = supply.take_unwritten();
    if let Some(reason) = unwritten.cache {
        run.log(LogLevel::Warning, &format!("features are no longer cached: {reason}"));
    }
    if !unwritten.scenarios.is_empty() {
        let (count, reason) = (unwritten.scenarios.len(), unwritten.reason);
        run.log(LogLevel::Warning, &format!("{count} scenarios could not be written to the cache: {reason}"));
    }
    if let Err(error) = cache.finish() {
        run.log(LogLevel::Warning, &format!("the end of the cache's shard: {error}"));
    }
    if cache.damaged() > 0 {
        run.log(LogLevel::Warning, &format!("{} entries of the cache were damaged", cache.damaged()));
    }
}
