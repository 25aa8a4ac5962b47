//! Weights to files and back.

use super::{
    engine::TeEngine,
    guard::{c_string, guard},
    handle::{self, Opaque},
    read::{NAME_LIMIT, TEXT_LIMIT, blank, structure, text, write},
    status::{Failure, Outcome, TeStatus},
    types::*,
};
use crate::engine::{LoadOptions, LoadReport, SaveOptions};
use std::{
    ffi::{CString, c_char},
    path::Path,
};

/// How a file of weights and the model differ; see `te_weights_report_view`. It may be read from any thread and outlives its engine.
pub struct TeWeightsReport {
    _private: (),
}

/// What a [`TeWeightsReport`] holds: the view, and the memory that it points to.
pub struct Report {
    view: TeWeightsReportView,
    _arrays: [Vec<*const c_char>; 2],
    _names: [Vec<CString>; 2],
}

impl Opaque for TeWeightsReport {
    type Inner = Report;
    const MARK: u64 = u64::from_le_bytes(*b"te_wrepo");
    const NAME: &'static str = "report on weights";
}

impl Report {
    fn new(report: &LoadReport) -> Self {
        let names = [&report.missing, &report.extra].map(|names| names.iter().map(|name| c_string(name)).collect::<Vec<_>>());
        let arrays = names.each_ref().map(|names| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>());
        // The view points into the heap memory of what is stored beside it, which stays where it is.
        let view = TeWeightsReportView {
            missing: arrays[0].as_ptr(),
            missing_count: arrays[0].len(),
            extra: arrays[1].as_ptr(),
            extra_count: arrays[1].len(),
            ..blank()
        };
        Self { view, _arrays: arrays, _names: names }
    }
}

/// Writes the weights by their published names: a checkpoint of PyTorch Lightning, as the published planner reads it, to a name
/// that ends in `.ckpt`, else safetensors. The file appears whole or not at all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_save_weights(engine: *mut TeEngine, path: *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { te_engine_save_weights_with(engine, path, std::ptr::null()) }
}

/// As `te_engine_save_weights`, with options; null for the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_save_weights_with(
    engine: *mut TeEngine,
    path: *const c_char,
    options: *const TeSaveWeightsOptions,
) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let inner = handle::borrow(engine.cast_const())?;
        let path = read_path(path)?;
        let mut save = SaveOptions::default();
        if !options.is_null() {
            let options = structure(options, "options").map_err(Failure::argument)?;
            save = SaveOptions { prefix: optional(options.prefix, "options.prefix")?, optimizer: options.optimizer != 0 };
        }
        inner.call(|engine| engine.save_weights(Path::new(&path), &save))
    })
}

/// Reads weights: safetensors, or what PyTorch or Lightning wrote (`.ckpt`), of which nothing is executed. A missing, extra or
/// misshapen one is an error that names it, and nothing is changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_load_weights(engine: *mut TeEngine, path: *const c_char) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { te_engine_load_weights_with(engine, path, std::ptr::null(), std::ptr::null_mut()) }
}

/// As `te_engine_load_weights`, with options, null for the defaults. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_engine_load_weights_with(
    engine: *mut TeEngine,
    path: *const c_char,
    options: *const TeLoadWeightsOptions,
    report: *mut *mut TeWeightsReport,
) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let inner = handle::borrow(engine.cast_const())?;
        let path = read_path(path)?;
        let mut load = LoadOptions::default();
        if !options.is_null() {
            let options = structure(options, "options").map_err(Failure::argument)?;
            load = LoadOptions {
                strip_prefix: optional(options.strip_prefix, "options.strip_prefix")?,
                add_prefix: optional(options.add_prefix, "options.add_prefix")?.unwrap_or_default(),
                strict: options.partial == 0,
            };
        }
        let result = inner.call(|engine| engine.load_weights(Path::new(&path), &load))?;
        if !report.is_null() {
            report.write(handle::create(Report::new(&result)));
        }
        Ok(())
    })
}

/// Shows a report: set `view->struct_size`, the rest is filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_weights_report_view(report: *const TeWeightsReport, view: *mut TeWeightsReportView) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe { write(view, "view", &handle::borrow(report)?.view).map_err(Failure::argument) })
}

/// Frees a report; null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_weights_report_free(report: *mut TeWeightsReport) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe { handle::take(report) }.map(drop))
}

unsafe fn read_path(path: *const c_char) -> Outcome<String> {
    // SAFETY: passed on to the caller.
    match unsafe { text(path, TEXT_LIMIT, "path") } {
        Ok(path) if path.is_empty() => Err(Failure::argument("path is empty")),
        other => other.map_err(Failure::argument),
    }
}

/// A text that may be null.
unsafe fn optional(pointer: *const c_char, field: &str) -> Outcome<Option<String>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: passed on to the caller.
    unsafe { text(pointer, NAME_LIMIT, field) }.map(Some).map_err(Failure::argument)
}
