//! The network with its optimiser: one training step, one evaluation.

use super::session::{Losses, Session, Update};
use crate::{
    config::{OptimizerConfig, Precision},
    data::batch::Batch,
    error::{Error, Result},
    graph::Scalar,
    metrics::{self, MetricSums},
    optim::{self, schedule},
};

/// Numbers of a precision.
///
/// # Errors
/// [`Error::Config`] for those that need a GPU.
pub fn scalar(precision: Precision) -> Result<Scalar> {
    match precision {
        Precision::Single => Ok(Scalar::F32),
        Precision::Double => Ok(Scalar::F64),
        Precision::HalfMixed | Precision::BrainMixed => {
            Err(Error::config("lightning.trainer.params.precision", "mixed precision needs the GPU backend"))
        }
    }
}

/// A network in training.
pub struct TrainingModule {
    session: Session,
    optimizer: OptimizerConfig,
}

/// What a training step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Losses of the batch.
    pub losses: Losses,
    /// Metrics of the batch, with the parameters before the step.
    pub metrics: MetricSums,
    /// False if the loss or the gradient was not finite: nothing has changed then.
    pub applied: bool,
}

impl TrainingModule {
    /// Ties a network to its optimiser.
    pub fn new(session: Session, optimizer: OptimizerConfig) -> Self {
        Self { session, optimizer }
    }

    /// The network.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The network, to change it.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Learning rate of an epoch, from 0.
    pub fn learning_rate(&self, epoch: usize) -> f64 {
        schedule::warmup_cosine(epoch, self.optimizer.lr, self.optimizer.epochs, self.optimizer.warmup_epochs)
    }

    /// One training step: forward, backward, update. `number` keeps the random numbers of different batches apart; `count`
    /// is the number of this update, from 1.
    ///
    /// # Errors
    /// The batch does not fit the network, or the device failed.
    pub fn train(&mut self, batch: &Batch, learning_rate: f64, number: u64, count: u64) -> Result<Trained> {
        let losses = self.session.train(batch, number)?;
        if !losses.values.iter().all(|(_, value)| value.is_finite()) {
            self.session.discard();
            return Ok(Trained { losses, metrics: metrics::NONE, applied: false });
        }
        let metrics = self.session.metrics(batch);
        let updated = self.session.update(&Update {
            learning_rate,
            beta: optim::BETA,
            epsilon: optim::EPSILON,
            weight_decay: self.optimizer.weight_decay,
            count,
            clip_norm: self.optimizer.gradient_clip_val.filter(|norm| *norm > 0.0),
        })?;
        Ok(Trained { losses, metrics, applied: updated.applied })
    }

    /// Losses and metrics of a batch in evaluation mode.
    ///
    /// # Errors
    /// The batch does not fit the network.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<(Losses, MetricSums)> {
        let losses = self.session.evaluate(batch)?;
        Ok((losses, self.session.metrics(batch)))
    }
}
