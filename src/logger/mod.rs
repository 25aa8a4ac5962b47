//! Where values go that are logged: to files and services, behind one trait.
//!
//! - [`tensorboard`]: event files; [`csv`]: a table; [`wandb`]: the log of Weights & Biases, which its own client uploads.
//! - [`picture`]: lines and areas to a small PNG image.
//!
//! Every value is given to the system when it is logged, in one call: what was logged before a process is killed is there.

pub mod csv;
mod message;
pub mod picture;
pub mod tensorboard;
pub mod wandb;

use crate::{
    config::tree::Value,
    error::{Error, Result},
};
use picture::Image;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// What a logger learns when it is opened.
pub struct Opening<'a> {
    /// The final configuration.
    pub config: &'a Value,
    /// Where the run stands that is gone on with; the default for a new one.
    pub position: &'a Position,
    /// True for training, false for an evaluation by itself.
    pub fitting: bool,
}

/// What of the loggers a run must know to go on exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Calls of [`Logger::scalars`] so far.
    pub rows: u64,
    /// Those of them that are not in the present table: they went to that of another folder, or to none.
    #[serde(default)]
    pub rows_elsewhere: u64,
    /// Folder of the present table, by its place beside the checkpoints if it is there; none if there was none yet.
    #[serde(default)]
    pub table: Option<String>,
    /// The run's name in Weights & Biases.
    pub run_id: Option<String>,
    /// What is logged next is another branch of the run: what the first one has logged since is kept.
    #[serde(skip)]
    pub branches: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should.
    Finished,
    /// The host stopped it; it may be gone on with.
    Stopped,
    /// With an error.
    Failed,
}

impl Status {
    /// Of a call with this result.
    pub fn of<T>(result: &Result<T>, interrupted: bool) -> Self {
        match result {
            Err(Error::Stopped) => Self::Stopped,
            Err(_) => Self::Failed,
            Ok(_) if interrupted => Self::Stopped,
            Ok(_) => Self::Finished,
        }
    }
}

/// A checkpoint that was written.
#[derive(Debug, Clone, Copy)]
pub struct SavedCheckpoint<'a> {
    /// The file.
    pub path: &'a Path,
    /// True if it is the best so far.
    pub is_best: bool,
    /// True if the run wrote it before it was gone on with.
    pub is_earlier: bool,
    /// Value of the monitored metric.
    pub score: Option<f64>,
    /// Options of the hook that wrote it.
    pub options: &'a serde_json::Value,
}

/// Takes what a run logs. Opening a logger writes the final configuration as hyper-parameters.
///
/// Every error is one of [`crate::error::Error::File`]: something cannot be written.
#[allow(unused_variables, reason = "the names say what a logger is given")]
pub trait Logger: Send {
    /// Values at a step.
    ///
    /// # Errors
    /// The values cannot be written.
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()>;

    /// An image at a step; a logger without images leaves it out.
    ///
    /// # Errors
    /// The image cannot be written.
    fn image(&mut self, step: u64, name: &str, image: &Image) -> Result<()> {
        Ok(())
    }

    /// True if images are kept.
    fn takes_images(&self) -> bool {
        false
    }

    /// True if every row of values is kept in a table that is gone on with.
    fn keeps_table(&self) -> bool {
        false
    }

    /// A checkpoint was written, or lies there as the best of a run that is gone on with; a logger that keeps none leaves it alone.
    ///
    /// # Errors
    /// The checkpoint cannot be kept.
    fn checkpoint(&mut self, saved: &SavedCheckpoint) -> Result<()> {
        Ok(())
    }

    /// Makes what was logged safe from a crash of the machine.
    ///
    /// # Errors
    /// The files cannot be written.
    fn flush(&mut self) -> Result<()>;

    /// Ends the run. Nothing is logged afterwards.
    ///
    /// # Errors
    /// The end cannot be written.
    fn finish(&mut self, status: Status) -> Result<()>;

    /// Something that people should know and that does not end the logging, once.
    fn warning(&mut self) -> Option<String> {
        None
    }

    /// The run's name in the logger's service, if it gives one.
    fn run_id(&self) -> Option<&str> {
        None
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
