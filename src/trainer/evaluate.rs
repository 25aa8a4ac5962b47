//! One pass over a split without training.

use super::{module::TrainingModule, progress::Progress, run::Run, tally::Tally};
use crate::{
    data::DataModule,
    error::{Error, Result},
    scenario::Split,
};

/// Losses and metrics over a split, or over its first `limit` batches; none if the host ended the run meanwhile.
///
/// # Errors
/// [`Error::Data`] if the split is empty or none of its scenarios can be used.
pub(super) fn evaluate(
    run: &mut Run,
    module: &mut TrainingModule,
    data: &DataModule,
    split: Split,
    limit: usize,
    show: bool,
) -> Result<Option<Tally>> {
    let mut tally = Tally::default();
    let mut loader = data.pass(split, 0, 0, limit)?;
    let progress = Progress::new(show, split.name().to_owned(), loader.len());
    while let Some(loaded) = loader.next() {
        let loaded = loaded?;
        run.skip(&loaded.skipped);
        if let Some(batch) = loaded.batch {
            let (losses, metrics) = module.evaluate(&batch)?;
            tally.add(batch.len(), &losses, &metrics);
            progress.step(loaded.position + 1, losses.loss);
            loader.recycle(batch);
        }
        if run.is_stopped() {
            return Ok(None);
        }
    }
    if tally.batches == 0 && !loader.is_empty() {
        return Err(unusable(split, run));
    }
    Ok(Some(tally))
}

/// None of the scenarios of a split could be used.
pub(super) fn unusable(split: Split, run: &Run) -> Error {
    Error::Data(format!("no scenario of the {} split can be used; the first reason: {}", split.name(), run.first_reason()))
}
