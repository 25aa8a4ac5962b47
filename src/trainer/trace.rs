//! When the parts of a training step were run, while somebody wants to know.

use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// What is timed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a batch.
    Loading,
    /// Of a training batch.
    Forward,
    /// Of a training batch.
    Backward,
    /// Applying the gradients.
    Update,
    /// A whole validation.
    Validation,
    /// Writing a checkpoint.
    Checkpoint,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
            Self::Validation => "validation",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Part of every step, not of an epoch.
    fn is_of_step(self) -> bool {
        !matches!(self, Self::Validation | Self::Checkpoint)
    }
}

/// A complete event of the Chrome trace event format: microseconds since the trace began.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Event {
    name: String,
    /// `phase`, or for an operation `forward` or `backward`.
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
}

/// All calls of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// Dotted name of an operation with its scopes, or name of a phase.
    pub name: String,
    /// `phase`, or for an operation `forward` or `backward`.
    pub category: &'static str,
    /// How often it was run.
    pub calls: usize,
    /// Microseconds of all calls.
    pub total: f64,
    /// Share of all phases, or of all operations.
    pub share: f64,
}

/// Collects times: phases of epochs until [`Trace::close`], those of steps until [`Trace::end_steps`].
pub struct Trace {
    start: Instant,
    open: AtomicBool,
    steps: AtomicBool,
    events: Mutex<Vec<Event>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { start: Instant::now(), open: AtomicBool::new(true), steps: AtomicBool::new(true), events: Mutex::default() }
    }
}

impl Trace {
    /// No step is traced any more.
    pub fn end_steps(&self) {
        self.steps.store(false, Ordering::Relaxed);
    }

    /// Nothing is traced any more. True the first time.
    pub fn close(&self) -> bool {
        self.end_steps();
        self.open.swap(false, Ordering::Relaxed)
    }

    /// Whether steps are traced.
    pub fn takes_steps(&self) -> bool {
        self.steps.load(Ordering::Relaxed)
    }

    /// Takes note of a phase that ends now.
    pub fn phase(&self, phase: Phase, start: Instant) {
        if self.takes_steps() || (!phase.is_of_step() && self.open.load(Ordering::Relaxed)) {
            self.push(phase.name(), "phase", start, Instant::now());
        }
    }

    /// Takes note of a phase.
    pub fn span(&self, phase: Phase, start: Instant, end: Instant) {
        self.push(phase.name(), "phase", start, end);
    }

    /// Takes note of an operation.
    pub fn operation(&self, name: &str, category: &'static str, start: Instant, end: Instant) {
        self.push(name, category, start, end);
    }

    fn push(&self, name: &str, cat: &'static str, start: Instant, end: Instant) {
        let microseconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as f64 / 1000.0;
        let (ts, dur) = (microseconds(self.start, start), microseconds(start, end));
        self.lock().push(Event { name: name.to_owned(), cat, ph: "X", ts, dur, pid: 1, tid: 1 });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        // Nothing panics while it holds the lock.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace as `chrome://tracing` and Perfetto read it.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&serde_json::json!({ "displayTimeUnit": "ms", "traceEvents": &*self.lock() }))
    }

    /// Phases, then operations, each with the longest first.
    pub fn totals(&self) -> Vec<Total> {
        let (mut totals, mut places) = (Vec::<Total>::new(), HashMap::new());
        for event in &*self.lock() {
            let place = *places.entry((event.name.clone(), event.cat)).or_insert(totals.len());
            if place == totals.len() {
                totals.push(Total { name: event.name.clone(), category: event.cat, calls: 0, total: 0.0, share: 0.0 });
            }
            totals[place].calls += 1;
            totals[place].total += event.dur;
        }
        let sum = |phases: bool| totals.iter().filter(|t| (t.category == "phase") == phases).map(|t| t.total).sum::<f64>();
        let sums = [sum(false), sum(true)].map(|sum| sum.max(f64::MIN_POSITIVE));
        totals.iter_mut().for_each(|t| t.share = t.total / sums[usize::from(t.category == "phase")]);
        let is_operation = |t: &Total| t.category != "phase";
        totals.sort_by(|a, b| is_operation(a).cmp(&is_operation(b)).then(b.total.total_cmp(&a.total)));
        totals
    }
}
