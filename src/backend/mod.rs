//! How a graph is computed. A backend owns the memory of a run: parameters, gradients, moments, statistics, arena.

#[allow(unsafe_code)]
pub mod cpu;
pub mod cuda;
mod loss_scale;

pub use loss_scale::LossScale;

use crate::{
    error::{Error, Result},
    graph::{Element, Feed, Graph, MOST_NUMBERS, Node, Op, Place, Plan, RealsRef, Scalar, Step, TensorId, Vector},
};
use arrayvec::ArrayVec;
use std::time::Instant;

/// A flat buffer of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// Trained parameters.
    Parameters,
    /// Gradients of the step, summed over accumulated batches.
    Gradients,
    /// First moments of the optimiser.
    FirstMoments,
    /// Second moments of the optimiser.
    SecondMoments,
    /// Running statistics of the batch norms, as of the last applied step.
    Statistics,
    /// Running statistics as the last training pass left them; an applied update makes them the statistics.
    PendingStatistics,
}

/// How parameters p follow from their gradient g, which has been scaled and clipped; m and v are the moments, from 0. In the first
/// and the last, g is that of the loss and of the penalty `weight_decay` p²/2 together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// m = b₁ m + (1 - b₁) g, v = b₂ v + (1 - b₂) g², p -= rate m̂ / (√v̂ + `epsilon`) with m̂ = m / (1 - b₁ᶜ), v̂ = v / (1 - b₂ᶜ) in update
    /// c (Kingma and Ba, "Adam", 2015).
    Adam {
        /// b₁, b₂.
        beta: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
    },
    /// Adam with p *= 1 - rate · `weight_decay` before it instead of the penalty (Loshchilov and Hutter, "Decoupled weight decay
    /// regularization", 2019).
    AdamW {
        /// b₁, b₂.
        beta: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
    },
    /// m = `momentum` m + (1 - `dampening`) g, in the first update m = g; p -= rate m, or with `nesterov` p -= rate (g + `momentum` m)
    /// (Sutskever et al., "On the importance of initialization and momentum", 2013).
    Sgd {
        /// Share of the last step that is kept.
        momentum: f64,
        /// Share of the gradient that is left out of the step, but for the first.
        dampening: f64,
        /// Look ahead.
        nesterov: bool,
    },
}

/// What keeps a gradient small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Largest norm of the whole gradient.
    Norm(f64),
    /// Largest absolute value of each element.
    Value(f64),
}

/// One update of all parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Its formula.
    pub rule: Rule,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay of the parameters in `decayed`.
    pub weight_decay: f64,
    /// Number of this update, from 1, if all are applied whose reports are outstanding; the backend counts less for those that are not.
    pub count: u64,
    /// Factor of the gathered gradient: 1 / the number of batches that were accumulated; not a number: it is dropped.
    pub scale: f64,
    /// What keeps the scaled gradient small.
    pub clip: Option<Clip>,
}

/// What an update did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Updated {
    /// Norm of the whole scaled gradient before clipping.
    pub gradient_norm: f64,
    /// False if the norm or a loss was not finite; parameters, moments and statistics are then as before.
    pub applied: bool,
    /// Factor that the loss's gradient had, where it is scaled.
    pub loss_scale: Option<f64>,
}

/// Where a value first was not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// In a result of this node of the graph.
    Node(usize),
    /// In this element of the gradients alone.
    Gradient(usize),
}

/// Most steps whose reports may be outstanding.
pub const MOST_UNDER_WAY: usize = 2;

/// Names a report that is on its way from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportId(u64);

/// What a run gave in numbers, and what became of the update before the report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// [`Graph::numbers`] of the last run.
    pub numbers: ArrayVec<f64, MOST_NUMBERS>,
    /// The last update, of this run's gradients or of earlier ones.
    pub updated: Updated,
}

/// Runs plans. Every method is called by one thread at a time.
pub trait Backend: Send {
    /// Short name, such as `cpu`.
    fn name(&self) -> &'static str;

    /// Precision of all buffers.
    fn scalar(&self) -> Scalar;

    /// Runs every node of a plan on a batch; a device may still be at it afterwards, but the feed may change. The first training pass
    /// after an update begins with gradients of zero; further ones before the next update add to them. If one of
    /// [`Graph::losses`] of a training pass is not finite, that update is not applied.
    ///
    /// # Errors
    /// The feed does not fit the plan.
    fn run(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<()>;

    /// How many reports may be outstanding while further runs and updates begin, at most [`MOST_UNDER_WAY`]; none where all is done when
    /// a method returns.
    fn lag(&self) -> usize {
        0
    }

    /// Begins to bring the numbers of the last run, and what became of the last update, to the host.
    ///
    /// # Errors
    /// The device failed.
    fn begin_report(&mut self) -> Result<ReportId>;

    /// Waits for a report; for one of the last [`MOST_UNDER_WAY`] + 1 that began, in their order.
    ///
    /// # Errors
    /// The device failed, now or since it began.
    fn report(&mut self, id: ReportId) -> Result<Report>;

    /// Whether a node may run in one go with others of a group; see [`crate::graph::schedule`].
    fn runs_in_groups(&self, graph: &Graph, node: &Node) -> bool {
        let _ = (graph, node);
        false
    }

    /// Tensors of a graph that are to be stored in 16 bits, as only products look at them that round them to as many.
    fn halves(&self, graph: &Graph) -> Vec<TensorId> {
        let _ = graph;
        Vec::new()
    }

    /// As [`Backend::run`], and says when it began and when each node was done.
    ///
    /// # Errors
    /// As [`Backend::run`], or the backend cannot do it.
    fn run_timed(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Vec<Instant>> {
        let _ = (plan, feed, step);
        Err(Error::Backend(format!("the backend '{}' cannot time single nodes", self.name())))
    }

    /// As [`Backend::run`], but looks at every result: gives the first that is not finite, and ends there if it is a node's.
    ///
    /// # Errors
    /// As [`Backend::run`], or the backend cannot do it.
    fn run_watched(&mut self, plan: &Plan, feed: &Feed, step: &Step) -> Result<Option<NonFinite>> {
        let _ = (plan, feed, step);
        Err(Error::Backend(format!("the backend '{}' cannot look for values that are not finite", self.name())))
    }

    /// A result of the last run of `plan`: the rows that the batch has.
    ///
    /// # Errors
    /// The device failed.
    fn output<'a>(&'a self, plan: &'a Plan, feed: &'a Feed, tensor: TensorId) -> Result<RealsRef<'a>>;

    /// Clips the gradient and updates parameters and statistics, unless the gradient or a loss was not finite; ends with gradients of
    /// zero. What becomes of it is in the next report.
    ///
    /// # Errors
    /// The device failed.
    fn begin_update(&mut self, update: &Update, decayed: &[Vector]) -> Result<()>;

    /// As [`Backend::begin_update`], and waits for it.
    ///
    /// # Errors
    /// The device failed.
    fn update(&mut self, update: &Update, decayed: &[Vector]) -> Result<Updated> {
        self.begin_update(update, decayed)?;
        let id = self.begin_report()?;
        Ok(self.report(id)?.updated)
    }

    /// How the loss's gradient is scaled from now on; none if it is not. Gradients that can be read are scaled so.
    ///
    /// # Errors
    /// The device failed.
    fn loss_scale(&self) -> Result<Option<LossScale>> {
        Ok(None)
    }

    /// Scales the loss's gradient otherwise; nothing where it is not scaled.
    ///
    /// # Errors
    /// The device failed.
    fn set_loss_scale(&mut self, scale: &LossScale) -> Result<()> {
        let _ = scale;
        Ok(())
    }

    /// Sets parts of the gradient to zero.
    ///
    /// # Errors
    /// The device failed.
    fn clear_gradients(&mut self, parts: &[Vector]) -> Result<()>;

    /// Sets gradients to zero and forgets pending statistics: drops what was accumulated.
    ///
    /// # Errors
    /// The device failed.
    fn discard(&mut self) -> Result<()>;

    /// A copy of a buffer.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, buffer: Buffer) -> Result<Vec<f64>>;

    /// Overwrites a buffer.
    ///
    /// # Errors
    /// The length differs.
    fn write(&mut self, buffer: Buffer, values: &[f64]) -> Result<()>;

    /// Overwrites a part of a buffer; statistics that are pending are those of before until [`Backend::discard`].
    ///
    /// # Errors
    /// It ends behind the buffer.
    fn write_part(&mut self, buffer: Buffer, start: usize, values: &[f64]) -> Result<()>;
}

/// Whether everything is there that the plan reads, in the precision of the backend, which has tensors in 16 bits or has none.
fn check(plan: &Plan, feed: &Feed, scalar: Scalar, halves: bool) -> Result<()> {
    let fail = |reason: String| Err(Error::Backend(reason));
    if feed.reals.scalar() != scalar {
        return fail(format!("the batch is in {:?}, the backend in {scalar:?}", feed.reals.scalar()));
    }
    if !plan.fits(&feed.counts) {
        return fail(format!("the batch has counts {:?}, the plan room for {:?}", feed.counts, plan.capacity));
    }
    if feed.index_slots.iter().any(|s| s.start > s.end || s.end > feed.indexes.len()) {
        return fail("an index slot lies outside the batch".into());
    }
    for tensor in &plan.graph.tensors {
        if tensor.element == Element::Half && !halves {
            return fail(format!("the plan has '{}' in 16 bits, the backend has none", tensor.name));
        }
        if let Place::Input(slot) = tensor.place {
            let need = tensor.rows.resolve(&feed.counts) * tensor.width;
            let have = feed.real_slots.get(slot).filter(|s| s.end <= feed.reals.len()).map_or(0, |s| s.len());
            if have < need {
                return fail(format!("input '{}' needs {need} numbers and has {have}", tensor.name));
            }
        }
    }
    Ok(())
}

/// Results of a node that should be finite; metrics need not.
fn watched(node: &Node) -> impl Iterator<Item = &TensorId> {
    let watched = !matches!(node.op, Op::Metrics { .. });
    node.outputs.iter().flatten().filter(move |_| watched)
}

/// `values.len()` elements from `start` on of a buffer of `len`.
fn part(buffer: Buffer, len: usize, start: usize, values: &[f64]) -> Result<std::ops::Range<usize>> {
    let end = start.checked_add(values.len()).filter(|&end| end <= len);
    let end = end.ok_or_else(|| Error::Backend(format!("{buffer:?} holds {len} numbers, not {} from {start} on", values.len())))?;
    Ok(start..end)
}
