//! Computing the features that a cache lacks, on all cores.

use crate::{
    data::{Skipped, cache::Check, loader::guarded, supply::Supply},
    error::{Error, Result},
    scenario::Scenario,
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

/// Scenarios of a source that is not thread-safe that may wait for each thread.
const AHEAD: usize = 4;

/// The nodes that fill a cache together, from `NUM_NODES` and `NODE_RANK` in the environment as the published stack has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes {
    /// How many there are.
    pub count: usize,
    /// Which of them this is.
    pub rank: usize,
}

impl Nodes {
    /// One node if the environment says nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unusable environment.
    pub fn from_environment() -> Result<Self> {
        let read = |name: &str, default| match std::env::var(name) {
            Ok(text) => text.trim().parse().map_err(|_| Error::Argument(format!("{name}='{text}' in the environment is no whole number"))),
            Err(_) => Ok(default),
        };
        let (count, rank) = (read("NUM_NODES", 1)?, read("NODE_RANK", 0)?);
        if rank >= count {
            return Err(Error::Argument(format!("the environment says NODE_RANK={rank} of NUM_NODES={count}")));
        }
        Ok(Self { count, rank })
    }
}

/// What became of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    /// Its features were computed and written.
    Computed,
    /// They were there.
    Present,
    /// It has none.
    Rejected(Skipped),
}

/// Goes through scenarios with `threads` threads; `each` is told on the calling thread what became of every one, in no order, and
/// says whether to go on. A source that is not thread-safe is called on the calling thread alone.
///
/// # Errors
/// What the source or the cache fails with, other than [`Error::Scenario`].
pub fn fill(supply: &Supply, indices: &[usize], threads: usize, mut each: impl FnMut(Filled) -> bool) -> Result<()> {
    let threads = threads.clamp(1, indices.len().max(1));
    let (jobs, queue) = mpsc::sync_channel::<(usize, Option<Result<Scenario>>)>(AHEAD * threads);
    let (results, done) = mpsc::channel();
    let (queue, ended) = (Mutex::new(queue), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for i in 0..threads {
            let (queue, ended, results) = (&queue, &ended, results.clone());
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((index, scenario)) = job else { return };
                    let filled = if ended.load(Ordering::Relaxed) { None } else { Some(guarded(|| one(supply, index, scenario))) };
                    if let Some(filled) = filled
                        && results.send(filled).is_err()
                    {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("te-cache-{i}"));
            thread.spawn_scoped(scope, work).map_err(|e| Error::Backend(format!("a thread that fills the cache: {e}")))?;
        }
        drop(results);
        let mut tell = |filled: Result<Filled>| -> Result<bool> { Ok(each(filled?)) };
        let outcome = (|| {
            for &index in indices {
                let scenario = if supply.is_thread_safe() { None } else { guarded(|| Ok(supply.load_unstored(index)))? };
                if jobs.send((index, scenario)).is_err() {
                    break;
                }
                for filled in done.try_iter() {
                    if !tell(filled)? {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })();
        // Threads end once the queue is empty and closed.
        drop(jobs);
        ended.store(!matches!(outcome, Ok(true)), Ordering::Relaxed);
        if outcome? {
            for filled in done {
                if !tell(filled)? {
                    ended.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(())
    })
}

fn one(supply: &Supply, index: usize, scenario: Option<Result<Scenario>>) -> Result<Filled> {
    let skipped = |rejection, reason| Ok(Filled::Rejected(supply.skipped(index, rejection, reason)));
    if scenario.is_none() {
        match supply.check(index) {
            Check::Whole => return Ok(Filled::Present),
            Check::Rejected(rejection, reason) => return skipped(rejection, reason),
            Check::Missing => {}
        }
    }
    match supply.fill(index, scenario, supply.is_thread_safe()) {
        Ok(()) => Ok(Filled::Computed),
        Err(Error::Scenario { rejection, reason, .. }) => skipped(rejection, reason),
        Err(error) => Err(error),
    }
}
