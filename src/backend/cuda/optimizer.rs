//! Scaling and clipping of the whole gradient and the optimiser's step, without the host in between.

use super::device::{Address, Launch};
use crate::{
    backend::{Clip, MOST_UNDER_WAY, Rule, Update},
    error::{Error, Result},
    graph::Vector,
};
use bytemuck::{Pod, Zeroable};

/// Where an update reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    pub parameters: Address,
    pub gradients: Address,
    pub moments: [Address; 2],
    pub statistics: Address,
    pub pending: Address,
    /// The [`UpdateBlock`].
    pub block: Address,
    /// [`MOST_NUMBERS`](crate::graph::MOST_NUMBERS) of the last run, and behind them an [`Outcome`].
    pub numbers: Address,
    pub outcome: Address,
    /// Room for [`partial_bytes`] of any content.
    pub partials: Address,
    /// A [`Block`](super::loss_scale::Block); 0 if the loss is not scaled.
    pub loss_scale: Address,
    /// Elements of the parameters, and of the statistics.
    pub len: usize,
    pub statistics_len: usize,
}

/// Most runs of parameters that decay.
pub const MOST_DECAYED: usize = 512;

/// What differs from update to update; mirrors `UpdateBlock` of `optimizer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct UpdateBlock {
    scale: f64,
    most_norm: f64,
    bound: f32,
    keep: f32,
    decay: f32,
    factors: [[f32; 7]; MOST_UNDER_WAY + 1],
    decayed: i32,
    skipped: i32,
    ranges: [[i32; 2]; MOST_DECAYED],
}

/// What an update did; mirrors `Outcome` of `optimizer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct Outcome {
    /// Norm of the whole scaled gradient before clipping.
    pub norm: f64,
    /// 0 if the norm was not finite and nothing was changed.
    pub applied: i32,
    /// Factor that the loss's gradient had.
    pub loss_scale: f32,
    /// Updates before it that were not applied.
    pub skipped: i32,
    /// A loss of the gathered gradients is not finite.
    pub spoiled: i32,
}

impl Outcome {
    /// As before the first update.
    pub const START: Self = Self { norm: 0.0, applied: 1, loss_scale: 1.0, skipped: 0, spoiled: 0 };

    /// Updates so far that were not applied.
    pub fn all_skipped(&self) -> i32 {
        self.skipped + i32::from(self.applied == 0)
    }
}

impl UpdateBlock {
    /// Of an update; `decayed` are the parts that decay, in the order of their places. So far `skipped` are known not to be applied.
    ///
    /// # Errors
    /// More parts than [`MOST_DECAYED`], or they are in another order.
    pub fn new(update: &Update, decayed: &[Vector], skipped: i32) -> Result<Self> {
        if decayed.len() > MOST_DECAYED {
            return Err(Error::Backend(format!("{} decayed parts of the parameters are more than {MOST_DECAYED}", decayed.len())));
        }
        if !decayed.is_sorted_by(|a, b| a.range().end <= b.offset) {
            return Err(Error::Backend("decayed parts of the parameters overlap or are out of order".into()));
        }
        let (most_norm, bound) = match update.clip {
            Some(Clip::Norm(most)) => (most, f64::INFINITY),
            Some(Clip::Value(most)) => (f64::INFINITY, most),
            None => (f64::INFINITY, f64::INFINITY),
        };
        let (keep, decay) = match update.rule {
            Rule::AdamW { .. } => (1.0 - update.learning_rate * update.weight_decay, 0.0),
            Rule::Adam { .. } | Rule::Sgd { .. } => (1.0, update.weight_decay),
        };
        let mut ranges = [[0; 2]; MOST_DECAYED];
        for (to, part) in ranges.iter_mut().zip(decayed) {
            *to = [part.offset, part.range().end].map(|n| n as i32);
        }
        Ok(Self {
            scale: update.scale,
            most_norm,
            bound: bound as f32,
            keep: keep as f32,
            decay: decay as f32,
            factors: [0, 1, 2].map(|less| factors(update, update.count.saturating_sub(less).max(1)).map(|f| f as f32)),
            decayed: decayed.len() as i32,
            skipped,
            ranges,
        })
    }
}

/// The numbers of a rule in update `count`, as its kernel has them.
fn factors(update: &Update, count: u64) -> [f64; 7] {
    match update.rule {
        Rule::Adam { beta: [b1, b2], epsilon } | Rule::AdamW { beta: [b1, b2], epsilon } => {
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            let (fix1, fix2) = (1.0 - b1.powi(count), 1.0 / (1.0 - b2.powi(count)).sqrt());
            [b1, b2, 1.0 - b1, 1.0 - b2, update.learning_rate / fix1, fix2, epsilon]
        }
        Rule::Sgd { momentum, dampening, nesterov } => {
            // The first step takes the gradient as it is, and so does every one without momentum.
            let (keep, take) = if count == 1 || momentum == 0.0 { (0.0, 1.0) } else { (momentum, 1.0 - dampening) };
            let [direct, moment] = if nesterov { [1.0, momentum] } else { [0.0, 1.0] };
            [keep, take, direct, moment, update.learning_rate, 0.0, 0.0]
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Optimizer {
    update: Address,
    parameters: Address,
    gradients: Address,
    first: Address,
    second: Address,
    statistics: Address,
    pending: Address,
    outcome: Address,
    partials: Address,
    loss_scale: Address,
    length: i32,
    statistics_length: i32,
    norm_blocks: i32,
    pad: i32,
}

/// Threads of a block, each with four elements at a time.
const BLOCK: usize = 256;
/// Most blocks: four for each of a large device's multiprocessors.
const MOST_BLOCKS: usize = 528;

/// Blocks for `len` parameters.
fn blocks(len: usize) -> usize {
    len.div_ceil(4 * BLOCK).clamp(1, MOST_BLOCKS)
}

/// Bytes for the partial sums of the norm of `len` gradients.
pub fn partial_bytes(len: usize) -> usize {
    8 * blocks(len)
}

/// The launches of an update by a rule: norm of the gradient, scale and clip, the rule, gradients to zero; statistics become the
/// pending ones. Where the norm is not finite: gradients to zero, pending statistics become those of before. The loss's factor goes on.
pub fn launches(buffers: &Buffers, kernel: &str) -> Vec<Launch> {
    let blocks = blocks(buffers.len);
    let arguments = Optimizer {
        update: buffers.block,
        parameters: buffers.parameters,
        gradients: buffers.gradients,
        first: buffers.moments[0],
        second: buffers.moments[1],
        statistics: buffers.statistics,
        pending: buffers.pending,
        outcome: buffers.outcome,
        partials: buffers.partials,
        loss_scale: buffers.loss_scale,
        length: buffers.len as i32,
        statistics_length: buffers.statistics_len as i32,
        norm_blocks: blocks as i32,
        pad: 0,
    };
    let mut launches: Vec<_> =
        ["gradient_norm", kernel].map(|kernel| Launch::new(kernel, [blocks as u32, 1, 1], BLOCK as u32, 0, &arguments)).into();
    if buffers.loss_scale != 0 {
        launches.push(Launch::new("advance_loss_scale", [1, 1, 1], 32, 0, &arguments));
    }
    launches
}
