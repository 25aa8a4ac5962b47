//! One pass over a split without training.

use super::{
    hooks::{BatchEnd, Outcome, Stage},
    module::TrainingModule,
    run::Run,
    session::{MOST_UNDER_WAY, ReportId},
    state::State,
    tally::Tally,
};
use crate::{
    data::{Batch, DataModule},
    error::{Error, Result},
    scenario::Split,
};
use std::collections::VecDeque;

/// Losses and metrics over a split; none if the host ended the run meanwhile. With `sanity`, over that many batches, and no hook
/// is told of them.
///
/// # Errors
/// [`Error::Data`] if the split is empty or none of its scenarios can be used.
pub(super) fn evaluate(
    stage: &mut Stage,
    state: &State,
    module: &mut TrainingModule,
    data: &DataModule,
    split: Split,
    sanity: Option<usize>,
) -> Result<Option<Tally>> {
    let mut tally = Tally::default();
    let mut loader = data.evaluation(split, sanity.unwrap_or(usize::MAX), stage.run.stop())?;
    let total = loader.len();
    if sanity.is_none() {
        stage.notify(state, module, |hook, context| hook.evaluation_start(context, split, total))?;
    }
    // Batches that have begun, on a device: the oldest first.
    let mut under_way: VecDeque<(usize, Batch, ReportId)> = VecDeque::with_capacity(MOST_UNDER_WAY + 1);
    let mut ended = false;
    while !ended {
        let loaded = match loader.next().transpose() {
            Err(Error::Stopped) if stage.run.is_interrupted() => return Ok(None),
            loaded => loaded?,
        };
        ended = loaded.is_none();
        if let Some(loaded) = loaded {
            stage.run.skip(&loaded.skipped);
            if let Some(batch) = loaded.batch {
                let id = module.begin_evaluation(&batch)?;
                under_way.push_back((loaded.position, batch, id));
            }
        }
        while under_way.len() > if ended || stage.looks_at_outputs() { 0 } else { module.session().lag() } {
            let Some((index, batch, id)) = under_way.pop_front() else { break };
            let (losses, metrics) = module.settle_evaluation(id)?;
            tally.add(batch.len(), &losses, &metrics);
            if sanity.is_none() {
                let (tokens, outcome) = (&batch.tokens[..], Outcome::Gathered);
                let (losses, metrics) = (&losses, &metrics);
                let end = BatchEnd { index, total, batch: Some(&batch), tokens, losses, metrics, learning_rate: 0.0, outcome };
                stage.notify(state, module, |hook, context| hook.evaluation_batch_end(context, split, &end))?;
            }
            loader.recycle(batch);
        }
        if stage.run.is_interrupted() {
            return Ok(None);
        }
    }
    // What a few batches cannot show the whole split may.
    if tally.batches == 0 && total > 0 && sanity.is_none() {
        return Err(unusable(split, &stage.run));
    }
    Ok(Some(tally))
}

/// None of the scenarios of a split could be used.
pub(super) fn unusable(split: Split, run: &Run) -> Error {
    Error::Data(format!("no scenario of the {} split can be used; the first reason: {}", split.name(), run.first_reason()))
}

/// Prefix of a split's logged names.
pub(super) fn prefix(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "val",
        Split::Test => "test",
    }
}
