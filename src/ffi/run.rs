//! Fitting and evaluating, and the report that they give.

use super::{
    engine::TeEngine,
    guard::{c_string, guard},
    handle::{self, Opaque},
    host::{metric_array, metric_names},
    read::{NAME_LIMIT, TEXT_LIMIT, blank, text, write},
    status::{Failure, TeStatus},
    types::*,
};
use crate::{
    config::CheckpointSource,
    engine::{CacheReport, Engine, EvaluationReport, FitReport},
    error::{Error, Result},
    metrics::MetricTable,
    scenario::Split,
};
use std::ffi::{CStr, CString, c_char};

/// What a run did; see `te_report_view`. It may be read from any thread and outlives its engine.
pub struct TeReport {
    _private: (),
}

/// What a [`TeReport`] holds: the view, and the memory that it points to.
pub struct Report {
    view: TeReportView,
    metrics: Vec<TeMetric>,
    _names: Vec<CString>,
    _texts: [CString; 3],
}

impl Opaque for TeReport {
    type Inner = Report;
    const MARK: u64 = u64::from_le_bytes(*b"te_repor");
    const NAME: &'static str = "report";
}

impl Report {
    fn new(mut view: TeReportView, table: &MetricTable, paths: [&str; 2], json: serde_json::Result<String>) -> Result<Self> {
        let json = json.map_err(|e| Error::Data(format!("the report cannot be written as JSON: {e}")))?;
        let names = metric_names(table);
        let metrics = metric_array(table, &names);
        let texts = [c_string(paths[0]), c_string(paths[1]), c_string(&json)];
        // The view points into the heap memory of what is stored beside it, which stays where it is.
        (view.metrics, view.metric_count) = (metrics.as_ptr(), metrics.len());
        [view.best_checkpoint, view.last_checkpoint, view.json] = texts.each_ref().map(|text| text.as_ptr());
        Ok(Self { view, metrics, _names: names, _texts: texts })
    }

    fn of_fit(report: &FitReport) -> Result<Self> {
        let view = TeReportView {
            epochs: report.epochs as u64,
            steps: report.steps as u64,
            skipped_steps: report.skipped_steps as u64,
            skipped_scenarios: report.skipped_scenarios as u64,
            stopped: report.stopped.into(),
            has_best_score: report.best_score.is_some().into(),
            best_score: report.best_score.unwrap_or(0.0),
            ..blank()
        };
        Self::new(view, &report.metrics, [&report.best_checkpoint, &report.last_checkpoint], serde_json::to_string(report))
    }

    fn of_cache(report: &CacheReport) -> Result<Self> {
        let view = TeReportView {
            scenarios: report.scenarios as u64,
            skipped_scenarios: report.failed as u64,
            stopped: report.stopped.into(),
            computed: report.computed as u64,
            present: report.present as u64,
            failed: report.failed as u64,
            damaged: report.damaged as u64,
            ..blank()
        };
        Self::new(view, &MetricTable::default(), ["", ""], serde_json::to_string(report))
    }

    fn of_evaluation(report: &EvaluationReport) -> Result<Self> {
        let view = TeReportView { scenarios: report.scenarios as u64, skipped_scenarios: report.skipped_scenarios as u64, ..blank() };
        Self::new(view, &report.metrics, ["", ""], serde_json::to_string(report))
    }
}

/// Trains, validates after every epoch, writes checkpoints; resumes first if the configuration names a checkpoint. A run that the
/// host ends (`te_engine_stop`, event callback), or `max_time`, succeeds, and its report says `stopped`. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_fit(engine: *mut TeEngine, report: *mut *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { run(engine, report, |engine| Report::of_fit(&engine.fit()?)) }
}

/// Computes the features of all scenarios of all splits that the cache (`cache.cache_path`) lacks, on `threads` threads, and writes them,
/// so that `te_fit` need not. Scenarios without features are left out, counted by reason and named in events. With `NUM_NODES` and
/// `NODE_RANK` in the environment it does this node's share. A call that the host ends succeeds, and its report says `stopped`;
/// what was written stays. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_cache(engine: *mut TeEngine, report: *mut *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { run(engine, report, |engine| Report::of_cache(&engine.cache()?)) }
}

/// Evaluates on the validation split. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_validate(engine: *mut TeEngine, report: *mut *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { run(engine, report, |engine| Report::of_evaluation(&engine.validate()?)) }
}

/// Evaluates on the test split. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_test(engine: *mut TeEngine, report: *mut *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe { run(engine, report, |engine| Report::of_evaluation(&engine.test()?)) }
}

/// Evaluates on one split (`TE_SPLIT_TRAIN`, `TE_SPLIT_VALIDATION` or `TE_SPLIT_TEST`), to its last scenario: the checkpoint `best` or
/// `last` of the engine's run, or the one in a file, or with null or an empty text the present weights. The engine's weights stay as
/// they are. `report` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_evaluate(engine: *mut TeEngine, split: i32, checkpoint: *const c_char, report: *mut *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    unsafe {
        run(engine, report, |engine| {
            let split = match split {
                TE_SPLIT_TRAIN => Split::Train,
                TE_SPLIT_VALIDATION => Split::Validation,
                TE_SPLIT_TEST => Split::Test,
                other => {
                    return Err(Error::Argument(format!("split {other} is none of TE_SPLIT_TRAIN, TE_SPLIT_VALIDATION, TE_SPLIT_TEST")));
                }
            };
            let checkpoint =
                if checkpoint.is_null() { String::new() } else { text(checkpoint, TEXT_LIMIT, "checkpoint").map_err(Error::Argument)? };
            Report::of_evaluation(&engine.evaluate(split, &CheckpointSource::from(checkpoint.as_str()))?)
        })
    }
}

unsafe fn run(engine: *mut TeEngine, report: *mut *mut TeReport, body: impl FnOnce(&mut Engine) -> Result<Report>) -> TeStatus {
    // SAFETY: passed on to the caller.
    guard(|| unsafe {
        let result = handle::borrow(engine.cast_const())?.call(body)?;
        if !report.is_null() {
            report.write(handle::create(result));
        }
        Ok(())
    })
}

/// Shows a report: set `view->struct_size`, the rest is filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_report_view(report: *const TeReport, view: *mut TeReportView) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe { write(view, "view", &handle::borrow(report)?.view).map_err(Failure::argument) })
}

/// Value of one metric by its logged name, for instance `test/minFDE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_report_metric(report: *const TeReport, name: *const c_char, value: *mut f64) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks; the names in the report are the library's own.
    guard(|| unsafe {
        let report = handle::borrow(report)?;
        let name = text(name, NAME_LIMIT, "name").map_err(Failure::argument)?;
        if value.is_null() {
            return Err(Failure::argument("value is null"));
        }
        let known = |metric: &TeMetric| CStr::from_ptr(metric.name).to_string_lossy();
        let Some(metric) = report.metrics.iter().find(|metric| known(metric) == name) else {
            let names: Vec<_> = report.metrics.iter().map(known).collect();
            return Err(Failure::argument(format!("no metric '{name}'; there are: {}", names.join(", "))));
        };
        value.write(metric.value);
        Ok(())
    })
}

/// Frees a report; null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_report_free(report: *mut TeReport) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe { handle::take(report) }.map(drop))
}

#[cfg(test)]
mod tests {
    use super::{super::read::own, *};

    #[test]
    fn a_report_is_shown_whole_and_to_older_hosts_in_part() {
        let metrics = MetricTable(vec![("val/minADE".into(), 0.5), ("val/minFDE".into(), 1.5)]);
        let fit = FitReport {
            epochs: 3,
            steps: 12,
            stopped: true,
            best_score: Some(1.5),
            best_checkpoint: "a.st".into(),
            metrics,
            ..FitReport::default()
        };
        let handle = handle::create::<TeReport>(Report::of_fit(&fit).unwrap());
        let mut view: TeReportView = blank();
        let mut value = 0.0;
        // SAFETY: handle and view are alive; texts come from the library.
        unsafe {
            assert_eq!(te_report_view(handle, &mut view), 0);
            assert_eq!((view.epochs, view.steps, view.stopped, view.has_best_score, view.best_score), (3, 12, 1, 1, 1.5));
            assert_eq!((own(view.best_checkpoint), own(view.last_checkpoint)), ("a.st".into(), String::new()));
            let shown: Vec<_> =
                std::slice::from_raw_parts(view.metrics, view.metric_count).iter().map(|m| (own(m.name), m.value)).collect();
            assert_eq!(shown, fit.metrics.0);
            let json: serde_json::Value = serde_json::from_str(&own(view.json)).unwrap();
            assert_eq!(json["metrics"]["val/minFDE"], 1.5);
            assert_eq!(te_report_metric(handle, c"val/minFDE".as_ptr(), &mut value), 0);
            assert_eq!(value, 1.5);
            assert_eq!(te_report_metric(handle, c"val/minfde".as_ptr(), &mut value), 1);
            view.struct_size = 8;
            assert_eq!(te_report_view(handle, &mut view), 1);
            assert_eq!(te_report_free(handle), 0);
        }
    }
}
