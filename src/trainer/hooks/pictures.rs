//! Draws the predictions for the first scenarios of each validation and logs them as `val_visualization_0`, `_1`, ...

use super::{BatchEnd, Context, Hook};
use crate::{error::Result, scenario::Split, trainer::drawing};

/// Draws predictions.
#[derive(Default)]
pub struct Pictures {
    drawn: usize,
    /// To be drawn in this validation.
    left: usize,
}

impl Hook for Pictures {
    fn name(&self) -> &'static str {
        "pictures"
    }

    fn evaluation_start(&mut self, context: &mut Context, split: Split, _: usize) -> Result<()> {
        let wanted = split == Split::Validation && context.loggers.take_images();
        (self.drawn, self.left) = (0, if wanted { context.config.logger.images } else { 0 });
        Ok(())
    }

    fn looks_at_outputs(&self) -> bool {
        self.left > 0
    }

    fn evaluation_batch_end(&mut self, context: &mut Context, _: Split, end: &BatchEnd) -> Result<()> {
        let Some(batch) = end.batch.filter(|_| self.left > 0) else { return Ok(()) };
        let wanted = self.left.min(batch.len());
        let outputs = context.module.session().outputs(batch)?;
        for scenario in 0..wanted {
            let image = drawing::draw(batch, &outputs, scenario).encode()?;
            let name = format!("val_visualization_{}", self.drawn);
            context.loggers.image(context.run, context.state.logger_step(), &name, &image);
            self.drawn += 1;
        }
        self.left -= wanted;
        Ok(())
    }
}
