//! The CUDA backend: every operation as kernels of our own, recorded once per plan and replayed for every batch.
//!
//! One file per family of operations, under the names of the CPU's and of the kernels in `kernels/`.
//! - `device`: what is needed of a device.
//! - `recorder`: plans become lists of launches.
//! - `memory`: what lies where.
//! - `optimizer`: clipping and the step.

mod attention;
mod chain;
pub mod device;
mod dispatch;
#[allow(unsafe_code)]
mod driver;
mod dropout;
mod fourier;
mod group_attention;
mod halves;
mod imitation;
pub mod kernels;
mod linear;
mod linear_max;
mod linear_norm;
mod loss_scale;
mod losses;
mod memory;
mod metrics;
mod neighborhood;
mod norm;
mod optimizer;
mod partials;
mod parts;
mod product;
mod read_back;
mod recorder;
mod rows;
mod sequences;
mod weights;

pub use recorder::Multiply;

use self::{
    device::{Captured, Device, Launch},
    memory::{Needs, REPORT, State, Work},
    read_back::ReadBack,
    recorder::{Program, Recorder, StepBlock, bytes},
};
use super::{Backend, Buffer, LossScale, MOST_UNDER_WAY, NonFinite, Report, ReportId, Rule, Update, Updated};
use crate::{
    error::{Error, Result},
    graph::{Element, Feed, Graph, MOST_NUMBERS, Node, Place, Plan, RealsRef, Scalar, Step, TensorId, Vector},
};
use std::time::{Duration, Instant};

/// Plans whose launches are kept: those of a session, and one more.
const MOST_PROGRAMS: usize = 4;

/// How many devices there are that this library has kernels and a driver for; at least one.
///
/// # Errors
/// Why there is none.
pub fn available() -> Result<usize> {
    match driver::count()? {
        0 => Err(Error::Backend("the driver knows of no device".into())),
        count => Ok(count),
    }
}

/// The device with this number, from 0.
///
/// # Errors
/// As [`available`]; there is no such device, it is too old, or it fails.
pub fn device(number: usize) -> Result<Box<dyn Device>> {
    Ok(Box::new(driver::Driver::new(number)?))
}

/// Whether a node may run in one go with others; see [`Backend::runs_in_groups`].
pub fn runs_in_groups(graph: &Graph, node: &Node) -> bool {
    chain::takes(graph, node)
}

/// Which tensors are stored in 16 bits; see [`Backend::halves`].
pub fn halves(graph: &Graph, multiply: Multiply) -> Vec<TensorId> {
    halves::of(graph, multiply)
}

/// A CUDA backend with zeroed buffers on a device. It computes in single precision, products as `multiply` says; the loss is scaled for those
/// in half precision.
///
/// # Errors
/// The device failed, or its memory is too small.
pub fn with_device(device: Box<dyn Device>, multiply: Multiply, parameters: usize, statistics: usize) -> Result<Box<dyn Backend>> {
    let state = State::new(&*device, parameters, statistics, multiply == Multiply::F16)?;
    let updates = ["adam", "sgd"].map(|kernel| optimizer::launches(&state.update_buffers(), kernel));
    let mut backend = Box::new(CudaBackend {
        device,
        multiply,
        state,
        work: Work::default(),
        programs: Vec::new(),
        outputs: Vec::new(),
        updates,
        feed: 0,
        gathered: false,
        reports: 0,
        skipped: 0,
        values: Vec::new(),
    });
    backend.set_loss_scale(&LossScale::default())?;
    Ok(backend)
}

/// What a plan becomes: for every node how many launches there are until it is done, a group's being those of its first node, and all
/// launches, with addresses that no device has.
///
/// # Errors
/// The backend cannot compute a node.
pub fn launches(plan: &Plan, multiply: Multiply) -> Result<(Vec<usize>, Vec<Launch>)> {
    let program = Recorder::record(plan, recorder::Addresses::apart(), multiply, dispatch::record)?;
    Ok((program.ends, program.launches))
}

/// Where a report lies on the host: the device is never as many reports ahead as there are places.
fn place(report: u64) -> usize {
    (report % (MOST_UNDER_WAY as u64 + 1)) as usize
}

/// The launches of a plan, ready to run.
struct Prepared {
    plan: u64,
    program: Program,
    constants: device::Address,
    captured: Captured,
}

/// Memory of a run and the device that works on it.
struct CudaBackend {
    device: Box<dyn Device>,
    multiply: Multiply,
    state: State,
    work: Work,
    /// The least recently prepared first.
    programs: Vec<Prepared>,
    /// Results of the last run by tensor, once they have been read back.
    outputs: Vec<ReadBack>,
    /// Launches of an update by Adam, and by descent along the gradient.
    updates: [Vec<Launch>; 2],
    /// The feed (0, 1) that the last run read.
    feed: usize,
    /// There are gradients since the last update.
    gathered: bool,
    /// Reports that began.
    reports: u64,
    /// Updates that were not applied, as far as reports have said.
    skipped: i32,
    /// Room for the numbers of a buffer that is written.
    values: Vec<f32>,
}

impl CudaBackend {
    /// Puts a batch on the device and gives the position of its plan's launches.
    fn prepare(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<usize> {
        super::check(plan, feed, Scalar::F32, self.multiply.half() != 0)?;
        let RealsRef::F32(reals) = feed.reals.view() else { unreachable!("checked") };
        self.outputs.iter_mut().for_each(ReadBack::forget);
        self.outputs.resize_with(plan.graph.tensors.len().max(self.outputs.len()), ReadBack::default);
        let index = match self.programs.iter().position(|p| p.plan == plan.id()) {
            Some(index) if self.work.holds(reals.len(), feed.indexes.len()) => index,
            _ => self.record(plan, reals.len(), feed.indexes.len())?,
        };
        // The run before this one may still be reading the other feed.
        let next = 1 - self.feed;
        let (at, [first_real, first_index]) = (self.work.addresses(), self.work.feed(next));
        self.device.send(at.reals + bytes(first_real), bytemuck::cast_slice(reals))?;
        self.device.send(at.indexes + bytes(first_index), bytemuck::cast_slice(&feed.indexes))?;
        self.device.receive()?;
        self.feed = next;
        let block = StepBlock::new(feed, step, self.work.feed(self.feed), self.programs[index].program.scattered, self.gathered)?;
        self.device.upload(at.step, bytemuck::bytes_of(&block))?;
        self.gathered |= plan.graph.seed.is_some();
        Ok(index)
    }

    /// Records a plan, with the memory that it needs.
    fn record(&mut self, plan: &Plan, reals: usize, indexes: usize) -> Result<usize> {
        // Sizes are known once it has been recorded somewhere.
        let sizes = Recorder::record(plan, recorder::Addresses::apart(), self.multiply, dispatch::record)?;
        let needs = Needs { reals, indexes, arena: plan.real_len, index_arena: plan.index_len, scratch: sizes.scratch };
        if !self.work.fits(&needs) {
            self.forget(0);
            self.work.grow(&*self.device, &needs)?;
        }
        self.programs.iter().position(|p| p.plan == plan.id()).into_iter().for_each(|index| self.forget_one(index));
        if self.programs.len() == MOST_PROGRAMS {
            self.forget_one(0);
        }
        let constants = self.device.allocate(sizes.constants.len())?;
        let prepared = self.prepare_program(plan, constants);
        self.programs.push(prepared.inspect_err(|_| self.device.free(constants))?);
        Ok(self.programs.len() - 1)
    }

    /// The launches of a plan, with their constants at an address.
    fn prepare_program(&self, plan: &Plan, constants: device::Address) -> Result<Prepared> {
        let at = recorder::Addresses { constants, ..self.state.addresses(self.work.addresses()) };
        let program = Recorder::record(plan, at, self.multiply, dispatch::record)?;
        self.device.upload(constants, &program.constants)?;
        let captured = self.device.capture(&program.launches)?;
        Ok(Prepared { plan: plan.id(), program, constants, captured })
    }

    /// Forgets the launches of all plans from one on.
    fn forget(&mut self, from: usize) {
        while self.programs.len() > from {
            self.forget_one(self.programs.len() - 1);
        }
    }

    fn forget_one(&mut self, index: usize) {
        let old = self.programs.remove(index);
        self.device.release(old.captured);
        self.device.free(old.constants);
    }

    /// Runs nodes one by one for as long as `go_on` says so after each.
    fn run_nodes(&mut self, plan: &Plan, feed: &Feed, step: &Step, mut go_on: impl FnMut(&Self, usize) -> Result<bool>) -> Result<()> {
        let index = self.prepare(plan, feed, step)?;
        let launch = |launches: &[Launch]| launches.iter().try_for_each(|launch| self.device.launch(launch));
        let program = &self.programs[index].program;
        let mut done = program.start;
        launch(&program.launches[..done])?;
        for (node, &end) in program.ends.iter().enumerate() {
            launch(&program.launches[done..end])?;
            done = end;
            if !go_on(self, node)? {
                return Ok(());
            }
        }
        launch(&program.launches[done..])
    }

    fn download(&self, from: device::Address, elements: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; elements];
        self.device.download(from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Values of a tensor of the arena in the rows that the batch has.
    fn read_arena(&self, plan: &Plan, tensor: TensorId, values: &mut [f32]) -> Result<()> {
        let from = self.work.addresses().arena + bytes(plan.offset(tensor));
        if plan.graph.tensor(tensor).element != Element::Half {
            return self.device.download(from, bytemuck::cast_slice_mut(values));
        }
        let mut halves = vec![0; values.len()];
        self.device.download(from, bytemuck::cast_slice_mut(&mut halves))?;
        halves::widen(&halves, self.multiply, values);
        Ok(())
    }

    /// Whether all results of a node are finite.
    fn finite(&self, plan: &Plan, feed: &Feed, node: usize) -> Result<bool> {
        for id in super::watched(&plan.graph.nodes[node]) {
            let tensor = plan.graph.tensor(*id);
            // Gradients of parameters are looked at last, all at once.
            if tensor.element != Element::Index && tensor.place == Place::Arena {
                let mut values = vec![0.0; tensor.rows.resolve(&feed.counts) * tensor.width];
                self.read_arena(plan, *id, &mut values)?;
                if !values.iter().all(|x| x.is_finite()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl Drop for CudaBackend {
    fn drop(&mut self) {
        self.forget(0);
        self.work.free(&*self.device);
        self.state.free(&*self.device);
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn scalar(&self) -> Scalar {
        Scalar::F32
    }

    fn runs_in_groups(&self, graph: &Graph, node: &Node) -> bool {
        runs_in_groups(graph, node)
    }

    fn run(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<()> {
        let index = self.prepare(plan, feed, step)?;
        self.device.replay(self.programs[index].captured)
    }

    fn halves(&self, graph: &Graph) -> Vec<TensorId> {
        halves::of(graph, self.multiply)
    }

    fn lag(&self) -> usize {
        MOST_UNDER_WAY
    }

    fn begin_report(&mut self) -> Result<ReportId> {
        self.reports += 1;
        self.device.fetch(self.state.update_buffers().numbers, REPORT, place(self.reports))?;
        Ok(ReportId(self.reports))
    }

    fn report(&mut self, ReportId(id): ReportId) -> Result<Report> {
        let mut bytes = [0; REPORT];
        self.device.fetched(place(id), &mut bytes)?;
        let (numbers, outcome) = bytes.split_at(4 * MOST_NUMBERS);
        let outcome: optimizer::Outcome = bytemuck::pod_read_unaligned(outcome);
        self.skipped = outcome.all_skipped();
        let loss_scale = (self.state.update_buffers().loss_scale != 0).then_some(f64::from(outcome.loss_scale));
        let updated = Updated { gradient_norm: outcome.norm, applied: outcome.applied != 0, loss_scale };
        let numbers = numbers.chunks_exact(4).map(|number| f64::from(bytemuck::pod_read_unaligned::<f32>(number))).collect();
        Ok(Report { numbers, updated })
    }

    fn run_timed(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Vec<Instant>> {
        let index = self.prepare(plan, feed, step)?;
        let program = &self.programs[index].program;
        let seconds = self.device.time(&program.launches)?;
        // What a group takes counts for its first node.
        let start = Instant::now();
        let until = |launches: usize| start + Duration::from_secs_f64(seconds[..launches].iter().sum());
        Ok([program.start].iter().chain(&program.ends).map(|&launches| until(launches)).collect())
    }

    fn run_watched(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Option<NonFinite>> {
        let mut found = None;
        self.run_nodes(plan, feed, step, |backend, node| {
            let finite = backend.finite(plan, feed, node)?;
            found = (!finite).then_some(NonFinite::Node(node));
            Ok(finite)
        })?;
        if found.is_some() {
            return Ok(found);
        }
        let gradients = self.download(self.state.at(Buffer::Gradients), self.state.len(Buffer::Gradients))?;
        Ok(gradients.iter().position(|g| !g.is_finite()).map(NonFinite::Gradient))
    }

    fn output<'a>(&'a self, plan: &'a Plan, feed: &'a Feed, tensor: TensorId) -> Result<RealsRef<'a>> {
        let t = plan.graph.tensor(tensor);
        let len = t.rows.resolve(&feed.counts) * t.width;
        if let Place::Input(slot) = t.place {
            let RealsRef::F32(reals) = feed.reals.view() else { return Err(Error::Backend("the batch is in double precision".into())) };
            return Ok(RealsRef::F32(&reals[feed.real_slots[slot].clone()][..len]));
        }
        if self.programs.iter().all(|p| p.plan != plan.id()) {
            return Err(Error::Backend(format!("no value of '{}' before a run", t.name)));
        }
        let part = |buffer, offset, values: &mut [f32]| {
            self.device.download(self.state.at(buffer) + bytes(offset), bytemuck::cast_slice_mut(values))
        };
        let read = self.outputs[tensor.0].get(len, |values| match t.place {
            Place::Parameter(offset) => part(Buffer::Parameters, offset, values),
            Place::Gradient(offset) => part(Buffer::Gradients, offset, values),
            Place::Arena | Place::Input(_) => self.read_arena(plan, tensor, values),
        });
        read.map(RealsRef::F32)
    }

    fn begin_update(&mut self, update: &Update, decayed: &[Vector]) -> Result<()> {
        let block = optimizer::UpdateBlock::new(update, decayed, self.skipped)?;
        self.device.upload(self.state.update_buffers().block, bytemuck::bytes_of(&block))?;
        let kernel = usize::from(matches!(update.rule, Rule::Sgd { .. }));
        self.updates[kernel].iter().try_for_each(|launch| self.device.launch(launch))?;
        self.gathered = false;
        Ok(())
    }

    fn loss_scale(&self) -> Result<Option<LossScale>> {
        let from = self.state.update_buffers().loss_scale;
        if from == 0 {
            return Ok(None);
        }
        let mut block: loss_scale::Block = bytemuck::Zeroable::zeroed();
        self.device.download(from, bytemuck::bytes_of_mut(&mut block))?;
        Ok(Some(block.into()))
    }

    fn set_loss_scale(&mut self, scale: &LossScale) -> Result<()> {
        match self.state.update_buffers().loss_scale {
            0 => Ok(()),
            to => self.device.upload(to, bytemuck::bytes_of(&loss_scale::Block::from(scale))),
        }
    }

    fn clear_gradients(&mut self, parts: &[Vector]) -> Result<()> {
        let gradients = self.state.at(Buffer::Gradients);
        parts.iter().try_for_each(|part| self.device.clear(gradients + bytes(part.offset), 4 * part.len))
    }

    fn discard(&mut self) -> Result<()> {
        self.gathered = false;
        self.device.clear(self.state.at(Buffer::Gradients), 4 * self.state.len(Buffer::Gradients))?;
        let [from, to] = [Buffer::Statistics, Buffer::PendingStatistics].map(|buffer| self.state.at(buffer));
        self.device.copy(from, to, 4 * self.state.len(Buffer::Statistics))
    }

    fn read(&self, buffer: Buffer) -> Result<Vec<f64>> {
        let values = self.download(self.state.at(buffer), self.state.len(buffer))?;
        Ok(values.into_iter().map(f64::from).collect())
    }

    fn write(&mut self, buffer: Buffer, values: &[f64]) -> Result<()> {
        if self.state.len(buffer) != values.len() {
            return Err(Error::Backend(format!("{buffer:?} holds {} numbers, not {}", self.state.len(buffer), values.len())));
        }
        self.write_part(buffer, 0, values)?;
        if buffer == Buffer::Statistics {
            self.write_part(Buffer::PendingStatistics, 0, values)?;
        }
        Ok(())
    }

    fn write_part(&mut self, buffer: Buffer, start: usize, values: &[f64]) -> Result<()> {
        super::part(buffer, self.state.len(buffer), start, values)?;
        self.values.clear();
        self.values.extend(values.iter().map(|&v| v as f32));
        self.device.upload(self.state.at(buffer) + bytes(start), bytemuck::cast_slice(&self.values))
    }
}
