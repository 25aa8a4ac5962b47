//! The training loop: epochs, and the batches and validations of each.

use super::{
    evaluate::{evaluate, unusable},
    hooks::{BatchEnd, Context, Hook, Outcome, Stage},
    module::TrainingModule,
    state::State,
};
use crate::{
    data::{Batch, DataModule, Loader},
    error::{Error, Result},
    metrics::MetricTable,
    scenario::Split,
};

/// One call of `fit`.
pub(super) struct Fit<'a, 'h> {
    pub stage: Stage<'a, 'h>,
    pub state: &'a mut State,
    pub module: &'a mut TrainingModule,
    pub data: &'a DataModule,
    /// Steps that were not applied.
    pub skipped_steps: usize,
}

impl Fit<'_, '_> {
    /// Trains until a bound is reached, a hook ends the training or the host interrupts it.
    pub fn run(&mut self) -> Result<()> {
        self.stage.run.skip(self.data.undescribed());
        self.state.advance();
        if self.is_done() {
            return Ok(());
        }
        self.stage.loggers.open(self.stage.config, &self.stage.run);
        let result = self.train();
        if let Err(error) = &result {
            self.stage.notify(self.state, self.module, |hook, context| {
                hook.exception(context, error);
                Ok(())
            })?;
        }
        self.stage.loggers.flush(&self.stage.run);
        result
    }

    /// True if no further epoch is wanted.
    pub fn is_done(&self) -> bool {
        self.state.epochs() >= self.stage.limits.max_epochs
    }

    fn train(&mut self) -> Result<()> {
        self.module.begin(self.stage.limits.train_batches);
        self.notify(|hook, context| hook.fit_start(context))?;
        if self.state.batches == 0 && self.stage.limits.sanity_batches > 0 {
            self.notify(|hook, context| hook.sanity_start(context))?;
            let limit = Some(self.stage.limits.sanity_batches);
            evaluate(&mut self.stage, self.state, self.module, self.data, Split::Validation, limit)?;
            self.notify(|hook, context| hook.sanity_end(context))?;
        }
        while !self.is_done() && !self.stage.run.is_interrupted() {
            self.state.advance();
            self.epoch()?;
        }
        self.notify(|hook, context| hook.fit_end(context))
    }

    fn notify(&mut self, call: impl Fn(&mut dyn Hook, &mut Context) -> Result<()>) -> Result<()> {
        self.stage.notify(self.state, self.module, call)
    }

    /// Trains what is left of the present epoch, unless the host interrupts it.
    fn epoch(&mut self) -> Result<()> {
        if self.state.batch == 0 {
            self.notify(|hook, context| hook.epoch_start(context))?;
        }
        if !self.batches()? {
            return Ok(());
        }
        if self.state.tally.batches == 0 && self.stage.limits.train_batches > 0 {
            return Err(unusable(Split::Train, &self.stage.run));
        }
        let mut metrics = MetricTable::default();
        self.state.tally.write("train", &mut metrics);
        self.log(metrics);
        self.state.epoch_ended = true;
        self.notify(|hook, context| hook.epoch_end(context))?;
        self.stage.loggers.flush(&self.stage.run);
        Ok(())
    }

    /// The batches that are left of the epoch, with their validations; false if the host interrupted them.
    fn batches(&mut self) -> Result<bool> {
        let mut loader = self.data.pass(Split::Train, self.state.epoch, self.state.batch, usize::MAX)?;
        loop {
            // Here a run goes on that was interrupted before a validation was done.
            if !self.validate_if_due()? {
                return Ok(false);
            }
            let Some(loaded) = loader.next() else { return Ok(true) };
            let loaded = loaded?;
            self.stage.run.skip(&loaded.skipped);
            self.state.batch += 1;
            self.state.validated = false;
            match loaded.batch {
                Some(batch) => self.batch(batch, &loader)?,
                None => self.move_schedule(),
            }
            if self.stage.run.is_interrupted() {
                return Ok(false);
            }
        }
    }

    /// Trains on a batch.
    fn batch(&mut self, batch: Batch, loader: &Loader) -> Result<()> {
        let rate = self.module.learning_rate();
        let trained = self.module.train_batch(&batch, self.state.batches)?;
        let applied = trained.finite && self.module.update(1)?.applied;
        self.module.end_batch(self.state.batch);
        self.move_schedule();
        self.state.batches += 1;
        self.state.stepped += 1;
        if applied {
            self.state.step += 1;
            self.state.nonfinite_in_a_row = 0;
            self.state.tally.add(batch.len(), &trained.losses, &trained.metrics);
            if self.state.stepped.is_multiple_of(self.stage.config.trainer.log_every_n_steps as u64) {
                let values = [("loss/train_loss_step".to_owned(), trained.losses.loss)];
                let (step, epoch) = (self.state.logger_step(), Some(self.state.epoch));
                self.stage.loggers.scalars(&self.stage.run, step, epoch, &values);
            }
        } else {
            self.skipped_steps += 1;
            self.state.nonfinite_in_a_row += 1;
            self.state.tally.batches += 1;
        }
        let end = BatchEnd {
            index: self.state.batch - 1,
            total: self.stage.limits.train_batches,
            batch: &batch,
            losses: &trained.losses,
            metrics: &trained.metrics,
            learning_rate: rate,
            outcome: if applied { Outcome::Applied } else { Outcome::Skipped },
        };
        self.notify(|hook, context| hook.batch_end(context, &end))?;
        let count = self.state.nonfinite_in_a_row;
        if count >= self.stage.config.run.max_nonfinite_steps {
            let (what, names) = (if trained.losses.loss.is_finite() { "gradient" } else { "loss" }, batch.tokens.join(", "));
            let reason = format!("{what} in {count} training steps one after the other, the last with scenarios {names}");
            return Err(Error::NotFinite(reason));
        }
        loader.recycle(batch);
        Ok(())
    }

    /// After a batch: the schedule moves with the last of an epoch, before its validation.
    fn move_schedule(&mut self) {
        if self.state.batch == self.stage.limits.train_batches {
            self.module.end_epoch();
        }
        self.state.module = self.module.state();
    }

    /// Validates if that is due after the last batch and was not done; false if the host interrupted it.
    fn validate_if_due(&mut self) -> Result<bool> {
        if self.state.validated || !self.stage.limits.validates(self.state.epoch, self.state.batch) {
            return Ok(true);
        }
        let tally = evaluate(&mut self.stage, self.state, self.module, self.data, Split::Validation, None)?;
        let Some(tally) = tally else { return Ok(false) };
        let mut metrics = MetricTable::default();
        tally.write("val", &mut metrics);
        self.log(metrics);
        (self.state.validated, self.state.validated_once) = (true, true);
        self.notify(|hook, context| hook.evaluation_end(context, Split::Validation))?;
        Ok(!self.stage.run.is_interrupted())
    }

    /// Logs values of an epoch or a validation, and keeps them for hooks and reports.
    fn log(&mut self, metrics: MetricTable) {
        let (step, epoch) = (self.state.logger_step(), Some(self.state.epoch));
        self.stage.loggers.scalars(&self.stage.run, step, epoch, &metrics.0);
        for (name, value) in metrics.0 {
            self.state.epoch_metrics.set(&*name, value);
            self.state.metrics.set(name, value);
        }
    }
}
