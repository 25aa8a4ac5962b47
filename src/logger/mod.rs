//! Where values go that are logged: to files, behind one trait.

pub mod tensorboard;

use crate::error::Result;

/// Takes named values of a run.
pub trait Logger: Send {
    /// Values at a step.
    ///
    /// # Errors
    /// [`crate::error::Error::File`] if they cannot be written.
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()>;

    /// Makes what was logged visible to readers, and safe from a crash of the process.
    ///
    /// # Errors
    /// [`crate::error::Error::File`].
    fn flush(&mut self) -> Result<()>;
}
