//! The host's log and event callbacks, and what a callback says when it fails.

use super::{
    guard::c_string,
    read::{self, TEXT_LIMIT},
    types::*,
};
use crate::{
    engine::{Event, EventSink, Flow, LogLevel, LogSink, StopHandle},
    error::{Error, Result},
    metrics::MetricTable,
};
use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_void},
    ptr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

thread_local! {
    static CALLBACK_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// In a callback that is about to return a code other than 0: says why. The text is copied; outside of a callback it has no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_callback_error(message: *const c_char) {
    // SAFETY: the host vouches for its text.
    let bytes = unsafe { read::bytes(message, TEXT_LIMIT, "the callback's message") };
    // Such a message often comes from elsewhere in the host, in whatever encoding: what can be read of it is worth more than a refusal.
    let message = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_else(|reason| reason);
    let _ = CALLBACK_ERROR.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = Some(message)));
}

/// Forgets what an earlier callback of this thread said.
pub fn forget_callback_error() {
    let _ = CALLBACK_ERROR.try_with(|kept| *kept.borrow_mut() = None);
}

/// What the callback that just returned `code` said.
pub fn callback_error(code: i32) -> String {
    let said = CALLBACK_ERROR.try_with(|kept| kept.borrow_mut().take()).ok().flatten();
    said.unwrap_or_else(|| format!("it returned {code}"))
}

/// The first failure that a callback reported in the call in progress. It ends the run and is the call's result, whatever the
/// trainer makes of it.
#[derive(Default)]
pub struct Fault {
    first: Mutex<Option<Error>>,
    raised: AtomicBool,
    stop: OnceLock<StopHandle>,
}

impl Fault {
    /// Lets a failure end runs through this handle.
    pub fn ends(&self, stop: StopHandle) {
        let _ = self.stop.set(stop);
    }

    /// Keeps a failure and ends the run.
    pub fn raise(&self, error: Error) {
        self.lock().get_or_insert(error);
        self.raised.store(true, Ordering::Release);
        if let Some(stop) = self.stop.get() {
            stop.stop();
        }
    }

    /// Fails if a callback has failed in this call: it is then not asked again.
    pub fn check(&self) -> Result<()> {
        if !self.raised.load(Ordering::Acquire) {
            return Ok(());
        }
        self.lock().clone().map_or(Ok(()), Err)
    }

    /// Forgets and returns the failure.
    pub fn take(&self) -> Option<Error> {
        self.raised.store(false, Ordering::Release);
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A callback's `user_data`, which the host lets the library carry to other threads.
struct UserData(*mut c_void);
// SAFETY: the header says which callbacks come from other threads; the pointer itself is only handed back.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    // A method, so that closures capture the whole and not the bare pointer.
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// The log callback as a sink: one record at a time.
pub fn log_sink(callback: TeLogCallback, user_data: *mut c_void) -> Option<LogSink> {
    let callback = callback?;
    let user_data = UserData(user_data);
    let one_at_a_time = Mutex::new(());
    Some(Arc::new(move |level: LogLevel, message: &str| {
        let message = c_string(message);
        let _turn = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the host gave callback and data for each other.
        unsafe { callback(user_data.get(), level as i32, message.as_ptr()) }
    }))
}

/// The event callback as a sink.
pub fn event_sink(callback: TeEventCallback, user_data: *mut c_void, fault: Arc<Fault>) -> Option<EventSink> {
    let callback = callback?;
    let user_data = UserData(user_data);
    Some(Arc::new(move |event: &Event| {
        if fault.check().is_err() {
            return Flow::Stop;
        }
        forget_callback_error();
        // SAFETY: the host gave callback and data for each other.
        let code = with_event(event, |event| unsafe { callback(user_data.get(), event) });
        if code < 0 {
            fault.raise(Error::Host { callback: "event".into(), token: String::new(), reason: callback_error(code) });
        }
        if code == 0 { Flow::Continue } else { Flow::Stop }
    }))
}

/// Names and values for C; the names must outlive the answer.
pub fn metric_array(table: &MetricTable, names: &[CString]) -> Vec<TeMetric> {
    table.0.iter().zip(names).map(|((_, value), name)| TeMetric { name: name.as_ptr(), value: *value }).collect()
}

/// The names of a table for C.
pub fn metric_names(table: &MetricTable) -> Vec<CString> {
    table.0.iter().map(|(name, _)| c_string(name)).collect()
}

/// Shows an event as C sees it.
fn with_event(event: &Event, show: impl FnOnce(&TeEvent) -> i32) -> i32 {
    let mut seen = TeEvent {
        struct_size: size_of::<TeEvent>(),
        kind: 0,
        reserved: 0,
        epoch: 0,
        step: 0,
        total_steps: 0,
        loss: 0.0,
        learning_rate: 0.0,
        text: c"".as_ptr(),
        reason: c"".as_ptr(),
        tokens: ptr::null(),
        token_count: 0,
        metrics: ptr::null(),
        metric_count: 0,
    };
    match event {
        Event::Step { epoch, step, total_steps, loss, learning_rate, losses } => {
            let names: Vec<CString> = losses.values.iter().map(|(name, _)| c_string(name)).collect();
            let values = losses.values.iter().zip(&names).map(|((_, value), name)| TeMetric { name: name.as_ptr(), value: *value });
            let values: Vec<TeMetric> = values.collect();
            seen.kind = TE_EVENT_STEP;
            (seen.metrics, seen.metric_count) = (values.as_ptr(), values.len());
            (seen.epoch, seen.step, seen.total_steps) = (*epoch as u64, *step as u64, *total_steps as u64);
            (seen.loss, seen.learning_rate) = (*loss, *learning_rate);
            show(&seen)
        }
        Event::StepSkipped { epoch, step, tokens } => {
            let texts: Vec<CString> = tokens.iter().map(|token| c_string(token)).collect();
            let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
            seen.kind = TE_EVENT_STEP_SKIPPED;
            (seen.epoch, seen.step) = (*epoch as u64, *step as u64);
            (seen.tokens, seen.token_count) = (pointers.as_ptr(), pointers.len());
            show(&seen)
        }
        Event::ScenarioSkipped { token, reason } => {
            let (token, reason) = (c_string(token), c_string(reason));
            seen.kind = TE_EVENT_SCENARIO_SKIPPED;
            (seen.text, seen.reason) = (token.as_ptr(), reason.as_ptr());
            show(&seen)
        }
        Event::Validation { epoch, step, metrics } | Event::Epoch { epoch, step, metrics } => {
            let names = metric_names(metrics);
            let array = metric_array(metrics, &names);
            seen.kind = if matches!(event, Event::Epoch { .. }) { TE_EVENT_EPOCH } else { TE_EVENT_VALIDATION };
            (seen.epoch, seen.step) = (*epoch as u64, *step as u64);
            (seen.metrics, seen.metric_count) = (array.as_ptr(), array.len());
            show(&seen)
        }
        Event::Checkpoint { path } => {
            let path = c_string(path);
            seen.kind = TE_EVENT_CHECKPOINT;
            seen.text = path.as_ptr();
            show(&seen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_callback_says_is_kept_in_any_encoding() {
        let said = |message: *const c_char| {
            // SAFETY: the messages below are null or end with NUL.
            unsafe { te_callback_error(message) };
            callback_error(-3)
        };
        assert_eq!(said(c"the disk is gone".as_ptr()), "the disk is gone");
        assert_eq!(said(c"Stra\xdfe unreadable".as_ptr()), "Stra\u{fffd}e unreadable");
        assert_eq!(said(ptr::null()), "the callback's message is null");
        assert_eq!(callback_error(-3), "it returned -3");
    }
}
