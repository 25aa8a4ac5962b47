//! All loggers of a run. One that fails is given up with one warning; the run and the others go on.

use super::{host::LogLevel, run::Run};
use crate::{
    config::Config,
    error::Result,
    logger::{Logger, tensorboard::TensorBoard},
};

/// Several loggers at once.
#[derive(Default)]
pub struct Loggers {
    loggers: Vec<Box<dyn Logger>>,
    opened: bool,
    /// Values on their way, with the epoch.
    values: Vec<(String, f64)>,
}

impl Loggers {
    /// Opens what the configuration asks for, unless that has been done.
    pub fn open(&mut self, config: &Config, run: &Run) {
        if std::mem::replace(&mut self.opened, true) || config.trainer.fast_dev_run.0 > 0 {
            return;
        }
        if config.logger.tensorboard {
            self.add(run, "TensorBoard", TensorBoard::new(&config.logger_folder()));
        }
    }

    fn add<L: Logger + 'static>(&mut self, run: &Run, name: &str, logger: Result<L>) {
        match logger {
            Ok(logger) => self.loggers.push(Box::new(logger)),
            Err(error) => run.log(LogLevel::Warning, &format!("nothing is logged to {name}: {error}")),
        }
    }

    /// True if there is nothing to log to.
    pub fn is_empty(&self) -> bool {
        self.loggers.is_empty()
    }

    /// Logs values at a step, with the epoch beside them.
    pub fn scalars(&mut self, run: &Run, step: u64, epoch: Option<usize>, values: &[(String, f64)]) {
        if self.is_empty() || values.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.values);
        all.clear();
        all.extend_from_slice(values);
        all.extend(epoch.map(|epoch| ("epoch".to_owned(), epoch as f64)));
        self.each(run, |logger| logger.scalars(step, &all));
        self.values = all;
    }

    /// Makes visible what was logged.
    pub fn flush(&mut self, run: &Run) {
        self.each(run, |logger| logger.flush());
    }

    /// Does something with every logger; one that fails is given up.
    pub fn each(&mut self, run: &Run, mut using: impl FnMut(&mut dyn Logger) -> Result<()>) {
        self.loggers.retain_mut(|logger| match using(&mut **logger) {
            Ok(()) => true,
            Err(error) => {
                run.log(LogLevel::Warning, &format!("nothing is logged there from here on: {error}"));
                false
            }
        });
    }
}
