//! Writes where the time of the first steps went.

use super::{BatchEnd, Context, Hook};
use crate::{
    error::{Error, Result},
    files::write_atomically,
    trainer::{LogLevel, trace::Trace},
};

/// Profiles as many steps, and the validations and checkpoints of the epochs that they are in, into `profiling/trace.json` (Chrome
/// trace format) and `profiling/profile.csv`.
pub struct Profile {
    wanted: usize,
    seen: usize,
}

impl Profile {
    /// Of `steps` training batches; none for none.
    pub fn new(steps: usize) -> Option<Self> {
        (steps > 0).then_some(Self { wanted: steps, seen: 0 })
    }

    /// Writes what there is.
    fn write(&self, context: &mut Context, trace: &Trace) -> Result<()> {
        let folder = context.config.run.output_dir.join("profiling");
        let path = folder.join("trace.json");
        write_atomically(&path, &trace.to_json().map_err(|e| Error::file(&path, e))?)?;
        let path = folder.join("profile.csv");
        let fail = |e: csv::Error| Error::file(&path, e);
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["name", "category", "calls", "total_ms", "share"]).map_err(fail)?;
        for one in trace.totals() {
            let [calls, total, share] = [one.calls.to_string(), (one.total / 1000.0).to_string(), one.share.to_string()];
            writer.write_record([&one.name, one.category, &calls, &total, &share]).map_err(fail)?;
        }
        write_atomically(&path, &writer.into_inner().map_err(|e| Error::file(&path, e))?)?;
        context.run.log(LogLevel::Info, &format!("profile of {} training batches in '{}'", self.seen, folder.display()));
        Ok(())
    }
}

impl Hook for Profile {
    fn name(&self) -> &'static str {
        "profile"
    }

    fn batch_end(&mut self, context: &mut Context, end: &BatchEnd) -> Result<()> {
        if let Some(trace) = context.module.session().trace().filter(|trace| trace.takes_steps() && end.batch.is_some()) {
            self.seen += 1;
            if self.seen >= self.wanted {
                trace.end_steps();
            }
        }
        Ok(())
    }

    fn epoch_start(&mut self, context: &mut Context) -> Result<()> {
        // Its epoch is over with its checkpoints.
        match context.module.session().trace() {
            Some(trace) if !trace.takes_steps() && trace.close() => self.write(context, trace),
            _ => Ok(()),
        }
    }

    fn fit_end(&mut self, context: &mut Context) -> Result<()> {
        match context.module.session().trace() {
            Some(trace) if trace.close() => self.write(context, trace),
            _ => Ok(()),
        }
    }

    fn exception(&mut self, context: &mut Context, _: &Error) {
        if let Err(error) = self.fit_end(context) {
            context.run.log(LogLevel::Warning, &error.to_string());
        }
    }
}
