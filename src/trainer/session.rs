//! The one place that runs the network: it owns the backend with all memory of a run, and a plan for each purpose.

mod device;
mod recorded;
mod results;

pub use crate::backend::{Buffer, Clip, LossScale, MOST_UNDER_WAY, ReportId, Rule, Update, Updated};
pub use device::cuda_architectures;
pub use results::{Losses, Outputs, StepReport};

use super::trace::{Phase, Trace};
use crate::{
    backend::{Backend, Report, cpu},
    config::{ModelConfig, ObjectiveConfig, RunConfig},
    data::batch::{Batch, BatchOptions},
    error::{Error, Result},
    graph::{Parameters, Plan, RealsRef, Scalar, Step, TensorId, Vector},
    metrics::{self, MetricSums},
    model::{self, params},
    objectives, optim,
};
use arrayvec::ArrayVec;
use recorded::{Purpose, Recorded, anomaly, note_nodes, record};
use std::time::Instant;

/// Most counts of a batch that each purpose's plan has room for: the order of a device's sums depends on it.
pub type Room = [Vec<usize>; 3];

/// A network in training or use.
pub struct Session {
    backend: Box<dyn Backend>,
    device: String,
    model: ModelConfig,
    objectives: ObjectiveConfig,
    parameters: Parameters,
    decayed: Vec<Vector>,
    /// Names of the frozen parameters, and their places.
    frozen: (Vec<String>, Vec<Vector>),
    plans: [Option<Recorded>; 3],
    /// Room that each plan has or will at least have, by count.
    room: Room,
    last: Option<Purpose>,
    metrics: MetricSums,
    seed: u64,
    watched: bool,
    trace: Option<Trace>,
}

impl Session {
    /// A network with initial parameters drawn from the seed, on the CPU. `threads` of 0 means one for each core.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of an option that does not fit; [`Error::Backend`] if there is not enough memory.
    pub fn new(model: &ModelConfig, objectives: &ObjectiveConfig, scalar: Scalar, threads: usize, seed: u64) -> Result<Self> {
        Self::with_backend(model, objectives, seed, |parameters, statistics| cpu::new(scalar, threads, parameters, statistics))
    }

    /// As [`Session::new`], on the device and in the precision that the configuration asks for.
    ///
    /// # Errors
    /// As [`Session::new`]; there is no such device; it fails.
    pub fn on_device(model: &ModelConfig, objectives: &ObjectiveConfig, run: &RunConfig) -> Result<Self> {
        let mut device = String::new();
        let mut session = Self::with_backend(model, objectives, run.seed, |parameters, statistics| {
            let (backend, description) = device::open(run, parameters, statistics)?;
            device = description;
            Ok(backend)
        })?;
        session.device = device;
        Ok(session)
    }

    /// As [`Session::new`], on the backend that `open` gives for so many parameters and statistics.
    ///
    /// # Errors
    /// As [`Session::new`]; those of `open`.
    pub fn with_backend(
        model: &ModelConfig,
        objectives: &ObjectiveConfig,
        seed: u64,
        open: impl FnOnce(usize, usize) -> Result<Box<dyn Backend>>,
    ) -> Result<Self> {
        model::validate(model)?;
        objectives::validate(objectives, model)?;
        let specifications = params::specifications(model);
        let parameters = params::parameters(&specifications);
        let backend = open(parameters.len(), parameters.statistics_len())?;
        let decayed = optim::groups::decayed(&parameters, objectives.module, &objectives::idle(objectives, model));
        let (model, objectives) = (model.clone(), objectives.clone());
        let frozen = (Vec::new(), Vec::new());
        let mut session = Self {
            device: format!("computing on the {}", backend.name()),
            backend,
            model,
            objectives,
            parameters,
            decayed,
            frozen,
            plans: [const { None }; 3],
            room: Room::default(),
            last: None,
            metrics: MetricSums::new(),
            seed,
            watched: false,
            trace: None,
        };
        let (mut written, mut statistics) = (0, Vec::new());
        for specification in &specifications {
            let values = params::initial(specification, seed);
            if specification.statistic {
                statistics.extend(values);
            } else {
                session.write_part(Buffer::Parameters, written, &values)?;
                written += values.len();
            }
        }
        session.write(Buffer::Statistics, &statistics)?;
        Ok(session)
    }

    /// Keeps the parameters that the patterns name as they are: no step, no weight decay; batch norms among them use their running
    /// statistics and leave them. See [`optim::frozen::frozen`] for patterns.
    ///
    /// # Errors
    /// [`Error::Config`] for a pattern that names none, and if nothing would be left to train.
    pub fn freeze(&mut self, patterns: &[String]) -> Result<()> {
        let names = optim::frozen::frozen(&self.parameters, patterns)?;
        let places = names.iter().filter_map(|name| self.parameters.get(name)).map(|p| Vector { offset: p.offset, len: p.len() });
        self.frozen = (names.clone(), places.collect());
        let idle = objectives::idle(&self.objectives, &self.model);
        let idle: Vec<&str> = idle.into_iter().chain(names.iter().map(String::as_str)).collect();
        self.decayed = optim::groups::decayed(&self.parameters, self.objectives.module, &idle);
        self.plans = [const { None }; 3];
        self.last = None;
        Ok(())
    }

    /// Whether a parameter stays as it is: it is frozen, or no loss reaches it.
    pub fn stays(&self, name: &str) -> bool {
        let idle = objectives::idle(&self.objectives, &self.model);
        self.frozen.0.iter().any(|frozen| frozen == name) || idle.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Number of frozen parameters.
    pub fn frozen_len(&self) -> usize {
        self.frozen.1.iter().map(|part| part.len).sum()
    }

    /// Training runs node by node from now on, and a value or gradient that is not finite is an error with the name of its node.
    pub fn detect_anomaly(&mut self) {
        self.watched = true;
    }

    /// Times the steps from now on, each node of them; with [`Session::detect_anomaly`] their other phases alone.
    pub fn profile(&mut self) {
        self.trace = Some(Trace::default());
    }

    /// Where times are collected, if they are.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// The time, if times are collected.
    pub fn clock(&self) -> Option<Instant> {
        self.trace.as_ref().map(|_| Instant::now())
    }

    /// Takes note of a phase that began at a time of [`Session::clock`] and ends now.
    pub fn note(&self, phase: Phase, start: Option<Instant>) {
        if let (Some(trace), Some(start)) = (&self.trace, start) {
            trace.phase(phase, start);
        }
    }

    /// How batches for this session are made; `triplets` for training with the contrastive loss.
    pub fn batch_options(&self, triplets: bool) -> BatchOptions {
        BatchOptions { model: self.model.clone(), objectives: self.objectives.clone(), scalar: self.backend.scalar(), triplets }
    }

    /// Forward and backward on a batch; gradients add up until [`Session::update`]. `step` keeps the random numbers of
    /// different batches apart.
    ///
    /// # Errors
    /// The batch does not fit the session.
    pub fn train(&mut self, batch: &Batch, step: u64) -> Result<Losses> {
        self.begin_training(batch, step)?;
        let id = self.begin_report()?;
        Ok(self.training_report(id)?.losses)
    }

    /// Begins what [`Session::train`] does; a device goes on with it while the host does something else. The batch may change.
    ///
    /// # Errors
    /// As [`Session::train`].
    pub fn begin_training(&mut self, batch: &Batch, step: u64) -> Result<()> {
        self.run(Purpose::Train, batch, step)
    }

    /// Begins what [`Session::update`] does.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_update(&mut self, update: &Update) -> Result<()> {
        let start = self.clock();
        self.backend.clear_gradients(&self.frozen.1)?;
        let begun = self.backend.begin_update(update, &self.decayed);
        self.note(Phase::Update, start);
        begun
    }

    /// Begins to bring what the last pass and the last update gave to the host. At most [`Session::lag`] reports may be outstanding
    /// when a further pass begins.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_report(&mut self) -> Result<ReportId> {
        self.backend.begin_report()
    }

    /// How many training steps or evaluations may begin before the report of the first is waited for. None where every value is looked at
    /// or timed.
    pub fn lag(&self) -> usize {
        if self.watched || self.trace.as_ref().is_some_and(Trace::takes_steps) { 0 } else { self.backend.lag() }
    }

    /// Waits for the report of a training step; reports are asked for in their order.
    ///
    /// # Errors
    /// The device failed.
    pub fn training_report(&mut self, id: ReportId) -> Result<StepReport> {
        self.step_report(Purpose::Train, id)
    }

    /// Losses in evaluation mode: running statistics, no dropout, no contrastive loss. Gradients are left alone.
    ///
    /// # Errors
    /// The batch does not fit the session.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<Losses> {
        self.begin_evaluation(batch)?;
        let id = self.begin_report()?;
        self.evaluation_report(id)
    }

    /// Begins what [`Session::evaluate`] does. The batch may change.
    ///
    /// # Errors
    /// As there.
    pub fn begin_evaluation(&mut self, batch: &Batch) -> Result<()> {
        self.run(Purpose::Evaluate, batch, 0)
    }

    /// Waits for the report of an evaluation; reports are asked for in their order.
    ///
    /// # Errors
    /// The device failed.
    pub fn evaluation_report(&mut self, id: ReportId) -> Result<Losses> {
        Ok(self.step_report(Purpose::Evaluate, id)?.losses)
    }

    /// The network's outputs in evaluation mode; futures are not needed.
    ///
    /// # Errors
    /// The batch does not fit the session.
    pub fn predict(&mut self, batch: &Batch) -> Result<Outputs> {
        self.run(Purpose::Predict, batch, 0)?;
        self.outputs(batch)
    }

    /// Applies the gathered gradients, unless they are not finite, and sets them to zero.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(&mut self, update: &Update) -> Result<Updated> {
        self.begin_update(update)?;
        let id = self.begin_report()?;
        Ok(self.backend.report(id)?.updated)
    }

    /// Drops the gathered gradients and the statistics of the passes that made them.
    ///
    /// # Errors
    /// The device failed.
    pub fn discard(&mut self) -> Result<()> {
        self.backend.discard()
    }

    /// Metrics of the last training pass or evaluation whose report has come.
    pub fn metrics(&self) -> &MetricSums {
        &self.metrics
    }

    /// Outputs of the last run, which was on this batch.
    ///
    /// # Errors
    /// [`Error::Argument`] if nothing was run; the device failed.
    pub fn outputs(&self, batch: &Batch) -> Result<Outputs> {
        let recorded = self.recorded().ok_or_else(|| Error::Argument("outputs before the first run".into()))?;
        let read = |tensor| self.read_output(recorded, batch, tensor).map(|values| values.to_vec());
        let outputs = &recorded.outputs;
        Ok(Outputs {
            trajectory: read(outputs.trajectory)?,
            logits: read(outputs.logits)?,
            prediction: read(outputs.prediction)?,
            hidden: outputs.hidden.map_or(Ok(Vec::new()), read)?,
            ref_free_trajectory: outputs.ref_free_trajectory.map_or(Ok(Vec::new()), read)?,
            steps: self.model.future_steps,
            modes: self.model.num_modes,
        })
    }

    /// Names, shapes and places of parameters and running statistics.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parts of the parameter buffer that decay.
    pub fn decayed(&self) -> &[Vector] {
        &self.decayed
    }

    /// The network's options.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// Where it computes, and why, in words.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Name of the backend.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// A copy of a buffer.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, buffer: Buffer) -> Result<Vec<f64>> {
        self.backend.read(buffer)
    }

    /// Overwrites a buffer.
    ///
    /// # Errors
    /// The length differs.
    pub fn write(&mut self, buffer: Buffer, values: &[f64]) -> Result<()> {
        self.backend.write(buffer, values)
    }

    /// Overwrites a part of a buffer; statistics come into force with [`Session::discard`].
    ///
    /// # Errors
    /// It ends behind the buffer.
    pub fn write_part(&mut self, buffer: Buffer, start: usize, values: &[f64]) -> Result<()> {
        self.backend.write_part(buffer, start, values)
    }

    /// What a session must have to go on with the bits of this one, besides its buffers and the scale of its loss.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Plans get at least this room from now on.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
        self.plans = [const { None }; 3];
        self.last = None;
    }

    /// How the loss's gradient is scaled, if it is.
    ///
    /// # Errors
    /// The device failed.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        self.backend.loss_scale()
    }

    /// Scales the loss's gradient otherwise, if it is scaled.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_loss_scale(&mut self, scale: &LossScale) -> Result<()> {
        self.backend.set_loss_scale(scale)
    }

    fn run(&mut self, purpose: Purpose, batch: &Batch, step: u64) -> Result<()> {
        let cost_map_size = self.check(purpose, batch)?;
        let slot = &mut self.plans[purpose as usize];
        let fits = |r: &Recorded| r.cost_map_size == cost_map_size && r.plan.fits(&batch.feed.counts);
        if !slot.as_ref().is_some_and(fits) {
            // Never smaller than before, so that batches of changing size come to rest at one plan.
            *slot = None;
            let before = &mut self.room[purpose as usize];
            before.resize(batch.feed.counts.len(), 0);
            for (room, &n) in before.iter_mut().zip(&batch.feed.counts).filter(|(room, n)| *n > room) {
                *room = n + n.div_ceil(16);
            }
            let capacity = before.clone();
            let (graph, outputs, losses) = record(purpose, &self.parameters, &self.frozen.0, &self.model, &self.objectives, cost_map_size)?;
            let halves = self.backend.halves(&graph);
            let plan = Plan::grouped(graph, capacity, |graph, node| self.backend.runs_in_groups(graph, node), &halves);
            *slot = Some(Recorded { plan, outputs, losses, cost_map_size });
        }
        let recorded = slot.as_ref().expect("just recorded");
        self.last = None;
        let step = Step { seed: self.seed, step };
        if self.watched && purpose == Purpose::Train {
            if let Some(found) = self.backend.run_watched(&recorded.plan, &batch.feed, &step)? {
                return Err(anomaly(found, &recorded.plan, &self.parameters, batch));
            }
        } else if let Some(trace) = self.trace.as_ref().filter(|trace| purpose == Purpose::Train && trace.takes_steps()) {
            let times = self.backend.run_timed(&recorded.plan, &batch.feed, &step)?;
            note_nodes(trace, &recorded.plan, &times);
        } else {
            self.backend.run(&recorded.plan, &batch.feed, &step)?;
        }
        self.last = Some(purpose);
        Ok(())
    }

    /// Whether the batch can serve a purpose; gives the cost maps' size that the plan must have.
    fn check(&self, purpose: Purpose, batch: &Batch) -> Result<usize> {
        if batch.is_empty() || batch.feed.reals.scalar() != self.backend.scalar() {
            return Err(Error::Argument("the batch is empty or of another precision than the session".into()));
        }
        if purpose == Purpose::Predict {
            return Ok(0);
        }
        if !batch.labelled {
            return Err(Error::Data(format!("scenario '{}' has no future to learn from or to compare with", batch.tokens[0])));
        }
        if !self.objectives.use_collision_loss {
            return Ok(0);
        }
        if batch.cost_map_size == 0 {
            return Err(Error::Data(format!("scenario '{}' has no cost map, but the collision loss needs it", batch.tokens[0])));
        }
        Ok(batch.cost_map_size)
    }

    fn recorded(&self) -> Option<&Recorded> {
        self.plans[self.last? as usize].as_ref()
    }

    fn read_output<'a>(&'a self, recorded: &'a Recorded, batch: &'a Batch, tensor: TensorId) -> Result<RealsRef<'a>> {
        self.backend.output(&recorded.plan, &batch.feed, tensor)
    }

    /// What a run for a purpose and an update gave; losses that are off are 0.
    fn step_report(&mut self, purpose: Purpose, id: ReportId) -> Result<StepReport> {
        let Report { numbers, updated } = self.backend.report(id)?;
        let names = self.plans[purpose as usize].as_ref().map_or(&[][..], |recorded| &recorded.losses);
        let mut numbers = numbers.into_iter();
        let mut one = |loss: &Option<TensorId>| loss.and_then(|_| numbers.next()).unwrap_or(0.0);
        let values: ArrayVec<_, _> = names.iter().map(|(name, loss)| (*name, one(loss))).collect();
        let loss = values.last().map_or(0.0, |(_, loss)| *loss);
        let metrics = metrics::wanted(&self.objectives).iter().map_while(|metric| Some((metric.name(), numbers.next()?, numbers.next()?)));
        self.metrics = metrics.collect();
        Ok(StepReport { losses: Losses { values, loss }, updated })
    }
}
