//! Building, asking and freeing an engine.

use super::{
    guard::{c_string, guard},
    handle::{self, Opaque},
    host::{Fault, event_sink, log_sink},
    read::{TEXT_LIMIT, array, structure, text},
    source::HostSource,
    status::*,
    types::*,
};
use crate::{
    config::Config,
    engine::{Engine, Host, StopHandle},
    error::{Error, Result},
    scenario::ScenarioSource,
};
use std::{
    cell::RefCell,
    ffi::{CString, c_char},
    sync::{Arc, Mutex, TryLockError},
};

const OVERRIDE_LIMIT: usize = 100_000;

/// A built engine: trainer, model and data. One call at a time uses it, from any thread; `te_engine_stop`, `te_engine_config`
/// and `te_engine_summary` may be called at any time.
pub struct TeEngine {
    _private: (),
}

/// What a [`TeEngine`] holds. The lock is only ever tried, never waited for.
pub struct EngineHandle {
    engine: Mutex<Engine>,
    stop: StopHandle,
    fault: Arc<Fault>,
    config: CString,
    summary: CString,
    process: u32,
}

impl Opaque for TeEngine {
    type Inner = EngineHandle;
    const MARK: u64 = u64::from_le_bytes(*b"te_engin");
    const NAME: &'static str = "engine";
}

impl EngineHandle {
    /// Runs a call on the engine, or says why it cannot be used. What a callback reported overrides the call's own result.
    pub fn call<T>(&self, body: impl FnOnce(&mut Engine) -> Result<T>) -> Outcome<T> {
        if self.process != std::process::id() {
            return Err(Failure::new(TE_FORKED, "the engine belongs to the parent process: it does not survive a fork"));
        }
        let mut engine = self.engine.try_lock().map_err(unusable)?;
        self.fault.take();
        let result = body(&mut engine);
        match self.fault.take() {
            Some(error) => Err(error.into()),
            None => Ok(result?),
        }
    }
}

fn unusable<T>(error: TryLockError<T>) -> Failure {
    match error {
        TryLockError::WouldBlock => Failure::new(TE_BUSY, "the engine is in use by another call"),
        TryLockError::Poisoned(_) => Failure::new(TE_POISONED, "an earlier call panicked: the engine can only be freed"),
    }
}

/// Builds an engine: resolves the configuration, makes trainer, model and data. The source, if there is one, belongs to the
/// library from here on, whether the call succeeds or not (unless `options` or `source` itself cannot be read: null, or a wrong
/// `struct_size`). Callbacks may be called during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_build(options: *const TeBuildOptions, engine: *mut *mut TeEngine) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let options = structure(options, "options").map_err(Failure::argument)?;
        let fault = Arc::new(Fault::default());
        // First of all, so that every failure below releases it.
        let source = match options.source.is_null() {
            true => None,
            false => Some(HostSource::new(structure(options.source, "options.source").map_err(Failure::argument)?, fault.clone())),
        };
        if options.abi_version != TE_ABI_VERSION {
            let message = format!("the program was compiled for ABI version {}, the library has {TE_ABI_VERSION}", options.abi_version);
            return Err(Failure::argument(message));
        }
        if engine.is_null() {
            return Err(Failure::argument("engine is null"));
        }
        engine.write(handle::create(build(&options, source, fault)?));
        Ok(())
    })
}

unsafe fn build(options: &TeBuildOptions, source: Option<HostSource>, fault: Arc<Fault>) -> Outcome<EngineHandle> {
    // SAFETY: passed on to the caller.
    let config = unsafe { read_config(options) }?;
    let source = match source {
        Some(mut source) => {
            source.open()?;
            Some(Arc::new(source) as Arc<dyn ScenarioSource>)
        }
        None => None,
    };
    let host = Host {
        log: log_sink(options.log, options.log_user_data),
        event: event_sink(options.event, options.event_user_data, fault.clone()),
    };
    let built = Engine::build(config, source, host);
    if let Some(error) = fault.take() {
        return Err(error.into());
    }
    let engine = built?;
    fault.ends(engine.stop_handle());
    Ok(EngineHandle {
        stop: engine.stop_handle(),
        config: c_string(&engine.config().to_text()),
        summary: c_string(&engine.summary()),
        engine: Mutex::new(engine),
        fault,
        process: std::process::id(),
    })
}

unsafe fn read_config(options: &TeBuildOptions) -> Outcome<Config> {
    let complain = |reason| Error::config("", reason);
    // SAFETY: passed on to the caller.
    unsafe {
        let config = match options.config.is_null() {
            true => String::new(),
            false => text(options.config, TEXT_LIMIT, "the text").map_err(complain)?,
        };
        let overrides = array(options.overrides, options.override_count, OVERRIDE_LIMIT, "overrides").map_err(Failure::argument)?;
        let overrides: Vec<String> = overrides
            .iter()
            .enumerate()
            .map(|(i, &item)| text(item, TEXT_LIMIT, &format!("overrides[{i}]")).map_err(Failure::argument))
            .collect::<Outcome<_>>()?;
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let folder = match options.config_folder.is_null() {
            true => None,
            false => Some(text(options.config_folder, TEXT_LIMIT, "config_folder").map_err(Failure::argument)?),
        };
        Ok(Config::compose(&config, folder.as_deref().map(std::path::Path::new), &overrides)?)
    }
}

thread_local! {
    static RESOLVED: RefCell<CString> = RefCell::default();
}

/// The final configuration, as `te_build` would have it, as YAML text with every default. Of `options` it reads `config`,
/// `config_folder` and `overrides`; the source is not touched, and the model that `wandb.artifact` names, which then is the
/// `checkpoint`, is not downloaded. The text lives until the next call of this function on the same
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_config_resolve(options: *const TeBuildOptions, text: *mut *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let options = structure(options, "options").map_err(Failure::argument)?;
        if text.is_null() {
            return Err(Failure::argument("text is null"));
        }
        let mut config = read_config(&options)?;
        config.settle_trainer();
        let config = c_string(&config.to_text());
        let kept = RESOLVED.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            *kept = config;
            text.write(kept.as_ptr());
        });
        kept.map_err(|_| Failure::new(TE_INTERNAL_ERROR, "the thread is ending: it cannot keep the text"))
    })
}

/// Frees an engine and releases its source; null is allowed. `TE_BUSY` while a call runs: nothing is freed then. In the child of
/// a fork the memory is given up without being touched and the source is not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_free(engine: *mut TeEngine) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe {
        if engine.is_null() {
            return Ok(());
        }
        let inner = handle::borrow(engine.cast_const())?;
        if inner.process != std::process::id() {
            return handle::abandon(engine);
        }
        if let Err(TryLockError::WouldBlock) = inner.engine.try_lock() {
            return Err(Failure::new(TE_BUSY, "the engine is in use by another call"));
        }
        drop(handle::take(engine)?);
        Ok(())
    })
}

/// Asks the run in progress to end after the step that it is in, or, where that waits for scenarios, after those being loaded; without
/// a run it has no effect. From any thread, in a callback, in a signal handler: it takes no lock, allocates nothing and leaves
/// `te_last_error` alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_stop(engine: *const TeEngine) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    match unsafe { handle::look(engine) } {
        Some(inner) => {
            inner.stop.stop();
            TE_OK
        }
        None => TE_INVALID_ARGUMENT,
    }
}

/// The final configuration as YAML text with every default; it lives as long as the engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_config(engine: *const TeEngine, text: *mut *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { give_text(engine, text, |inner| &inner.config) }
}

/// Table of the model's parts with their numbers of parameters; it lives as long as the engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_summary(engine: *const TeEngine, text: *mut *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { give_text(engine, text, |inner| &inner.summary) }
}

unsafe fn give_text(engine: *const TeEngine, text: *mut *const c_char, which: impl FnOnce(&EngineHandle) -> &CString) -> TeStatus {
    // SAFETY: passed on to the caller.
    guard(|| unsafe {
        let inner = handle::borrow(engine)?;
        if text.is_null() {
            return Err(Failure::argument("text is null"));
        }
        text.write(which(inner).as_ptr());
        Ok(())
    })
}
