//! The CPU backend: the embedded default and the reference for others.
//!
//! One file per family of operations, under the names of their kernels; `call` is what they all work with. Work is cut
//! into tasks by shape alone and partial sums are added in the order of tasks: the number of threads changes no bit.

mod attention;
mod call;
mod dropout;
mod fourier;
mod gemm;
mod imitation;
mod linear;
mod linear_max;
mod linear_norm;
mod losses;
mod math;
mod metrics;
mod neighborhood;
mod norm;
mod optimizer;
mod pool;
mod rows;

use self::{
    call::{Call, Out},
    linear::Pair,
    math::Real,
    pool::Pool,
};
use super::{Backend, Buffer, NonFinite, Report, ReportId, Update};
use crate::{
    error::{Error, Result},
    graph::{Element, Feed, Op, Pass, Place, Plan, RealsRef, Scalar, Step, TensorId, Vector},
};
use std::time::Instant;

/// A CPU backend with zeroed buffers. `threads` of 0 means one for each core.
///
/// # Errors
/// [`Error::Backend`] if there is not enough memory for so many parameters.
pub fn new(scalar: Scalar, threads: usize, parameters: usize, statistics: usize) -> Result<Box<dyn Backend>> {
    Ok(match scalar {
        Scalar::F32 => Box::new(CpuBackend::<f32>::new(threads, parameters, statistics)?),
        Scalar::F64 => Box::new(CpuBackend::<f64>::new(threads, parameters, statistics)?),
    })
}

/// Memory of a run and the threads that work on it.
pub struct CpuBackend<T> {
    pool: Pool,
    parameters: Vec<T>,
    gradients: Vec<T>,
    moments: [Vec<T>; 2],
    statistics: Vec<T>,
    pending: Vec<T>,
    arena: Vec<T>,
    index_arena: Vec<i32>,
    scratch: Vec<T>,
    partials: Vec<T>,
    /// Sums of squares of blocks of the gradient.
    norms: Vec<f64>,
    /// Of the last run and the last update.
    report: Report,
    /// A loss of the gathered gradients was not finite.
    spoiled: bool,
}

impl<T: Real> CpuBackend<T> {
    fn new(threads: usize, parameters: usize, statistics: usize) -> Result<Self> {
        let zeros = |n| {
            // Only asks whether there is room: of memory that is cleared on demand, as this one is, no page is used before it is written to.
            reserve(&mut Vec::<T>::new(), n, "the parameters of this model")?;
            Ok(vec![T::ZERO; n])
        };
        Ok(Self {
            pool: Pool::new(threads),
            parameters: zeros(parameters)?,
            gradients: zeros(parameters)?,
            moments: [zeros(parameters)?, zeros(parameters)?],
            statistics: zeros(statistics)?,
            pending: zeros(statistics)?,
            arena: Vec::new(),
            index_arena: Vec::new(),
            scratch: Vec::new(),
            partials: Vec::new(),
            norms: Vec::new(),
            report: Report::default(),
            spoiled: false,
        })
    }

    fn buffer(&mut self, buffer: Buffer) -> &mut [T] {
        match buffer {
            Buffer::Parameters => &mut self.parameters,
            Buffer::Gradients => &mut self.gradients,
            Buffer::FirstMoments => &mut self.moments[0],
            Buffer::SecondMoments => &mut self.moments[1],
            Buffer::Statistics => &mut self.statistics,
            Buffer::PendingStatistics => &mut self.pending,
        }
    }

    /// Runs nodes in order for as long as `go_on` says so after each.
    fn run_nodes(&mut self, plan: &Plan, feed: &Feed, step: &Step, mut go_on: impl FnMut(&Self, usize) -> bool) -> Result<()> {
        super::check(plan, feed, T::SCALAR, false)?;
        let reals = T::feed(&feed.reals).unwrap_or_default();
        grow(&mut self.arena, plan.real_len, T::ZERO)?;
        grow(&mut self.index_arena, plan.index_len, 0)?;
        if let Some(seed) = plan.graph.seed {
            self.arena[plan.offset(seed)] = T::ONE;
        }
        for (i, node) in plan.graph.nodes.iter().enumerate() {
            let mut call = Call {
                pool: &self.pool,
                plan,
                node,
                feed,
                step,
                reals,
                arena: Out::of(&mut self.arena),
                index_arena: Out::of(&mut self.index_arena),
                parameters: &self.parameters,
                gradients: Out::of(&mut self.gradients),
                statistics: &self.statistics,
                pending: Out::of(&mut self.pending),
                scratch: &mut self.scratch,
                partials: &mut self.partials,
            };
            match node.pass {
                Pass::Forward => forward(&mut call),
                Pass::Backward => backward(&mut call),
                Pass::Again => again(&mut call),
            }
            if !go_on(self, i) {
                return Ok(());
            }
        }
        self.report.numbers.clear();
        for (id, place) in plan.graph.numbers() {
            let values = &self.arena[plan.offset(id)..][..place.len()];
            self.report.numbers.extend(values.iter().map(|value| value.f64()));
        }
        if plan.graph.seed.is_some() {
            self.spoiled |= !self.report.numbers[..plan.graph.losses()].iter().all(|loss| loss.is_finite());
        }
        Ok(())
    }
}

impl<T: Real> Backend for CpuBackend<T> {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn scalar(&self) -> Scalar {
        T::SCALAR
    }

    fn run(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<()> {
        self.run_nodes(plan, feed, step, |_, _| true)
    }

    fn run_timed(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(plan.graph.nodes.len() + 1);
        times.push(Instant::now());
        self.run_nodes(plan, feed, step, |_, _| {
            times.push(Instant::now());
            true
        })?;
        Ok(times)
    }

    fn run_watched(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Option<NonFinite>> {
        let mut found = None;
        self.run_nodes(plan, feed, step, |backend, node| {
            let results = super::watched(&plan.graph.nodes[node]);
            // Gradients of parameters are looked at last, all at once.
            let mut watched = results.filter(|id| {
                let tensor = plan.graph.tensor(**id);
                tensor.element == Element::Real && tensor.place == Place::Arena
            });
            let finite = watched.all(|id| {
                let len = plan.graph.tensor(*id).rows.resolve(&feed.counts) * plan.graph.tensor(*id).width;
                backend.arena[plan.offset(*id)..][..len].iter().all(|x| x.f64().is_finite())
            });
            found = (!finite).then_some(NonFinite::Node(node));
            finite
        })?;
        let gradient = || self.gradients.iter().position(|g| !g.f64().is_finite()).map(NonFinite::Gradient);
        Ok(found.or_else(gradient))
    }

    fn output<'a>(&'a self, plan: &'a Plan, feed: &'a Feed, tensor: TensorId) -> Result<RealsRef<'a>> {
        let t = plan.graph.tensor(tensor);
        let len = t.rows.resolve(&feed.counts) * t.width;
        Ok(T::view(match t.place {
            Place::Arena => &self.arena[plan.offset(tensor)..][..len],
            Place::Parameter(offset) => &self.parameters[offset..][..len],
            Place::Gradient(offset) => &self.gradients[offset..][..len],
            Place::Input(slot) => &T::feed(&feed.reals).unwrap_or_default()[feed.real_slots[slot].clone()][..len],
        }))
    }

    fn begin_report(&mut self) -> Result<ReportId> {
        Ok(ReportId(0))
    }

    fn report(&mut self, _: ReportId) -> Result<Report> {
        Ok(self.report.clone())
    }

    fn begin_update(&mut self, update: &Update, decayed: &[Vector]) -> Result<()> {
        let scale = if self.spoiled { f64::NAN } else { update.scale };
        let done = optimizer::update(self, &Update { scale, ..update.clone() }, decayed);
        self.report.updated = done;
        if done.applied {
            self.statistics.copy_from_slice(&self.pending);
            Ok(())
        } else {
            self.discard()
        }
    }

    fn clear_gradients(&mut self, parts: &[Vector]) -> Result<()> {
        parts.iter().for_each(|part| self.gradients[part.range()].fill(T::ZERO));
        Ok(())
    }

    fn discard(&mut self) -> Result<()> {
        self.spoiled = false;
        self.gradients.fill(T::ZERO);
        self.pending.copy_from_slice(&self.statistics);
        Ok(())
    }

    fn read(&self, buffer: Buffer) -> Result<Vec<f64>> {
        let values = match buffer {
            Buffer::Parameters => &self.parameters,
            Buffer::Gradients => &self.gradients,
            Buffer::FirstMoments => &self.moments[0],
            Buffer::SecondMoments => &self.moments[1],
            Buffer::Statistics => &self.statistics,
            Buffer::PendingStatistics => &self.pending,
        };
        Ok(values.iter().map(|x| x.f64()).collect())
    }

    fn write(&mut self, buffer: Buffer, values: &[f64]) -> Result<()> {
        let target = self.buffer(buffer);
        if target.len() != values.len() {
            return Err(Error::Backend(format!("{buffer:?} holds {} numbers, not {}", target.len(), values.len())));
        }
        self.write_part(buffer, 0, values)?;
        if buffer == Buffer::Statistics {
            self.pending.copy_from_slice(&self.statistics);
        }
        Ok(())
    }

    fn write_part(&mut self, buffer: Buffer, start: usize, values: &[f64]) -> Result<()> {
        let target = self.buffer(buffer);
        let range = super::part(buffer, target.len(), start, values)?;
        target[range].iter_mut().zip(values).for_each(|(t, &v)| *t = T::of(v));
        Ok(())
    }
}

/// Makes memory at least so long.
///
/// # Errors
/// There is not enough.
fn grow<T: Clone>(memory: &mut Vec<T>, len: usize, value: T) -> Result<()> {
    if memory.len() < len {
        reserve(memory, len, "a batch of this size")?;
        memory.resize(len, value);
    }
    Ok(())
}

/// Makes room for `len` values in all.
///
/// # Errors
/// There is not enough.
fn reserve<T>(memory: &mut Vec<T>, len: usize, what: &str) -> Result<()> {
    let megabytes = (len.saturating_mul(size_of::<T>())).div_ceil(1 << 20);
    let more = len.saturating_sub(memory.len());
    memory.try_reserve_exact(more).map_err(|e| Error::Backend(format!("{megabytes} MiB for {what}: {e}")))
}

/// Computes a node's result.
fn forward<T: Real>(call: &mut Call<T>) {
    match &call.node.op {
        Op::Linear { weight, bias, activation } => linear::forward(call, *weight, *bias, *activation),
        Op::LayerNorm { gamma, beta, activation } => norm::layer_forward(call, *gamma, *beta, *activation),
        Op::BatchNorm { gamma, beta, running, train, activation } => {
            norm::batch_forward(call, [*gamma, *beta], *running, *train, *activation)
        }
        Op::LinearNorm { .. } => linear_norm::forward(call),
        Op::Fourier { frequencies, channel } => fourier::forward(call, *frequencies, *channel),
        Op::Gather { index } => rows::gather_forward(call, *index),
        Op::Concat => rows::concat_forward(call),
        Op::LinearMax { weight, bias, segments } => linear_max::forward(call, *weight, *bias, *segments),
        Op::NormLinearMax { .. } => linear_max::norm_forward(call),
        Op::LinearPair { inner, inner_bias, outer, outer_bias, index } => {
            let pair = Pair { inner: *inner, inner_bias: *inner_bias, outer: *outer, outer_bias: *outer_bias };
            linear::pair_forward(call, pair, *index)
        }
        Op::Add { map } => rows::add_forward(call, *map),
        Op::Outer => rows::outer_forward(call),
        Op::Dropout { rate } => dropout::forward(call, *rate),
        Op::Residual { dropout, drop_path, group, group_index } => {
            dropout::residual_forward(call, *dropout, *drop_path, *group, *group_index)
        }
        Op::Attention(spec) => attention::forward(call, spec),
        Op::Neighborhood { length, heads, window, bias } => neighborhood::forward(call, *length, *heads, *window, *bias),
        Op::Unfold { length, positions } => rows::unfold_forward(call, *length, positions),
        Op::Mix { length, weights } => rows::mix_forward(call, *length, weights),
        Op::Interleave => rows::interleave_forward(call),
        Op::JoinSteps { steps } => rows::join_steps_forward(call, *steps),
        Op::SmoothL1 { steps, channels, target_channels } => losses::smooth_l1_forward(call, *steps, *channels, *target_channels),
        Op::UnitNorm { steps, channels } => losses::unit_norm_forward(call, *steps, *channels),
        Op::CrossEntropy { segments, target } => losses::cross_entropy_forward(call, *segments, *target),
        Op::Collision { .. } => losses::collision_forward(call),
        Op::Triplet { triplets, temperature } => losses::triplet_forward(call, *triplets, *temperature),
        Op::Imitation { .. } => imitation::forward(call),
        Op::Sum => losses::sum_forward(call),
        Op::Largest => losses::largest_forward(call),
        Op::Scale { factor } => losses::scale_forward(call, *factor),
        Op::Metrics { .. } => metrics::forward(call),
    }
}

/// Computes a node's result from what is kept of it; see [`Op::again_reads`].
fn again<T: Real>(call: &mut Call<T>) {
    match &call.node.op {
        Op::Linear { .. } => linear::gelu_again(call),
        Op::BatchNorm { gamma, beta, activation, .. } => norm::batch_again(call, [*gamma, *beta], *activation),
        op => unreachable!("results of '{}' are kept", op.name()),
    }
}

/// Computes the gradients of a node's operands and parameters.
fn backward<T: Real>(call: &mut Call<T>) {
    match &call.node.op {
        Op::Linear { weight, bias, activation } => linear::backward(call, *weight, *bias, *activation),
        Op::LayerNorm { gamma, beta, activation } => norm::layer_backward(call, *gamma, *beta, *activation),
        Op::BatchNorm { gamma, beta, train, activation, .. } => norm::batch_backward(call, [*gamma, *beta], *train, *activation),
        Op::LinearNorm { .. } => linear_norm::backward(call),
        Op::Fourier { frequencies, channel } => fourier::backward(call, *frequencies, *channel),
        Op::Gather { index } => rows::gather_backward(call, *index),
        Op::Concat => rows::concat_backward(call),
        Op::LinearMax { weight, bias, segments } => linear_max::backward(call, *weight, *bias, *segments),
        Op::NormLinearMax { .. } => linear_max::norm_backward(call),
        Op::LinearPair { inner, inner_bias, outer, outer_bias, index } => {
            let pair = Pair { inner: *inner, inner_bias: *inner_bias, outer: *outer, outer_bias: *outer_bias };
            linear::pair_backward(call, pair, *index)
        }
        Op::Add { map } => rows::add_backward(call, *map),
        Op::Outer => rows::outer_backward(call),
        Op::Dropout { rate } => dropout::backward(call, *rate),
        Op::Residual { dropout, drop_path, group, group_index } => {
            dropout::residual_backward(call, *dropout, *drop_path, *group, *group_index)
        }
        Op::Attention(spec) => attention::backward(call, spec),
        Op::Neighborhood { length, heads, window, bias } => neighborhood::backward(call, *length, *heads, *window, *bias),
        Op::Unfold { length, positions } => rows::unfold_backward(call, *length, positions),
        Op::Mix { length, weights } => rows::mix_backward(call, *length, weights),
        Op::Interleave => rows::interleave_backward(call),
        Op::JoinSteps { .. } => rows::join_steps_backward(call),
        Op::SmoothL1 { steps, channels, target_channels } => losses::smooth_l1_backward(call, *steps, *channels, *target_channels),
        Op::UnitNorm { steps, channels } => losses::unit_norm_backward(call, *steps, *channels),
        Op::CrossEntropy { segments, target } => losses::cross_entropy_backward(call, *segments, *target),
        Op::Collision { .. } => losses::collision_backward(call),
        Op::Triplet { triplets, temperature } => losses::triplet_backward(call, *triplets, *temperature),
        Op::Imitation { .. } => imitation::backward(call),
        Op::Sum => losses::sum_backward(call),
        Op::Largest => losses::largest_backward(call),
        Op::Scale { factor } => losses::scale_backward(call, *factor),
        Op::Metrics { .. } => {}
    }
}
