//! Losses, and arithmetic of scalars. A loss is a sum over steps, scenarios or rows with a divisor; one block, or several with partial sums.

use super::{
    device::Address,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
};
use crate::{
    error::{Error, Result},
    graph::Op,
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block.
const BLOCK: usize = 256;
/// Most blocks that sum up, a term a thread where there are not too many.
const MOST_BLOCKS: u32 = 128;

/// Divisors, max(count, `least`) + `extra` of what has been counted.
#[derive(Clone, Copy)]
pub struct Divisor {
    pub least: f64,
    pub extra: f64,
}

/// The count, or 1.
pub const MEAN: Divisor = Divisor { least: 1.0, extra: 0.0 };

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LossOutput {
    step: Address,
    y: Reference,
    partials: Address,
    least: f64,
    extra: f64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LossJoin {
    out: LossOutput,
    blocks: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LossGradient {
    step: Address,
    dy: Reference,
    dx: Reference,
    partials: Address,
    least: f64,
    extra: f64,
    blocks: i32,
    accumulate: i32,
}

/// Where a loss goes, and what it is of. Both are whole words of 8 bytes: nothing lies between them.
#[repr(C, packed)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments<To, Of> {
    to: To,
    of: Of,
}

/// Blocks that sum up so many terms.
fn sum_blocks(terms: usize) -> u32 {
    blocks(terms, BLOCK).min(MOST_BLOCKS)
}

/// The sum of a loss over `terms` terms by `kernel`.
pub fn forward<Of: Pod>(r: &mut Recorder, kernel: &str, terms: usize, divisor: Divisor, of: Of) {
    let blocks = sum_blocks(terms);
    let partials = r.lasting_scratch(4 * blocks as usize);
    r.counts.insert(r.node.stream, (partials, blocks as usize));
    let Divisor { least, extra } = divisor;
    let to = LossOutput { step: r.step(), y: r.output(0), partials, least, extra };
    r.launch(kernel, [blocks, 1, 1], BLOCK as u32, 0, &Arguments { to, of });
    if blocks > 1 {
        r.launch("loss_join", [1, 1, 1], 128, 0, &LossJoin { out: to, blocks: blocks as i32, pad: 0 });
    }
}

/// The gradient of operand 0 by `kernel`, of which `blocks` blocks have work. What the forward pass has counted makes the divisor.
pub fn backward<Of: Pod>(r: &mut Recorder, kernel: &str, blocks: u32, divisor: Divisor, of: Of) {
    let Some((dx, accumulate)) = r.dx(0) else { return };
    let Divisor { least, extra } = divisor;
    let (partials, count) = r.counts.get(&r.node.stream).copied().unwrap_or_default();
    let accumulate = i32::from(accumulate);
    let to = LossGradient { step: r.step(), dy: r.dy(), dx, partials, least, extra, blocks: count as i32, accumulate };
    r.launch(kernel, [blocks, 1, 1], BLOCK as u32, 0, &Arguments { to, of });
}

/// Most scalars of an operation.
const MOST_SCALARS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Scalars {
    step: Address,
    x: [Reference; MOST_SCALARS],
    dx: [Reference; MOST_SCALARS],
    y: Reference,
    factor: f64,
    count: i32,
    accumulate: i32,
}

/// Launches a kernel of scalars.
fn scalars(r: &mut Recorder, kernel: &str, y: Reference, factor: f64) -> Result<()> {
    let count = r.node.operands.len();
    if count > MOST_SCALARS {
        return Err(Error::Backend(format!("{count} operands are more than {MOST_SCALARS}")));
    }
    let none = [Reference::none(); MOST_SCALARS];
    let mut arguments = Scalars { step: r.step(), x: none, dx: none, y, factor, count: count as i32, accumulate: 0 };
    for (x, id) in arguments.x.iter_mut().zip(&r.node.inputs[..count]) {
        *x = id.map_or(Reference::none(), |id| r.reference(id));
    }
    if r.node.pass == crate::graph::Pass::Backward {
        for (i, (dx, accumulate)) in (0..count).filter_map(|i| Some((i, r.dx(i)?))) {
            arguments.dx[i] = dx;
            arguments.accumulate |= i32::from(accumulate) << i;
        }
    }
    r.launch(kernel, [1, 1, 1], 128, 0, &arguments);
    Ok(())
}

/// y = Σ x.
pub fn sum_forward(r: &mut Recorder) -> Result<()> {
    scalars(r, "sum_forward", r.output(0), 1.0)
}

pub fn sum_backward(r: &mut Recorder) -> Result<()> {
    scalars(r, "sum_backward", r.dy(), 1.0)
}

/// y = the largest x.
pub fn largest_forward(r: &mut Recorder) -> Result<()> {
    scalars(r, "largest_forward", r.output(0), 1.0)
}

pub fn largest_backward(r: &mut Recorder) -> Result<()> {
    scalars(r, "largest_backward", r.dy(), 1.0)
}

/// y = factor x.
pub fn scale_forward(r: &mut Recorder, factor: f64) -> Result<()> {
    scalars(r, "scale_forward", r.output(0), factor)
}

pub fn scale_backward(r: &mut Recorder, factor: f64) -> Result<()> {
    scalars(r, "scale_backward", r.dy(), factor)
}

/// Rows of operand 0 at capacity times `terms`.
pub fn terms(r: &Recorder, each: usize) -> usize {
    r.capacity(r.node.input(0)) * each
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SmoothL1 {
    x: Reference,
    target: Reference,
    valid: Reference,
    rows: RowCount,
    steps: i32,
    channels: i32,
    target_channels: i32,
    pad: i32,
}

impl SmoothL1 {
    fn new(r: &Recorder, steps: usize, channels: usize, target_channels: usize) -> Self {
        let [x, target, valid] = [0, 1, 2].map(|i| r.input(i));
        let [steps, channels, target_channels] = [steps, channels, target_channels].map(|n| n as i32);
        Self { x, target, valid, rows: r.rows(r.node.input(0)), steps, channels, target_channels, pad: 0 }
    }
}

/// Mean over valid steps of the distance.
pub fn smooth_l1_forward(r: &mut Recorder, steps: usize, channels: usize, target_channels: usize) -> Result<()> {
    let of = SmoothL1::new(r, steps, channels, target_channels);
    forward(r, "smooth_l1_forward", terms(r, steps), MEAN, of);
    Ok(())
}

pub fn smooth_l1_backward(r: &mut Recorder, steps: usize, channels: usize, target_channels: usize) -> Result<()> {
    let of = SmoothL1::new(r, steps, channels, target_channels);
    let elements = blocks(terms(r, steps * channels), BLOCK);
    backward(r, "smooth_l1_backward", elements, MEAN, of);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct UnitNorm {
    x: Reference,
    rows: RowCount,
    steps: i32,
    channels: i32,
}

impl UnitNorm {
    fn new(r: &Recorder, steps: usize, channels: usize) -> Self {
        Self { x: r.input(0), rows: r.rows(r.node.input(0)), steps: steps as i32, channels: channels as i32 }
    }
}

/// Mean of | ‖(c2, c3)‖ - 1 |.
pub fn unit_norm_forward(r: &mut Recorder, steps: usize, channels: usize) -> Result<()> {
    let of = UnitNorm::new(r, steps, channels);
    forward(r, "unit_norm_forward", terms(r, steps), MEAN, of);
    Ok(())
}

pub fn unit_norm_backward(r: &mut Recorder, steps: usize, channels: usize) -> Result<()> {
    let of = UnitNorm::new(r, steps, channels);
    backward(r, "unit_norm_backward", blocks(terms(r, steps), BLOCK), MEAN, of);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CrossEntropy {
    x: Reference,
    segments: IndexReference,
    target: IndexReference,
    rows: RowCount,
}

impl CrossEntropy {
    fn new(r: &Recorder, segments: usize, target: usize) -> Self {
        Self { x: r.input(0), segments: r.index(segments), target: r.index(target), rows: r.rows(r.node.input(0)) }
    }
}

/// Mean over scenarios of log Σ exp(logits) - logit[target]; in one block.
pub fn cross_entropy_forward(r: &mut Recorder, segments: usize, target: usize) -> Result<()> {
    let of = CrossEntropy::new(r, segments, target);
    forward(r, "cross_entropy_forward", 1, MEAN, of);
    Ok(())
}

pub fn cross_entropy_backward(r: &mut Recorder, segments: usize, target: usize) -> Result<()> {
    let of = CrossEntropy::new(r, segments, target);
    backward(r, "cross_entropy_backward", 1, MEAN, of);
    Ok(())
}

/// Most discs along the ego.
const MOST_DISCS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Collision {
    x: Reference,
    map: Reference,
    discs: [f64; MOST_DISCS],
    radius: f64,
    resolution: f64,
    rows: RowCount,
    steps: i32,
    channels: i32,
    size: i32,
    count: i32,
}

/// The number of discs that the hinge holds, and a little.
const HELD: Divisor = Divisor { least: 0.0, extra: 1e-6 };

impl Collision {
    /// With the number of steps at capacity.
    fn new(r: &Recorder) -> Result<(Self, usize)> {
        let Op::Collision { steps, channels, size, discs, radius, resolution } = &r.node.op else { unreachable!("collision") };
        if discs.len() > MOST_DISCS {
            return Err(Error::Backend(format!("{} discs are more than {MOST_DISCS}", discs.len())));
        }
        let mut of = Self {
            x: r.input(0),
            map: r.input(1),
            discs: [0.0; MOST_DISCS],
            radius: *radius,
            resolution: *resolution,
            rows: r.rows(r.node.input(0)),
            steps: *steps as i32,
            channels: *channels as i32,
            size: *size as i32,
            count: discs.len() as i32,
        };
        of.discs[..discs.len()].copy_from_slice(discs);
        Ok((of, terms(r, *steps)))
    }
}

/// Σ cost / (number + 1e-6) over the discs that the hinge holds.
pub fn collision_forward(r: &mut Recorder) -> Result<()> {
    let (of, terms) = Collision::new(r)?;
    forward(r, "collision_forward", terms, HELD, of);
    Ok(())
}

pub fn collision_backward(r: &mut Recorder) -> Result<()> {
    let (of, terms) = Collision::new(r)?;
    backward(r, "collision_backward", blocks(terms, BLOCK), HELD, of);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TripletLoss {
    x: Reference,
    triplets: IndexReference,
    sharpness: f64,
    rows: RowCount,
    width: i32,
    pad: i32,
}

impl TripletLoss {
    fn new(r: &Recorder, triplets: usize, temperature: f64) -> Self {
        let id = r.node.input(0);
        Self {
            x: r.input(0),
            triplets: r.index(triplets),
            sharpness: 1.0 / temperature,
            rows: r.rows(id),
            width: r.width(id) as i32,
            pad: 0,
        }
    }
}

/// Mean of log(1 + exp(negative - positive)); in one block.
pub fn triplet_forward(r: &mut Recorder, triplets: usize, temperature: f64) -> Result<()> {
    let of = TripletLoss::new(r, triplets, temperature);
    forward(r, "triplet_forward", 1, MEAN, of);
    Ok(())
}

pub fn triplet_backward(r: &mut Recorder, triplets: usize, temperature: f64) -> Result<()> {
    let of = TripletLoss::new(r, triplets, temperature);
    backward(r, "triplet_backward", blocks(terms(r, 32), BLOCK), MEAN, of);
    Ok(())
}
