//! Every operation with its formula. Forward and backward stand side by side in the backends under the same names.
//!
//! `x` is the first operand and `y` the result unless stated; `dy` is the gradient of the result. An operation that has
//! parameters adds to their gradients in its backward pass.

use super::{Matrix, Vector};
use std::ops::Range;

/// What is applied to a result before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// x Φ(x) with the exact normal distribution function.
    Gelu,
}

/// Which row of the second operand belongs to row i of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMap {
    /// i.
    Same,
    /// i modulo the number.
    Periodic(usize),
    /// i divided by the number.
    Grouped(usize),
}

/// Multi-head attention over segments of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Number of heads; head h reads columns `h * head_width ..` after each operand's offset.
    pub heads: usize,
    /// Width of a head; scores are scaled by `1 / sqrt(head_width)`.
    pub head_width: usize,
    /// Column at which queries, keys and values start in their operands.
    pub offsets: [usize; 3],
    /// Index slot with six numbers a segment: query start, count, stride; key start, count, stride (rows).
    /// The result has the rows of the queries. A query belongs to one segment; a key may belong to several.
    /// Segments without keys give zero.
    pub segments: usize,
    /// Dropout rate of the attention weights (after the softmax).
    pub dropout: f64,
    /// Masks each key from this position on with this probability, anew for every segment (state dropout).
    pub key_dropout: Option<(usize, f64)>,
    /// Given n: segment i is rows i * n .. i * n + n, of queries and of keys, and the list says just that.
    pub group: Option<usize>,
}

/// Most columns of the input of [`Op::LinearNorm`].
pub const MOST_MOMENTS: usize = 16;

/// What [`Op::LinearNorm`] keeps, as places in a row: y = activation(x W'ᵀ + b').
#[derive(Debug, Clone)]
pub struct Folded {
    /// W' `[n, k]`, at the start.
    pub weight: Range<usize>,
    /// b' `[n]`.
    pub bias: Range<usize>,
    /// 1 / sqrt(var + 1e-5) `[n]`.
    pub scale: Range<usize>,
    /// Mean of the rows of x `[k]`; of no meaning with running statistics, as is the next.
    pub mean: Range<usize>,
    /// Their covariance `[k, k]`.
    pub covariance: Range<usize>,
}

impl Folded {
    /// For n columns of y and k of x.
    pub fn new(n: usize, k: usize) -> Self {
        let mut end = 0;
        let [weight, bias, scale, mean, covariance] = [n * k, n, n, k, k * k].map(|len| {
            end += len;
            end - len..end
        });
        Self { weight, bias, scale, mean, covariance }
    }
}

/// Most candidates of a scenario that a measure looks at.
pub const MOST_CANDIDATES: usize = 8;

/// Whose predicted trajectories a measure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The ego of each scenario: so many of its most probable candidates, at most [`MOST_CANDIDATES`], of which the best counts.
    Ego(usize),
    /// Each agent.
    Agent,
    /// The agents of each scenario together.
    Agents,
}

/// How far a predicted pose is from the true one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deviation {
    /// Metres between them.
    Distance,
    /// 1 where these are more than so many, or no number; else 0.
    Beyond(f64),
    /// Radians between their headings: the absolute difference of angles in (-π, π], wrapped to (-π, π].
    Turn,
}

/// A quantity that [`Op::Metrics`] sums up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// What has one value each.
    pub subject: Subject,
    /// What it is.
    pub deviation: Deviation,
    /// At the last step; else the mean over steps.
    pub last: bool,
}

/// Whether the tensor of a number is read.
pub type Reads = fn(usize) -> bool;

/// Every operation.
#[allow(missing_docs, reason = "the formulas name the fields")]
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// y = activation(x Wᵀ + b). W `[out, in]` may be part of a larger matrix. With [`Activation::Gelu`] the second output
    /// keeps the value before the activation.
    Linear { weight: Matrix, bias: Option<Vector>, activation: Activation },
    /// y = activation((x - mean) / sqrt(var + 1e-5) * gamma + beta) along a row. Second output `[rows, 2]`: mean, 1/sqrt(..).
    LayerNorm { gamma: Vector, beta: Vector, activation: Activation },
    /// As LayerNorm along a column, over all rows; `running` are the offsets of mean and variance in the statistics.
    /// In training: batch statistics (biased variance), and the pending statistics take 0.9 old + 0.1 new (unbiased
    /// variance). Otherwise: running statistics. Without rows nothing happens. Second output `[2, width]`: mean, 1/sqrt(..).
    BatchNorm { gamma: Vector, beta: Vector, running: [Vector; 2], train: bool, activation: Activation },
    /// BatchNorm of x Wᵀ + b for an input x, `[rows, k]` with k up to [`MOST_MOMENTS`], as one product: its statistics follow from the mean and
    /// the covariance of x. Second output, in one row: [`Folded`].
    LinearNorm { weight: Matrix, bias: Vector, gamma: Vector, beta: Vector, running: [Vector; 2], train: bool, activation: Activation },
    /// Column `channel` v of x: y = [cos(2π v f), sin(2π v f), v] with the frequencies f `[bands]`. x has no gradient.
    Fourier { frequencies: Vector, channel: usize },
    /// `y[i]` = `x[index[i]]`.
    Gather { index: usize },
    /// Operands one below the other.
    Concat,
    /// Largest value of each column in each segment of consecutive rows of x Wᵀ + b, which are not kept. Index slot: start, count, flag per
    /// segment; a set flag, or no row, adds a row of zeros to the comparison. Second output (index): row of the maximum, -1 for the zeros.
    LinearMax { weight: Matrix, bias: Vector, segments: usize },
    /// LinearMax of BatchNorm of x with ReLU, whose rows are not kept either. Outputs: y, rows of the maxima (index), statistics `[2, width]`.
    NormLinearMax { gamma: Vector, beta: Vector, running: [Vector; 2], train: bool, weight: Matrix, bias: Vector, segments: usize },
    /// `y[i]` = (`x[i]` Aᵀ + a) Bᵀ + b + `z[index[i]]`, z being the second operand: two linear layers with nothing between them, as
    /// one product with B A. Second output, in one row: B A, then B a + b.
    LinearPair { inner: Matrix, inner_bias: Vector, outer: Matrix, outer_bias: Vector, index: usize },
    /// `y[i]` = `x[i]` + `z[map(i)]`, z being the second operand.
    Add { map: RowMap },
    /// `y[i * M + m]` = `x[i]` + `z[m]`, M being the rows of the second operand.
    Outer,
    /// y = x * mask / (1 - rate), each element kept with probability 1 - rate.
    Dropout { rate: f64 },
    /// y = x + z * path * mask. `mask` drops elements of z as Dropout does; `path` drops whole groups of rows with
    /// probability `drop_path`, kept ones are scaled by 1 / (1 - drop_path). The group of row i is i / `group`, or the i-th
    /// entry of index slot `group_index`.
    Residual { dropout: f64, drop_path: f64, group: usize, group_index: Option<usize> },
    /// Operands: query, key, value matrices (which may be one). Second output `[rows, heads]`: log of the softmax
    /// denominators (maximum included), the largest number of single precision where there are no keys.
    Attention(Attention),
    /// 1-D neighborhood attention in sequences of `length` consecutive rows. x `[n * length, 3 * C]` holds q, k, v with heads
    /// inside each. Token i sees `window` tokens from clamp(i - window / 2, 0, length - window) on. Score of token j:
    /// q·k / sqrt(C / heads) + `bias[head, j - i + window - 1]`; `bias` is `[heads, 2 * window - 1]`.
    Neighborhood { length: usize, heads: usize, window: usize, bias: Vector },
    /// Rows of a 1-D convolution with kernel 3 and padding 1: for each sequence of `length` rows and each of `positions` p,
    /// y = for c in columns, for t in 0..3: `x[p - 1 + t][c]`, zero outside.
    Unfold { length: usize, positions: Vec<usize> },
    /// For each sequence of `length` rows, output row o = sum over (i, w) of `weights[o]` of w * `x[i]`.
    Mix { length: usize, weights: Vec<Vec<(usize, f64)>> },
    /// Row i of operand k becomes row i * K + k; K operands.
    Interleave,
    /// K operands `[rows, steps * 2]` of pairs become `[rows, steps * 2K]`: pair s of operand k goes to columns s * 2K + 2k ...
    JoinSteps { steps: usize },
    /// Prediction `[n, steps * channels]`, target (input) `[>= n, steps * target_channels]`, valid (input) `[>= n, steps]`:
    /// sum over valid steps of the smooth L1 distance (beta 1) summed over `channels`, divided by the number of valid
    /// steps; 0 without any. Result `[1, 1]`.
    SmoothL1 { steps: usize, channels: usize, target_channels: usize },
    /// Mean over rows and steps of | ‖(c2, c3)‖ - 1 | of `[n, steps * channels]`. Result `[1, 1]`.
    UnitNorm { steps: usize, channels: usize },
    /// Logits `[rows, 1]`; index slot `segments`: start, count per scenario; index slot `target`: the row that is right.
    /// Mean of the negative log softmax; 0 without scenario. Result `[1, 1]`.
    CrossEntropy { segments: usize, target: usize },
    /// Trajectory `[n, steps * channels]` (x, y, cos, sin, ..) and signed distance (input) `[>= n, size * size]`: the hinge
    /// loss of the discs that cover the ego; see `objectives::collision`. Result `[1, 1]`.
    Collision { steps: usize, channels: usize, size: usize, discs: Vec<f64>, radius: f64, resolution: f64 },
    /// Hidden `[n, D]`; index slot: anchor, positive, negative rows per triplet. Mean of the negative log softmax of the
    /// cosine similarities over `temperature`; 0 without any. Result `[1, 1]`.
    Triplet { triplets: usize, temperature: f64 },
    /// Prediction `[n, steps * 6]`, target (input) `[>= n, steps * 6]`, valid (input) `[>= n, steps]`, weight (input) `[>= n, 1]`; channels
    /// x, y, cos, sin, ..; θ = atan2(sin, cos), without gradient where both are 0. Sum over rows and valid steps i of
    /// weight · e^(-i / `steps`) (where `decay`) · (`factors[0]` (|Δx|ᵖ + |Δy|ᵖ) + `factors[1]` |Δθ|ᵠ), p and q being 2 where `square`, else 1.
    /// Result `[1, 1]`.
    Imitation { steps: usize, square: [bool; 2], factors: [f64; 2], decay: bool },
    /// Sum of scalars. Result `[1, 1]`.
    Sum,
    /// Largest of scalars, the first of equals. Result `[1, 1]`.
    Largest,
    /// Scalar times `factor`. Result `[1, 1]`.
    Scale { factor: f64 },
    /// Operands: candidates `[n, steps * 6]` (x, y, cos, sin, ..), their logits `[n, 1]`, predictions of agents `[a, steps * 6]`; inputs: target
    /// of each ego `[>= scenarios, steps * 6]`, of each agent `[a, steps * 6]`, and where that is known `[a, steps]`. Index slots: `candidates`:
    /// first row and number of each scenario's; `tokens`: of each agent; `scenarios`: of each token. Sum and count of every measure.
    /// An ego counts at every step; without candidates its value is infinite (1 of [`Deviation::Beyond`]). Agents count where the target is
    /// known, one by one with Σ / (steps + 1e-6) as its mean, or with those of their scenario as the mean of all these steps. Result
    /// `[1, 2 * measures]`, without gradient.
    Metrics { steps: usize, candidates: usize, tokens: usize, scenarios: usize, measures: Vec<Measure> },
}

impl Op {
    /// Short name, the same as that of its kernels.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Linear { .. } => "linear",
            Op::LayerNorm { .. } => "layer_norm",
            Op::BatchNorm { .. } => "batch_norm",
            Op::LinearNorm { .. } => "linear_norm",
            Op::Fourier { .. } => "fourier",
            Op::Gather { .. } => "gather",
            Op::Concat => "concat",
            Op::LinearMax { .. } => "linear_max",
            Op::NormLinearMax { .. } => "norm_linear_max",
            Op::LinearPair { .. } => "linear_pair",
            Op::Add { .. } => "add",
            Op::Outer => "outer",
            Op::Dropout { .. } => "dropout",
            Op::Residual { .. } => "residual",
            Op::Attention(_) => "attention",
            Op::Neighborhood { .. } => "neighborhood",
            Op::Unfold { .. } => "unfold",
            Op::Mix { .. } => "mix",
            Op::Interleave => "interleave",
            Op::JoinSteps { .. } => "join_steps",
            Op::SmoothL1 { .. } => "smooth_l1",
            Op::UnitNorm { .. } => "unit_norm",
            Op::CrossEntropy { .. } => "cross_entropy",
            Op::Collision { .. } => "collision",
            Op::Triplet { .. } => "triplet",
            Op::Imitation { .. } => "imitation",
            Op::Sum => "sum",
            Op::Largest => "largest",
            Op::Scale { .. } => "scale",
            Op::Metrics { .. } => "metrics",
        }
    }

    /// What the backward pass reads: whether operand i, and whether output i.
    pub fn backward_reads(&self) -> (Reads, Reads) {
        const ALL: Reads = |_| true;
        const NONE: Reads = |_| false;
        const FIRST: Reads = |i| i == 0;
        const KEPT: Reads = |i| i == 1;
        const BEHIND: Reads = |i| i > 0;
        match self {
            Op::Linear { activation: Activation::None, .. } => (ALL, NONE),
            Op::Linear { activation: Activation::Relu, .. } => (ALL, FIRST),
            Op::Linear { activation: Activation::Gelu, .. } => (ALL, KEPT),
            Op::LayerNorm { .. } | Op::BatchNorm { .. } => (ALL, KEPT),
            Op::Fourier { .. } => (ALL, FIRST),
            Op::LinearMax { .. } => (ALL, KEPT),
            Op::NormLinearMax { .. } => (ALL, BEHIND),
            Op::LinearPair { .. } => (FIRST, KEPT),
            Op::Attention(_) => (ALL, ALL),
            Op::Neighborhood { .. } => (ALL, NONE),
            Op::LinearNorm { .. } => (ALL, ALL),
            Op::SmoothL1 { .. }
            | Op::UnitNorm { .. }
            | Op::CrossEntropy { .. }
            | Op::Collision { .. }
            | Op::Triplet { .. }
            | Op::Imitation { .. }
            | Op::Largest => (ALL, NONE),
            Op::Gather { .. }
            | Op::Concat
            | Op::Add { .. }
            | Op::Outer
            | Op::Dropout { .. }
            | Op::Residual { .. }
            | Op::Unfold { .. }
            | Op::Mix { .. }
            | Op::Interleave
            | Op::JoinSteps { .. }
            | Op::Sum
            | Op::Scale { .. }
            | Op::Metrics { .. } => (NONE, NONE),
        }
    }

    /// What computing the result again reads, as for [`Op::backward_reads`], where that is cheaper than to keep it.
    pub fn again_reads(&self) -> Option<(Reads, Reads)> {
        match self {
            Op::Linear { activation: Activation::Gelu, .. } => Some((|_| false, |i| i == 1)),
            Op::BatchNorm { .. } => Some((|_| true, |i| i == 1)),
            _ => None,
        }
    }

    /// Whether operand i has a gradient at all (targets and values of the feed do not).
    pub fn differentiable(&self, operand: usize) -> bool {
        match self {
            Op::Fourier { .. } | Op::LinearNorm { .. } | Op::Metrics { .. } => false,
            Op::SmoothL1 { .. } | Op::Collision { .. } | Op::Imitation { .. } => operand == 0,
            _ => true,
        }
    }

    /// Offsets and lengths of the parameters that the operation reads itself.
    pub fn parameters(&self) -> Vec<Vector> {
        match self {
            Op::Linear { weight, bias, .. } => weight.rows_as_vectors().chain(*bias).collect(),
            Op::LinearMax { weight, bias, .. } => weight.rows_as_vectors().chain([*bias]).collect(),
            Op::NormLinearMax { gamma, beta, weight, bias, .. } => weight.rows_as_vectors().chain([*gamma, *beta, *bias]).collect(),
            Op::LinearPair { inner, inner_bias, outer, outer_bias, .. } => {
                inner.rows_as_vectors().chain(outer.rows_as_vectors()).chain([*inner_bias, *outer_bias]).collect()
            }
            Op::LinearNorm { weight, bias, gamma, beta, .. } => weight.rows_as_vectors().chain([*bias, *gamma, *beta]).collect(),
            Op::LayerNorm { gamma, beta, .. } | Op::BatchNorm { gamma, beta, .. } => vec![*gamma, *beta],
            Op::Fourier { frequencies, .. } => vec![*frequencies],
            Op::Neighborhood { bias, .. } => vec![*bias],
            _ => Vec::new(),
        }
    }
}
