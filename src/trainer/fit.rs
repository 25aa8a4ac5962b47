//! The training loop: epochs, and the batches, updates and validations of each.

use super::{
    evaluate::{evaluate, unusable},
    hooks::{BatchEnd, Context, Hook, Outcome, Stage},
    host::LogLevel,
    module::{ModuleState, Trained, TrainingModule},
    session::{Losses, MOST_UNDER_WAY, ReportId, Updated},
    state::State,
    tally::Tally,
    trace::Phase,
};
use crate::{
    config::module::ModuleKind,
    data::{Batch, DataModule, Loader},
    error::{Error, Result},
    logger::Status,
    metrics::{MetricSums, MetricTable},
    scenario::Split,
};
use arrayvec::ArrayVec;
use std::{collections::VecDeque, time::Instant};

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
        if self.is_over() && !self.stage.owes() {
            let (epochs, steps) = (self.state.epochs(), self.state.step);
            self.stage.run.log(LogLevel::Info, &format!("nothing is left to train after {epochs} epochs and {steps} steps"));
            return Ok(());
        }
        let scenarios = self.data.fingerprint();
        if self.state.scenarios.replace(scenarios).is_some_and(|before| before != scenarios) {
            let text = "the training scenarios are not those that the run began with; it goes on with these, and will not equal one that \
                        ran through";
            self.stage.run.log(LogLevel::Warning, text);
        }
        self.stage.loggers.open(self.stage.config, &self.stage.run, true);
        let result = self.train();
        if let Err(error) = &result {
            self.stage.notify(self.state, self.module, |hook, context| {
                hook.exception(context, error);
                Ok(())
            })?;
        }
        self.stage.loggers.finish(&self.stage.run, Status::of(&result, self.stage.run.is_interrupted()));
        result
    }

    /// True if no further epoch is wanted.
    fn is_done(&self) -> bool {
        let limits = self.stage.limits;
        limits.train_batches == 0
            || self.is_out_of_steps()
            || limits.max_epochs.is_some_and(|most| self.state.epochs() >= most)
            || self.is_ending()
    }

    /// True if nothing is left to do, not even to bring an epoch to its end.
    pub fn is_over(&self) -> bool {
        self.is_done() && (self.stage.limits.train_batches == 0 || !self.state.is_amid_epoch())
    }

    fn is_out_of_steps(&self) -> bool {
        self.stage.limits.max_steps.is_some_and(|most| self.state.step >= most)
    }

    /// True if a hook wants training to end, and it may.
    fn is_ending(&self) -> bool {
        let limits = self.stage.limits;
        self.stage.run.is_ending() && self.state.epochs() >= limits.min_epochs && self.state.step >= limits.min_steps
    }

    fn train(&mut self) -> Result<()> {
        self.module.begin(self.stage.limits.train_batches);
        let clock = Clock { before: self.state.seconds, start: Instant::now() };
        self.notify(|hook, context| hook.fit_start(context))?;
        if self.state.batches == 0 && self.stage.limits.sanity_batches > 0 {
            self.notify(|hook, context| hook.sanity_start(context))?;
            let limit = Some(self.stage.limits.sanity_batches);
            evaluate(&mut self.stage, self.state, self.module, self.data, Split::Validation, limit)?;
            self.notify(|hook, context| hook.sanity_end(context))?;
        }
        self.check_time(&clock);
        // An epoch that was interrupted is brought to its end even if that is where it was.
        while !self.stage.run.is_interrupted() && !self.is_over() {
            self.state.advance(self.stage.limits.train_batches);
            self.epoch(&clock)?;
        }
        self.notify(|hook, context| hook.fit_end(context))
    }

    fn notify(&mut self, call: impl Fn(&mut dyn Hook, &mut Context) -> Result<()>) -> Result<()> {
        self.stage.notify(self.state, self.module, call)
    }

    /// Keeps the time that has passed, and interrupts the run when it is up.
    fn check_time(&mut self, clock: &Clock) {
        self.state.seconds = clock.seconds();
        if self.stage.limits.max_time.is_some_and(|most| self.state.seconds >= most.as_secs_f64()) {
            self.stage.run.interrupt("max_time is reached");
        }
    }

    /// Trains what is left of the present epoch, unless the host interrupts it.
    fn epoch(&mut self, clock: &Clock) -> Result<()> {
        if self.state.batch == 0 {
            self.notify(|hook, context| hook.epoch_start(context))?;
        }
        if !self.batches(clock)? {
            return Ok(());
        }
        if self.state.tally.batches == 0 {
            return Err(unusable(Split::Train, &self.stage.run));
        }
        let mut metrics = MetricTable::default();
        self.state.tally.write("train", &mut metrics);
        match self.module.kind() {
            ModuleKind::Pluto => self.log(metrics),
            ModuleKind::Standard => self.keep(metrics),
        }
        self.state.epoch_ended = true;
        self.notify(|hook, context| hook.epoch_end(context))?;
        self.stage.loggers.flush(&self.stage.run);
        Ok(())
    }

    /// The batches that are left of the epoch, with their validations; false if the host interrupted them.
    fn batches(&mut self, clock: &Clock) -> Result<bool> {
        let mut loader = self.data.training_pass(self.state.epoch, self.state.batch, self.stage.run.stop())?;
        let mut steps = Steps::at(self.state);
        let result = self.steps(&mut loader, &mut steps, clock);
        // After an error, what was begun counts nevertheless.
        while let Some(step) = steps.under_way.pop_front() {
            _ = self.settle(&step, &mut steps, clock);
        }
        result
    }

    /// Begins step after step and settles each, on a device some steps later; before anything that looks at the run as a whole, all of them.
    fn steps(&mut self, loader: &mut Loader, steps: &mut Steps, clock: &Clock) -> Result<bool> {
        loop {
            while steps.under_way.len() > if self.waits(steps) { 0 } else { self.module.session().lag() } {
                let Some(step) = steps.under_way.pop_front() else { break };
                self.settle(&step, steps, clock)?;
                step.batch.into_iter().for_each(|batch| loader.recycle(batch));
            }
            if self.stage.run.is_interrupted() {
                return Ok(false);
            }
            if steps.under_way.is_empty() {
                // Here a run goes on that was interrupted before a validation was done.
                if !self.validate_if_due()? {
                    return Ok(false);
                }
                if steps.ended || (self.state.batch > 0 && (self.is_out_of_steps() || self.is_ending())) {
                    return Ok(true);
                }
            }
            let start = self.module.session().clock();
            let loaded = loader.next();
            self.module.session().note(Phase::Loading, start);
            let loaded = match loaded.transpose() {
                Err(Error::Stopped) if self.stage.run.is_interrupted() => continue,
                loaded => loaded?,
            };
            let Some(loaded) = loaded else {
                steps.ended = true;
                continue;
            };
            self.stage.run.skip(&loaded.skipped);
            let step = self.begin(loaded.batch, steps)?;
            steps.under_way.push_back(step);
        }
    }

    /// True if the steps that are under way must be settled before the next one begins: it may not be wanted, or something looks at the
    /// run after one of them.
    fn waits(&self, steps: &Steps) -> bool {
        let (updates, limits) = (steps.updates(), self.stage.limits);
        steps.ended
            || self.stage.run.is_interrupted()
            || self.stage.run.is_ending()
            || limits.validates(self.state.epoch, steps.batch, false)
            || limits.max_steps.is_some_and(|most| self.state.step + updates >= most)
            || self.stage.waits(self.state, updates)
    }

    /// Begins to train on a batch, none if none of its scenarios can be used, and the update that follows it.
    fn begin(&mut self, batch: Option<Batch>, steps: &mut Steps) -> Result<Step> {
        let learning_rate = self.module.learning_rate();
        steps.batch += 1;
        if let Some(batch) = &batch {
            self.module.begin_batch(batch, steps.batches)?;
            steps.batches += 1;
            steps.gathered += 1;
        }
        // The last batches of an update may be empty.
        let updates = steps.gathered > 0 && self.stage.limits.updates(steps.batch);
        if updates {
            let spoiled = self.state.spoiled && steps.updates() == 0;
            self.module.begin_update(self.stage.limits.accumulate, spoiled)?;
            self.module.end_batch(steps.batch);
            steps.gathered = 0;
        }
        let report = if batch.is_some() || updates { Some(self.module.session_mut().begin_report()?) } else { None };
        // The schedule moves with the last batch of an epoch, before its validation.
        if steps.batch == self.stage.limits.train_batches {
            self.module.end_epoch();
        }
        Ok(Step { batch, updates, report, learning_rate, schedule: self.module.state().schedule })
    }

    /// Waits for a step, and tells of it if it has a batch or updates.
    fn settle(&mut self, step: &Step, steps: &mut Steps, clock: &Clock) -> Result<()> {
        let (trained, outcome) = self.absorb(step, steps)?;
        self.check_time(clock);
        let Some(trained) = trained else { return Ok(()) };
        let batch = step.batch.as_ref();
        let (tokens, Trained { losses, metrics, finite }) = match batch {
            Some(batch) => (&batch.tokens, &trained),
            None => (&steps.last.0, &steps.last.1),
        };
        // As in Lightning, every step counts once a hook wants training to end.
        let logs = self.state.stepped.is_multiple_of(self.stage.limits.log_every) || self.stage.run.is_ending();
        if outcome == Outcome::Applied && logs && !tokens.is_empty() {
            self.log_step(tokens.len(), losses, metrics);
        }
        let (index, total) = (self.state.batch - 1, self.stage.limits.train_batches);
        let end = BatchEnd { index, total, batch, tokens, losses, metrics, learning_rate: step.learning_rate, outcome };
        self.notify(|hook, context| hook.batch_end(context, &end))?;
        if outcome == Outcome::Skipped {
            self.check_skipped(tokens, *finite)?;
        }
        if let Some(batch) = batch.filter(|_| !step.updates) {
            steps.last.0.clone_from(&batch.tokens);
            steps.last.1 = trained;
        }
        Ok(())
    }

    /// Waits for a step, before those that are still under way, and counts it.
    fn absorb(&mut self, step: &Step, steps: &Steps) -> Result<(Option<Trained>, Outcome)> {
        let settled = step.report.map(|id| self.module.settle(id, step.updates)).transpose()?;
        self.state.batch += 1;
        self.state.validated = false;
        let (trained, updated) = settled.unzip();
        if let (Some(batch), Some(Trained { losses, metrics, finite })) = (&step.batch, &trained) {
            self.state.batches += 1;
            self.state.gathered += 1;
            if *finite {
                self.state.tally.add(batch.len(), losses, metrics);
            } else {
                self.state.tally.batches += 1;
                self.state.spoiled = true;
            }
        }
        let outcome = updated.filter(|_| step.updates).map_or(Outcome::Gathered, |updated| self.count(&updated));
        self.state.module = ModuleState { schedule: step.schedule, ..self.module.state() };
        if self.state.spoiled && steps.under_way.is_empty() {
            // What cannot be applied is not kept either.
            self.module.session_mut().discard()?;
        }
        Ok((trained, outcome))
    }

    /// Counts an update.
    fn count(&mut self, updated: &Updated) -> Outcome {
        (self.state.gathered, self.state.spoiled) = (0, false);
        self.state.stepped += 1;
        // As in Lightning, a step that the scaling of the loss skips counts; while the scale has far to fall, that is no fault.
        self.state.step += u64::from(updated.applied || updated.loss_scale.is_some());
        if updated.applied {
            self.state.nonfinite_in_a_row = 0;
            return Outcome::Applied;
        }
        self.skipped_steps += 1;
        self.state.nonfinite_in_a_row += usize::from(updated.loss_scale.is_none_or(|scale| scale <= 1.0));
        Outcome::Skipped
    }

    /// Ends the run if too many updates, one after the other, were not applied.
    fn check_skipped(&mut self, tokens: &[String], finite: bool) -> Result<()> {
        let count = self.state.nonfinite_in_a_row;
        if count < self.stage.config.run.max_nonfinite_steps {
            return Ok(());
        }
        let (what, names) = (if finite { "gradient" } else { "loss" }, tokens.join(", "));
        Err(Error::NotFinite(format!("{what} in {count} training steps one after the other, the last with scenarios {names}")))
    }

    /// Validates if that is due after the last batch and was not done; false if the host interrupted it.
    fn validate_if_due(&mut self) -> Result<bool> {
        let cut = self.is_ending();
        if self.state.validated || !self.stage.limits.validates(self.state.epoch, self.state.batch, cut) {
            return Ok(true);
        }
        let start = self.module.session().clock();
        let tally = evaluate(&mut self.stage, self.state, self.module, self.data, Split::Validation, None)?;
        self.module.session().note(Phase::Validation, start);
        let Some(tally) = tally else { return Ok(false) };
        let mut metrics = MetricTable::default();
        tally.write("val", &mut metrics);
        self.log(metrics);
        (self.state.validated, self.state.validated_once) = (true, true);
        self.notify(|hook, context| hook.evaluation_end(context, Split::Validation))?;
        Ok(!self.stage.run.is_interrupted())
    }

    /// Logs values of a step: PLUTO's trainer its loss, beside the means of the epoch; the standard module everything that is
    /// logged in training at all, under the names that the means would have.
    fn log_step(&mut self, scenarios: usize, losses: &Losses, metrics: &MetricSums) {
        let mut values = MetricTable::default();
        match self.module.kind() {
            ModuleKind::Pluto => values.set("loss/train_loss_step", losses.loss),
            ModuleKind::Standard => {
                let mut tally = Tally::default();
                tally.add(scenarios, losses, metrics);
                tally.write("train", &mut values);
            }
        }
        let (step, epoch) = (self.state.logger_step(), Some(self.state.epoch));
        self.stage.loggers.scalars(&self.stage.run, step, epoch, &values.0);
    }

    /// Logs values of an epoch or a validation, and keeps them for hooks and reports. PLUTO's losses have a value for each step as
    /// well, and so, as in Lightning, `_epoch` behind their logged name.
    fn log(&mut self, metrics: MetricTable) {
        let stepwise = self.module.kind() == ModuleKind::Pluto;
        let name = |name: &str| if stepwise && name.starts_with("loss/") { format!("{name}_epoch") } else { name.to_owned() };
        let values: Vec<_> = metrics.0.iter().map(|(key, value)| (name(key), *value)).collect();
        let (step, epoch) = (self.state.logger_step(), Some(self.state.epoch));
        self.stage.loggers.scalars(&self.stage.run, step, epoch, &values);
        self.keep(metrics);
    }

    /// Keeps values for hooks and reports.
    fn keep(&mut self, metrics: MetricTable) {
        for (name, value) in metrics.0 {
            self.state.epoch_metrics.set(&*name, value);
            self.state.metrics.set(name, value);
        }
    }
}

/// A batch and the update that follows it, under way.
struct Step {
    /// None if none of its scenarios could be used.
    batch: Option<Batch>,
    updates: bool,
    /// None without batch and update.
    report: Option<ReportId>,
    learning_rate: f64,
    /// Steps of the schedule after it.
    schedule: u64,
}

/// Where training is with the steps that began, while the state says where it is with those that are done.
struct Steps {
    batch: usize,
    batches: u64,
    gathered: usize,
    /// The last batch that was gathered and is settled, for an update that comes without one; nothing is known of one before this call.
    last: (Vec<String>, Trained),
    /// The pass has no further batch.
    ended: bool,
    /// The oldest first.
    under_way: VecDeque<Step>,
}

impl Steps {
    /// None is under way.
    fn at(state: &State) -> Self {
        let State { batch, batches, gathered, spoiled, .. } = *state;
        let nothing = Trained { losses: Losses { values: ArrayVec::new(), loss: f64::NAN }, metrics: MetricSums::new(), finite: !spoiled };
        Self { batch, batches, gathered, last: (Vec::new(), nothing), ended: false, under_way: VecDeque::with_capacity(MOST_UNDER_WAY + 1) }
    }

    /// Updates that are under way.
    fn updates(&self) -> u64 {
        self.under_way.iter().filter(|step| step.updates).count() as u64
    }
}

/// Time spent in training, that of earlier calls included.
struct Clock {
    before: f64,
    start: Instant,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}
