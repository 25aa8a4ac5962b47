//! The one place that runs the network: it owns the backend with all memory of a run, and a plan for each purpose.

mod device;

pub use device::cuda_architectures;

use super::trace::{Phase, Trace};
pub use crate::backend::{Buffer, Clip, LossScale, MOST_UNDER_WAY, ReportId, Rule, Update, Updated};
use crate::{
    backend::{Backend, NonFinite, Report, cpu},
    config::{ModelConfig, ObjectiveConfig, RunConfig},
    data::batch::{Batch, BatchOptions},
    error::{Error, Result},
    graph::{Builder, Graph, Mode, Node, Parameters, Pass, Plan, RealsRef, Scalar, Step, TensorId, Vector, autodiff},
    metrics::{self, MetricSums},
    model::{self, params},
    objectives, optim,
};
use arrayvec::ArrayVec;
use std::{ops::Range, time::Instant};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Losses and gradients.
    Train,
    /// Losses without gradients.
    Evaluate,
    /// The network alone.
    Predict,
}

/// A recorded graph with its memory plan.
struct Recorded {
    plan: Plan,
    outputs: model::Outputs,
    losses: objectives::Losses,
    cost_map_size: usize,
}

/// Most counts of a batch that each purpose's plan has room for: the order of a device's sums depends on it.
pub type Room = [Vec<usize>; 3];

/// Losses of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// Every loss by the name under which it is logged; the last is `loss`.
    pub values: ArrayVec<(&'static str, f64), { objectives::MOST }>,
    /// What is minimised: all of them together.
    pub loss: f64,
}

/// What a training step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Losses of its batch.
    pub losses: Losses,
    /// The last update until then.
    pub updated: Updated,
}

/// The network's outputs for one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `[LINES * M, F * 6]`: x, y, cos, sin, vx, vy of every candidate; row is line * M + mode.
    pub trajectory: Vec<f64>,
    /// `[LINES * M]`.
    pub logits: Vec<f64>,
    /// `[AGENTS, F * 6]`: predicted futures, relative to the present pose as the targets are.
    pub prediction: Vec<f64>,
    /// `[B, D]`, with `use_hidden_proj`; else empty.
    pub hidden: Vec<f64>,
    /// `[B, F * 4]`, with `ref_free_traj`; else empty.
    pub ref_free_trajectory: Vec<f64>,
    /// F.
    pub steps: usize,
    /// M.
    pub modes: usize,
}

impl Outputs {
    /// Rows of a scenario's candidates.
    pub fn rows(&self, batch: &Batch, scenario: usize) -> Range<usize> {
        let lines = &batch.lines[scenario];
        lines.start * self.modes..lines.end * self.modes
    }
    /// Probability of each of a scenario's candidates.
    pub fn probabilities(&self, batch: &Batch, scenario: usize) -> Vec<f64> {
        let logits = &self.logits[self.rows(batch, scenario)];
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|x| (x - highest).exp()).sum();
        logits.iter().map(|x| (x - highest).exp() / total).collect()
    }
    /// Row of a scenario's most probable candidate; none without a line.
    pub fn best_row(&self, batch: &Batch, scenario: usize) -> Option<usize> {
        // The first of equals.
        self.rows(batch, scenario).rev().max_by(|&a, &b| self.logits[a].total_cmp(&self.logits[b]))
    }
    /// x, y, heading of one candidate: `[F]`.
    pub fn poses(&self, row: usize) -> Vec<[f64; 3]> {
        let steps = self.trajectory[row * self.steps * 6..][..self.steps * 6].chunks_exact(6);
        steps.map(|s| [s[0], s[1], s[3].atan2(s[2])]).collect()
    }
    /// x, y, heading of a scenario's most probable candidate: `[F]`; empty without a line.
    pub fn best_trajectory(&self, batch: &Batch, scenario: usize) -> Vec<[f64; 3]> {
        self.best_row(batch, scenario).map(|row| self.poses(row)).unwrap_or_default()
    }
}

/// A network in training or use.
pub struct Session {
    backend: Box<dyn Backend>,
    device: String,
    model: ModelConfig,
    objectives: ObjectiveConfig,
    parameters: Parameters,
    decayed: Vec<Vector>,
    /// Names of the parameters that stay as they are, and their places.
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
    /// [`Error::Config`] with the key of an option that does not fit.
    pub fn new(model: &ModelConfig, objectives: &ObjectiveConfig, scalar: Scalar, threads: usize, seed: u64) -> Result<Self> {
        Self::with_backend(model, objectives, seed, |parameters, statistics| Ok(cpu::new(scalar, threads, parameters, statistics)))
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
        let (values, statistics) = params::initial(&specifications, seed);
        session.write(Buffer::Parameters, &values)?;
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

    /// Names of the parameters that stay as they are.
    pub fn frozen(&self) -> &[String] {
        &self.frozen.0
    }

    /// Number of parameters that stay as they are.
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

    /// Begins to bring what the last training pass and the last update gave to the host. At most [`Session::lag`] reports may be outstanding
    /// when a further pass begins.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_report(&mut self) -> Result<ReportId> {
        self.backend.begin_report()
    }

    /// How many training steps may begin before the report of the first is waited for. None where every value is looked at or timed.
    pub fn lag(&self) -> usize {
        if self.watched || self.trace.is_some() { 0 } else { self.backend.lag() }
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
        self.run(Purpose::Evaluate, batch, 0)?;
        let id = self.begin_report()?;
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
            let plan = Plan::grouped(graph, capacity, |graph, node| self.backend.runs_in_groups(graph, node));
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

/// Takes note of every node and of the two passes: `times` has the start, and the end of each node.
fn note_nodes(trace: &Trace, plan: &Plan, times: &[Instant]) {
    let nodes = &plan.graph.nodes;
    let mut start = 0;
    // A device may change from one pass to the other more than once.
    for run in nodes.chunk_by(|a, b| pass(a) == pass(b)) {
        let phase = if run[0].pass == Pass::Forward { Phase::Forward } else { Phase::Backward };
        trace.span(phase, times[start], times[start + run.len()]);
        start += run.len();
    }
    for (node, time) in nodes.iter().zip(times.windows(2)) {
        trace.operation(&node.name, pass(node), time[0], time[1]);
    }
}

fn pass(node: &Node) -> &'static str {
    match node.pass {
        Pass::Forward => "forward",
        Pass::Again | Pass::Backward => "backward",
    }
}

/// Names what was not finite.
fn anomaly(found: NonFinite, plan: &Plan, parameters: &Parameters, batch: &Batch) -> Error {
    let what = match found {
        NonFinite::Node(node) => {
            let node = &plan.graph.nodes[node];
            format!("{} of '{}'", if node.pass == Pass::Backward { "a gradient" } else { "the value" }, node.name)
        }
        NonFinite::Gradient(element) => format!("the gradient of parameter '{}'", parameters.name_at(element).unwrap_or("?")),
    };
    Error::NotFinite(format!("{what}, with scenarios {}", batch.tokens.join(", ")))
}

/// Records a graph.
fn record(
    purpose: Purpose,
    parameters: &Parameters,
    frozen: &[String],
    config: &ModelConfig,
    options: &ObjectiveConfig,
    cost_map_size: usize,
) -> Result<(Graph, model::Outputs, objectives::Losses)> {
    let mut b = Builder::new(if purpose == Purpose::Train { Mode::Train } else { Mode::Evaluate });
    b.freeze(frozen);
    let outputs = model::record(&mut b, parameters, config)?;
    let mut losses = objectives::Losses::new();
    if purpose != Purpose::Predict {
        losses = objectives::record(&mut b, &outputs, parameters, config, options, cost_map_size)?;
        losses.iter().filter_map(|(name, loss)| Some((name, (*loss)?))).for_each(|(name, loss)| b.result(name, loss));
        let sums = metrics::record(&mut b, &outputs, metrics::wanted(options), config.future_steps)?;
        sums.into_iter().for_each(|sums| b.result("metrics", sums));
    }
    let named = [("trajectory", outputs.trajectory), ("probability", outputs.logits), ("prediction", outputs.prediction)];
    named.into_iter().for_each(|(name, tensor)| b.result(name, tensor));
    let optional = [("hidden", outputs.hidden), ("ref_free_trajectory", outputs.ref_free_trajectory)];
    optional.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).for_each(|(name, tensor)| b.result(name, tensor));

    let mut graph = b.finish();
    if let (Purpose::Train, Some((_, Some(loss)))) = (purpose, losses.last()) {
        let idle = objectives::idle(options, config);
        let without_gradient: Vec<&str> = idle.into_iter().chain(frozen.iter().map(String::as_str)).collect();
        autodiff::differentiate(&mut graph, *loss, parameters, &without_gradient)?;
    }
    Ok((graph, outputs, losses))
}
