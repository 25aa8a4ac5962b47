//! Values that have come back from the device.

use crate::error::Result;
use std::cell::{Cell, OnceCell};

/// Values of a run, once somebody has asked for them. Their memory is used again by the next run.
#[derive(Default)]
pub struct ReadBack {
    values: OnceCell<Vec<f32>>,
    room: Cell<Vec<f32>>,
}

impl ReadBack {
    /// The values; the first time `download` fills them in.
    ///
    /// # Errors
    /// Those of `download`.
    pub fn get(&self, len: usize, download: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<&[f32]> {
        if self.values.get().is_none() {
            let mut values = self.room.take();
            values.resize(len, 0.0);
            download(&mut values)?;
            _ = self.values.set(values);
        }
        Ok(self.values.get().map_or(&[], Vec::as_slice))
    }

    /// Forgets them: there is another run.
    pub fn forget(&mut self) {
        self.values.take().into_iter().for_each(|values| self.room.set(values));
    }
}
