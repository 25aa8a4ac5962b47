//! The network with its optimiser: one training step, one evaluation.

use super::session::{Clip, Losses, ReportId, Rule, Session, StepReport, Update, Updated};
use crate::{
    config::{
        ClipAlgorithm, Config, OptimizerConfig,
        module::{ModuleKind, OptimizerKind},
    },
    data::batch::Batch,
    distributed,
    error::Result,
    metrics::MetricSums,
    optim::{
        self, scaling,
        schedule::{Interval, Schedule},
    },
};
use serde::{Deserialize, Serialize};

/// A network in training: `train_batch` gathers gradients, `update` applies them, `end_batch` and `end_epoch` move the schedule. The first
/// two in parts: `begin_batch`, `begin_update`, [`Session::begin_report`], and later `settle`.
pub struct TrainingModule {
    session: Session,
    kind: ModuleKind,
    optimizer: OptimizerConfig,
    /// Decay rates of PLUTO's AdamW.
    beta: [f64; 2],
    max_epochs: usize,
    schedule: Schedule,
    state: ModuleState,
    /// Updates that began and whose outcome is not known.
    under_way: u64,
}

/// All that a module remembers besides the session's buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleState {
    /// Updates applied.
    pub updates: u64,
    /// Steps of the schedule.
    pub schedule: u64,
}

/// What a training batch gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Losses of the batch.
    pub losses: Losses,
    /// Metrics of the batch, with the parameters before the step; none if a loss is not finite.
    pub metrics: MetricSums,
    /// False if a loss was not finite: all gathered gradients are dropped at the update then.
    pub finite: bool,
}

impl TrainingModule {
    /// Ties a network to the optimiser and the schedule of a configuration.
    pub fn new(session: Session, config: &Config) -> Self {
        let (kind, mut optimizer) = (config.objectives.module, config.optimizer.clone());
        let factor = scaling::factor(&config.distributed, distributed::RANKS);
        optimizer.lr *= factor;
        optimizer.standard.lr *= factor;
        optimizer.standard.betas = scaling::decay_rates(optimizer.standard.betas, factor);
        let beta = scaling::decay_rates(optim::BETA, factor);
        let max_epochs = config.max_epochs().unwrap_or(config.optimizer.epochs);
        let schedule = Schedule::new(kind, &optimizer, 1, max_epochs);
        Self { session, kind, optimizer, beta, max_epochs, schedule, state: ModuleState::default(), under_way: 0 }
    }

    /// Says how many training batches an epoch has, on which a schedule may depend. Before the first batch.
    pub fn begin(&mut self, batches: usize) {
        self.schedule = Schedule::new(self.kind, &self.optimizer, batches, self.max_epochs);
    }

    /// Which module it is.
    pub fn kind(&self) -> ModuleKind {
        self.kind
    }

    /// The network.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The network, to change it.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// What it remembers.
    pub fn state(&self) -> ModuleState {
        self.state
    }

    /// Goes back to a state.
    pub fn set_state(&mut self, state: ModuleState) {
        self.state = state;
    }

    /// Present learning rate, of every group.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.at(self.state.schedule).learning_rate
    }

    /// Present momentum (b₁ of Adam).
    pub fn momentum(&self) -> f64 {
        let standard = &self.optimizer.standard;
        let own = match (self.kind, standard.kind) {
            (ModuleKind::Pluto, _) => self.beta[0],
            (_, OptimizerKind::Adam | OptimizerKind::AdamW) => standard.betas[0],
            (_, OptimizerKind::Sgd) => standard.momentum,
        };
        self.schedule.at(self.state.schedule).momentum.unwrap_or(own)
    }

    /// Names under which the learning rates of the groups are logged.
    pub fn rate_names(&self) -> &'static [&'static str] {
        match (self.kind, self.optimizer.standard.kind) {
            (ModuleKind::Pluto, _) => &["lr-AdamW/pg1", "lr-AdamW/pg2"],
            (_, OptimizerKind::Adam) => &["lr-Adam"],
            (_, OptimizerKind::AdamW) => &["lr-AdamW"],
            (_, OptimizerKind::Sgd) => &["lr-SGD"],
        }
    }

    /// Forward and backward on a batch; gradients add up until [`TrainingModule::update`]. `number` keeps the random numbers of
    /// different batches apart.
    ///
    /// # Errors
    /// The batch does not fit the network, or the device failed.
    pub fn train_batch(&mut self, batch: &Batch, number: u64) -> Result<Trained> {
        self.begin_batch(batch, number)?;
        let id = self.session.begin_report()?;
        Ok(self.settle(id, false)?.0)
    }

    /// Applies the gradients that were gathered, divided by `batches`, the number to accumulate; drops them if they or one of their losses
    /// are not finite, or if one of the batches was `spoiled` by such a loss before.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(&mut self, batches: usize, spoiled: bool) -> Result<Updated> {
        self.begin_update(batches, spoiled)?;
        let id = self.session.begin_report()?;
        Ok(self.settle(id, true)?.1)
    }

    /// Begins what [`TrainingModule::train_batch`] does.
    ///
    /// # Errors
    /// As there.
    pub fn begin_batch(&mut self, batch: &Batch, number: u64) -> Result<()> {
        self.session.begin_training(batch, number)
    }

    /// Begins what [`TrainingModule::update`] does.
    ///
    /// # Errors
    /// As there.
    pub fn begin_update(&mut self, batches: usize, spoiled: bool) -> Result<()> {
        let (rule, weight_decay) = self.rule();
        let update = Update {
            rule,
            learning_rate: self.learning_rate(),
            weight_decay,
            count: self.state.updates + self.under_way + 1,
            scale: if spoiled { f64::NAN } else { 1.0 / batches.max(1) as f64 },
            clip: self.clip(),
        };
        self.session.begin_update(&update)?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits for the report of a batch, of an update (`updates`) or of both; what it says of the other is of no meaning.
    ///
    /// # Errors
    /// The device failed.
    pub fn settle(&mut self, id: ReportId, updates: bool) -> Result<(Trained, Updated)> {
        self.under_way = self.under_way.saturating_sub(updates.into());
        let StepReport { losses, updated } = self.session.training_report(id)?;
        self.state.updates += u64::from(updates && updated.applied);
        let finite = losses.values.iter().all(|(_, value)| value.is_finite());
        let metrics = if finite { self.session.metrics().clone() } else { MetricSums::new() };
        Ok((Trained { losses, metrics, finite }, updated))
    }

    fn clip(&self) -> Option<Clip> {
        let most = self.optimizer.gradient_clip_val.filter(|most| *most > 0.0)?;
        Some(match self.optimizer.gradient_clip_algorithm {
            ClipAlgorithm::Norm => Clip::Norm(most),
            ClipAlgorithm::Value => Clip::Value(most),
        })
    }

    fn rule(&self) -> (Rule, f64) {
        let standard = &self.optimizer.standard;
        let (momentum, dampening, nesterov) = (self.momentum(), standard.dampening, standard.nesterov);
        let (beta, epsilon) = ([momentum, standard.betas[1]], standard.eps);
        let rule = match (self.kind, standard.kind) {
            (ModuleKind::Pluto, _) => {
                return (Rule::AdamW { beta: self.beta, epsilon: optim::EPSILON }, self.optimizer.weight_decay);
            }
            (_, OptimizerKind::Adam) => Rule::Adam { beta, epsilon },
            (_, OptimizerKind::AdamW) => Rule::AdamW { beta, epsilon },
            (_, OptimizerKind::Sgd) => Rule::Sgd { momentum, dampening, nesterov },
        };
        (rule, standard.decay())
    }

    /// Ends a batch that was followed by an update: `batch` is its number in the epoch, from 1.
    pub fn end_batch(&mut self, batch: usize) {
        if let Interval::Batches(every) = self.schedule.interval()
            && batch.is_multiple_of(every)
        {
            self.state.schedule += 1;
        }
    }

    /// Ends the training of an epoch, before its validation and its checkpoints.
    pub fn end_epoch(&mut self) {
        if self.schedule.interval() == Interval::Epoch {
            self.state.schedule += 1;
        }
    }

    /// Losses and metrics of a batch in evaluation mode.
    ///
    /// # Errors
    /// The batch does not fit the network, or the device failed.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<(Losses, MetricSums)> {
        let id = self.begin_evaluation(batch)?;
        self.settle_evaluation(id)
    }

    /// Begins what [`TrainingModule::evaluate`] does.
    ///
    /// # Errors
    /// As there.
    pub fn begin_evaluation(&mut self, batch: &Batch) -> Result<ReportId> {
        self.session.begin_evaluation(batch)?;
        self.session.begin_report()
    }

    /// Waits for the report of a batch in evaluation mode.
    ///
    /// # Errors
    /// The device failed.
    pub fn settle_evaluation(&mut self, id: ReportId) -> Result<(Losses, MetricSums)> {
        let losses = self.session.evaluation_report(id)?;
        Ok((losses, self.session.metrics().clone()))
    }
}
