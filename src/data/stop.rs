//! The host's request to end what is under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends a run from any thread, or from a signal handler.
#[derive(Debug, Clone, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// Asks the run to end after the step in progress, or, where that waits for scenarios, after those being loaded.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// True once asked.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Forgets the request; a run does this when it starts.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
