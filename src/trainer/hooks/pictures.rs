//! Draws the predictions for the first scenarios of each validation and logs them as `val_visualization_0`, `_1`, ...

use super::{BatchEnd, Context, Hook};
use crate::{error::Result, scenario::Split, trainer::drawing};

/// Draws predictions.
#[derive(Default)]
pub struct Pictures {
    drawn: usize,
}

impl Hook for Pictures {
    fn name(&self) -> &'static str {
        "pictures"
    }

    fn evaluation_start(&mut self, _: &mut Context, _: Split, _: usize) -> Result<()> {
        self.drawn = 0;
        Ok(())
    }

    fn evaluation_batch_end(&mut self, context: &mut Context, split: Split, end: &BatchEnd) -> Result<()> {
        let wanted = context.config.logger.images.saturating_sub(self.drawn).min(end.batch.len());
        if wanted == 0 || split != Split::Validation || !context.loggers.take_images() {
            return Ok(());
        }
        let outputs = context.module.session().outputs(end.batch)?;
        for scenario in 0..wanted {
            let image = drawing::draw(end.batch, &outputs, scenario).encode()?;
            let name = format!("val_visualization_{}", self.drawn);
            context.loggers.image(context.run, context.state.logger_step(), &name, &image);
            self.drawn += 1;
        }
        Ok(())
    }
}
