//! All loggers of a run. One that fails is given up with one warning; the run and the others go on.

use super::{host::LogLevel, run::Run};
use crate::{
    config::{Config, WandbMode, text, tree::Value},
    error::Result,
    files::write_atomically,
    logger::{Logger, Opening, Position, SavedCheckpoint, Status, csv::Csv, picture::Image, tensorboard::TensorBoard, wandb::Wandb},
};

/// Several loggers at once.
#[derive(Default)]
pub struct Loggers {
    loggers: Vec<Box<dyn Logger>>,
    position: Position,
    fitting: bool,
    /// Values on their way, with the epoch.
    values: Vec<(String, f64)>,
}

impl Loggers {
    /// Opens what the configuration asks for, and writes it as hyper-parameters. Training and an evaluation by itself may differ.
    pub fn open(&mut self, config: &Config, run: &Run, fitting: bool) {
        let options = &config.logger;
        self.fitting = fitting;
        if config.trainer.fast_dev_run.0 > 0 {
            return;
        }
        let (folder, text) = (config.logger_folder(), config.to_text());
        if fitting && (options.tensorboard || options.csv) {
            let written = write_atomically(&folder.join("hparams.yaml"), text.as_bytes());
            written.unwrap_or_else(|error| run.log(LogLevel::Warning, &format!("hyper-parameters are not written: {error}")));
        }
        if fitting && options.csv {
            let here = table(config);
            if self.position.table.as_ref().is_some_and(|table| *table != here) {
                // A table that lies here is another run's.
                self.position.rows_elsewhere = self.position.rows;
            }
            self.position.table = Some(here);
        }
        let (tree, position) = (text::parse(&text).unwrap_or(Value::Null), self.position.clone());
        let opening = Opening { config: &tree, position: &position, fitting };
        if options.tensorboard {
            self.add(run, "TensorBoard", TensorBoard::open(&folder, &opening));
        }
        if options.csv {
            self.add(run, "metrics.csv", Csv::open(&folder, &opening));
        }
        if options.wandb.mode != WandbMode::Disabled {
            self.add(run, "Weights & Biases", Wandb::open(&config.run.output_dir, &options.wandb, &opening));
        }
        self.position.branches &= !fitting;
        self.position.run_id = self.loggers.iter().find_map(|logger| logger.run_id()).map(str::to_owned).or(position.run_id);
    }

    fn add<L: Logger + 'static>(&mut self, run: &Run, name: &str, logger: Result<L>) {
        match logger {
            Ok(mut logger) => {
                logger.warning().iter().for_each(|warning| run.log(LogLevel::Warning, warning));
                self.loggers.push(Box::new(logger));
            }
            Err(error) => run.log(LogLevel::Warning, &format!("nothing is logged to {name}: {error}")),
        }
    }

    /// True if there is nothing to log to.
    pub fn is_empty(&self) -> bool {
        self.loggers.is_empty()
    }

    /// What a run must know to go on.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Goes back to where a run was.
    pub fn set_position(&mut self, position: Position) {
        self.position = position;
    }

    /// Logs values at a step, with the epoch beside them.
    pub fn scalars(&mut self, run: &Run, step: u64, epoch: Option<usize>, values: &[(String, f64)]) {
        if values.is_empty() {
            return;
        }
        if !self.is_empty() {
            let mut all = std::mem::take(&mut self.values);
            all.clear();
            all.extend_from_slice(values);
            all.extend(epoch.map(|epoch| ("epoch".to_owned(), epoch as f64)));
            self.each(run, |logger| logger.scalars(step, &all));
            self.values = all;
        }
        if self.fitting {
            self.position.rows += 1;
            self.position.rows_elsewhere += u64::from(!self.loggers.iter().any(|logger| logger.keeps_table()));
        }
    }

    /// True if there is a logger for images.
    pub fn take_images(&self) -> bool {
        self.loggers.iter().any(|logger| logger.takes_images())
    }

    /// Logs an image at a step.
    pub fn image(&mut self, run: &Run, step: u64, name: &str, image: &Image) {
        self.each(run, |logger| logger.image(step, name, image));
    }

    /// Tells of a checkpoint that was written, or is known from before.
    pub fn checkpoint(&mut self, run: &Run, saved: &SavedCheckpoint) {
        self.each(run, |logger| logger.checkpoint(saved));
    }

    /// Makes safe what was logged.
    pub fn flush(&mut self, run: &Run) {
        self.each(run, |logger| logger.flush());
    }

    /// Ends the run in every logger and closes them.
    pub fn finish(&mut self, run: &Run, status: Status) {
        self.each(run, |logger| logger.finish(status));
        self.loggers.clear();
    }

    /// Does something with every logger; one that fails is given up.
    fn each(&mut self, run: &Run, mut using: impl FnMut(&mut dyn Logger) -> Result<()>) {
        self.loggers.retain_mut(|logger| {
            let done = using(&mut **logger);
            logger.warning().iter().for_each(|warning| run.log(LogLevel::Warning, warning));
            if let Err(error) = &done {
                run.log(LogLevel::Warning, &format!("nothing is logged there from here on: {error}"));
            }
            done.is_ok()
        });
    }
}

/// Names the folder of the table: by its place beside the checkpoints if it is there, as both may be moved.
fn table(config: &Config) -> String {
    let [folder, checkpoints] =
        [config.logger_folder(), config.checkpoint_folder()].map(|folder| std::path::absolute(&folder).unwrap_or(folder));
    let beside = checkpoints.parent().and_then(|parent| folder.strip_prefix(parent).ok());
    beside.unwrap_or(&folder).display().to_string()
}
