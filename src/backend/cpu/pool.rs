//! Threads that share out numbered tasks. Nothing is allocated for a job, and a sleeping thread is never waited for.

use std::{
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// What a job does: thread number, task number.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Set while a job takes helpers in; the bits above it number the jobs, those below it count the helpers inside.
const OPEN: u64 = 1 << 32;
/// Rounds that a thread spins, and then yields, before it sleeps.
const SPINS: u32 = 2_000;
const YIELDS: u32 = 50;

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    /// Written while the door is closed and nobody is inside; read from inside.
    job: UnsafeCell<Option<(*const Task<'static>, usize)>>,
    busy: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is only written between jobs, as its comment says; everything else is atomic.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` closure.
unsafe impl Send for Shared {}

/// The threads of a backend; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` in all; 0 for as many as there are cores.
    pub fn new(threads: usize) -> Self {
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        // A thread that the system refuses is done without: results do not depend on their number.
        let helpers = (1..threads)
            .map_while(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("te-cpu-{i}")).spawn(move || help(&shared, i)).ok()
            })
            .collect();
        Self { shared, helpers }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `task(thread, i)` for every i below `count`, in any order; returns when all are done.
    ///
    /// # Panics
    /// If a task panics, or runs a job itself.
    pub fn run(&self, count: usize, task: &Task) {
        if count <= 1 || self.helpers.is_empty() {
            return (0..count).for_each(|i| task(0, i));
        }
        let shared = &*self.shared;
        assert!(!shared.busy.swap(true, Ordering::Acquire), "a job inside a job");
        let pointer: *const Task = task;
        // SAFETY: the lifetime is only forgotten until `close` below has seen every helper leave. The door is closed and
        // nobody inside, so that nobody reads `job`.
        unsafe { *shared.job.get() = Some((std::mem::transmute::<*const Task, *const Task<'static>>(pointer), count)) };
        shared.next.store(0, Ordering::Relaxed);
        let epoch = shared.state.load(Ordering::Relaxed) >> 33;
        shared.state.store(((epoch + 1) << 33) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(shared, 0, task, count)));
        if own.is_err() {
            shared.next.store(count, Ordering::Relaxed);
        }
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut rounds = 0;
        while shared.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            pause(&mut rounds);
        }
        shared.busy.store(false, Ordering::Release);
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        assert!(!panicked, "a kernel panicked in a helper thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.lock.lock());
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

/// Takes tasks until none is left.
fn work(shared: &Shared, thread: usize, task: &Task, count: usize) {
    loop {
        let i = shared.next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return;
        }
        task(thread, i);
    }
}

/// A helper's life.
fn help(shared: &Shared, thread: usize) {
    let mut done = 0;
    let mut rounds = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let state = shared.state.load(Ordering::Acquire);
        if state & OPEN == 0 || state >> 33 == done {
            if rounds < SPINS + YIELDS {
                pause(&mut rounds);
            } else {
                sleep(shared, done);
                rounds = 0;
            }
            continue;
        }
        if shared.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            continue;
        }
        // SAFETY: entered through the open door; `run` does not return, nor write `job`, before this helper has left.
        let (task, count) = unsafe { (*shared.job.get()).map(|(task, count)| (&*task, count)).expect("job of an open door") };
        if catch_unwind(AssertUnwindSafe(|| work(shared, thread, task, count))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        done = state >> 33;
        rounds = 0;
        shared.state.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sleeps until a job other than `done` is open.
fn sleep(shared: &Shared, done: u64) {
    let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    loop {
        let state = shared.state.load(Ordering::SeqCst);
        if shared.stop.load(Ordering::SeqCst) || (state & OPEN != 0 && state >> 33 != done) {
            break;
        }
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
}

fn pause(rounds: &mut u32) {
    *rounds = rounds.saturating_add(1);
    if *rounds < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            for count in [0, 1, 2, 3, 100] {
                for _ in 0..200 {
                    let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(count, &|thread, i| {
                        assert!(thread < threads);
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(20, &|_, i| assert_ne!(i, bad))));
            assert!(result.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(20, &|_, i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 190);
        }
    }
}
