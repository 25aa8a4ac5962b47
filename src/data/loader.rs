//! Batches in order, made ahead by worker threads.
//!
//! Workers build features and pack batches; how many there are changes nothing in what comes out. A source that is not
//! thread-safe is only ever called on the thread that asks for batches: it loads the scenarios of the batches ahead, and the
//! workers do the rest. At most [`Loader::most_batches`] batches are in memory at a time. A scenario that breaks a rule ([`Error::Scenario`]) is left out, its batch is that much smaller, and its
//! mates stay where they are; every other error, a failing host among them, ends the pass.

use super::{
    batch::{Batch, BatchOptions},
    collate::collate_into,
    rejections::Rejections,
    sampler::Plan,
    stop::StopHandle,
    supply::Supply,
};
use crate::{
    augment::{AugmentRandom, Augmentor, batch_order},
    error::{Error, Rejection, Result},
    scenario::Scenario,
};
use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Between two looks at whether the host wants to stop, while a batch is waited for.
const PATIENCE: Duration = Duration::from_millis(20);

/// Everything that making a batch needs, shared by all threads and passes.
pub struct Maker {
    /// Features of scenarios.
    pub supply: Supply,
    /// Says how batches are packed, those of training with an augmentor as triplets.
    pub options: BatchOptions,
    /// Changes the scenarios of training.
    pub augmentor: Option<Box<dyn Augmentor>>,
    /// Of the random numbers that the augmentor uses.
    pub seed: u64,
    /// What was left out so far.
    pub rejections: Rejections,
}

/// What one pass loads.
#[derive(Debug, Clone)]
pub struct Pass {
    /// Which scenarios, in which order.
    pub plan: Plan,
    /// The epoch of training, for the augmentor; none outside of training, which changes nothing.
    pub epoch: Option<usize>,
}

/// A scenario that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its position in the source.
    pub index: usize,
    /// Its token.
    pub token: String,
    /// Category, by which reports count.
    pub rejection: Rejection,
    /// Why.
    pub reason: String,
}

/// What became of one planned batch.
#[derive(Debug)]
pub struct Loaded {
    /// Its position in the pass.
    pub position: usize,
    /// The batch; none if all its scenarios were left out.
    pub batch: Option<Batch>,
    /// Scenarios that were left out.
    pub skipped: Vec<Skipped>,
}

/// A planned batch on its way to a worker. Scenarios are there already if the source is not thread-safe.
struct Job {
    position: usize,
    /// Of its first scenario in the order of the epoch.
    place: usize,
    scenarios: Vec<(usize, Option<Result<Scenario>>)>,
    /// Whether whoever makes the batch may call the source.
    may_load: bool,
}

impl Maker {
    /// Makes a batch, unless `is_over` says between two scenarios that nobody wants it any more.
    fn make(&self, job: Job, epoch: Option<usize>, spare: Option<Batch>, is_over: impl Fn() -> bool) -> Result<Loaded> {
        let augmentor = epoch.and_then(|epoch| Some((self.augmentor.as_ref()?, epoch as u64)));
        let (mut skipped, mut ready, mut triplets) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (index, scenario)) in (job.place..).zip(job.scenarios) {
            if is_over() {
                return Err(Error::Stopped);
            }
            let made = self.supply.features(index, scenario, job.may_load).and_then(|features| {
                match augmentor {
                    Some((augmentor, epoch)) => {
                        let mut random = AugmentRandom::new(self.seed, epoch, &features.token, place);
                        triplets.push(augmentor.augment(&features, &mut random)?);
                    }
                    None => ready.push(features),
                }
                Ok(())
            });
            match made {
                Ok(()) => {}
                Err(Error::Scenario { rejection, reason, .. }) => skipped.push(self.supply.skipped(index, rejection, reason)),
                Err(error) => return Err(error),
            }
        }
        if ready.is_empty() && triplets.is_empty() {
            return Ok(Loaded { position: job.position, batch: None, skipped });
        }
        let mut batch = spare.unwrap_or_else(|| Batch::empty(self.options.scalar));
        let (order, valid) = if augmentor.is_some() { batch_order(&triplets) } else { (ready.iter().collect(), Vec::new()) };
        let options = BatchOptions { triplets: augmentor.is_some(), ..self.options.clone() };
        collate_into(&mut batch, &order, &valid, &options)?;
        Ok(Loaded { position: job.position, batch: Some(batch), skipped })
    }
}

/// Runs `body`; a panic becomes an error.
pub(super) fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(Error::Panic(format!("while features or a batch were made: {}", text.unwrap_or("no message"))))
    })
}

/// What the threads exchange.
#[derive(Default)]
struct Exchange {
    jobs: VecDeque<Job>,
    done: BTreeMap<usize, Result<Loaded>>,
    spare: Vec<Batch>,
    /// Batches made so far, not from spare ones.
    made: usize,
}

#[derive(Default)]
struct Shared {
    exchange: Mutex<Exchange>,
    /// The pass is over; set while the lock is held.
    closed: AtomicBool,
    /// A job came, or the pass is over.
    work: Condvar,
    /// A batch is done.
    ready: Condvar,
}

impl Exchange {
    /// A batch to be filled again, unless a new one is needed.
    fn take_spare(&mut self) -> Option<Batch> {
        let spare = self.spare.pop();
        self.made += usize::from(spare.is_none());
        spare
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        // Nothing panics while it holds the lock.
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, maker: &Maker, epoch: Option<usize>, stop: &StopHandle) {
        let is_closed = || self.closed.load(Ordering::Relaxed);
        loop {
            let (job, spare) = {
                let mut exchange = self.lock();
                loop {
                    if is_closed() {
                        return;
                    }
                    if let Some(job) = exchange.jobs.pop_front() {
                        break (job, exchange.take_spare());
                    }
                    exchange = self.work.wait(exchange).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let position = job.position;
            let loaded = guarded(|| maker.make(job, epoch, spare, || is_closed() || stop.is_stopped()));
            self.lock().done.insert(position, loaded);
            self.ready.notify_all();
        }
    }
}

/// One pass over planned batches. Dropping it ends and joins its threads.
pub struct Loader {
    maker: Arc<Maker>,
    pass: Pass,
    stop: StopHandle,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Batches that may be under way.
    window: usize,
    submitted: usize,
    given: usize,
}

impl Loader {
    /// Starts a pass with `workers` threads (0: batches are made when they are asked for, in the calling thread), each of
    /// which may be `prefetch` batches ahead. Once `stop` asks for it the next batch is [`Error::Stopped`], after the scenario in
    /// progress.
    ///
    /// # Errors
    /// [`Error::Backend`] if a thread cannot be started.
    pub fn new(maker: Arc<Maker>, pass: Pass, workers: usize, prefetch: usize, stop: StopHandle) -> Result<Self> {
        let workers = workers.min(pass.plan.len());
        let epoch = pass.epoch;
        let window = workers * prefetch.max(1);
        let mut loader = Self { maker, pass, stop, shared: Arc::default(), workers: Vec::new(), window, submitted: 0, given: 0 };
        for i in 0..workers {
            let (shared, maker, stop) = (Arc::clone(&loader.shared), Arc::clone(&loader.maker), loader.stop.clone());
            let thread = std::thread::Builder::new().name(format!("te-loader-{i}"));
            let thread =
                thread.spawn(move || shared.work(&maker, epoch, &stop)).map_err(|e| Error::Backend(format!("a loader thread: {e}")))?;
            loader.workers.push(thread);
        }
        Ok(loader)
    }

    /// Number of planned batches.
    pub fn len(&self) -> usize {
        self.pass.plan.len()
    }

    /// True without a planned batch.
    pub fn is_empty(&self) -> bool {
        self.pass.plan.is_empty()
    }

    /// The most batches that are in memory at a time, if each is given back before the next is asked for: `workers` times
    /// `prefetch` under way, and the one in use.
    pub fn most_batches(&self) -> usize {
        self.window + 1
    }

    /// Batches that have been in memory so far, those that served again counted once.
    pub fn made_batches(&self) -> usize {
        self.shared.lock().made
    }

    /// Takes a batch back, so that its memory serves again.
    pub fn recycle(&self, batch: Batch) {
        self.shared.lock().spare.push(batch);
    }

    fn job(&self, position: usize) -> Result<Job> {
        let load = !self.workers.is_empty() && !self.maker.supply.is_thread_safe();
        let scenario = |&index: &usize| match load {
            true if self.stop.is_stopped() => Err(Error::Stopped),
            true => Ok((index, self.maker.supply.load(index))),
            false => Ok((index, None)),
        };
        let scenarios = self.pass.plan.batch(position).iter().map(scenario).collect::<Result<_>>()?;
        Ok(Job { position, place: self.pass.plan.place(position), scenarios, may_load: !load })
    }

    fn load_next(&mut self) -> Result<Loaded> {
        if self.workers.is_empty() {
            let spare = self.shared.lock().take_spare();
            return guarded(|| self.maker.make(self.job(self.given)?, self.pass.epoch, spare, || self.stop.is_stopped()));
        }
        while self.submitted < self.pass.plan.len().min(self.given + self.window) {
            let job = guarded(|| self.job(self.submitted))?;
            self.submitted += 1;
            self.shared.lock().jobs.push_back(job);
            self.shared.work.notify_one();
        }
        let mut exchange = self.shared.lock();
        loop {
            if let Some(loaded) = exchange.done.remove(&self.given) {
                return loaded;
            }
            if self.stop.is_stopped() {
                return Err(Error::Stopped);
            }
            (exchange, _) = self.shared.ready.wait_timeout(exchange, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Planned batches in order. After an error the pass is over.
impl Iterator for Loader {
    type Item = Result<Loaded>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.given >= self.pass.plan.len() {
            return None;
        }
        let loaded = self.load_next();
        if let Ok(loaded) = &loaded {
            self.maker.rejections.note(self.pass.plan.batch(self.given), &loaded.skipped);
        }
        self.given = if loaded.is_ok() { self.given + 1 } else { self.pass.plan.len() };
        Some(loaded)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let exchange = self.shared.lock();
        self.shared.closed.store(true, Ordering::Relaxed);
        drop(exchange);
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // Its panics were caught and handed over.
            let _ = worker.join();
        }
    }
}
