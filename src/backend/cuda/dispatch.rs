//! Which launches a node becomes.

use super::{
    attention, dropout, fourier, group_attention, imitation,
    linear::{self, Pair},
    linear_max, linear_norm, losses, metrics, neighborhood, norm, parts,
    recorder::Recorder,
    rows, sequences,
};
use crate::{
    error::{Error, Result},
    graph::{Op, Pass},
};

/// Appends the launches of the recorder's node.
pub fn record(r: &mut Recorder) -> Result<()> {
    match r.node.pass {
        Pass::Forward => forward(r),
        Pass::Backward => backward(r),
        Pass::Again => again(r),
    }
}

/// Computes a node's result.
fn forward(r: &mut Recorder) -> Result<()> {
    match &r.node.op {
        Op::Linear { weight, bias, activation } => linear::forward(r, *weight, *bias, *activation),
        Op::LayerNorm { gamma, beta, activation } => norm::layer_forward(r, *gamma, *beta, *activation),
        Op::BatchNorm { gamma, beta, running, train, activation } => norm::batch_forward(r, [*gamma, *beta], *running, *train, *activation),
        Op::LinearNorm { .. } => linear_norm::forward(r),
        Op::Fourier { frequencies, channel } => fourier::forward(r, *frequencies, *channel),
        Op::Gather { index } => rows::gather_forward(r, *index),
        Op::Concat => parts::concat_forward(r),
        Op::LinearMax { weight, bias, segments } => linear_max::forward(r, *weight, *bias, *segments),
        Op::NormLinearMax { .. } => linear_max::norm_forward(r),
        Op::LinearPair { inner, inner_bias, outer, outer_bias, index } => {
            let pair = Pair { inner: *inner, inner_bias: *inner_bias, outer: *outer, outer_bias: *outer_bias };
            linear::pair_forward(r, pair, *index)
        }
        Op::Add { map } => rows::add_forward(r, *map),
        Op::Outer => rows::outer_forward(r),
        Op::Dropout { rate } => dropout::forward(r, *rate),
        Op::Residual { dropout, drop_path, group, group_index } => dropout::residual_forward(r, *dropout, *drop_path, *group, *group_index),
        Op::Attention(spec) if group_attention::is_one(&r.plan.graph, r.node, spec) => group_attention::forward(r, spec),
        Op::Attention(spec) => attention::forward(r, spec),
        Op::Neighborhood { length, heads, window, bias } => neighborhood::forward(r, *length, *heads, *window, *bias),
        Op::Unfold { length, positions } => sequences::unfold_forward(r, *length, positions),
        Op::Mix { length, weights } => sequences::mix_forward(r, *length, weights),
        Op::Interleave => parts::interleave_forward(r),
        Op::JoinSteps { .. } => parts::join_steps_forward(r),
        Op::SmoothL1 { steps, channels, target_channels } => losses::smooth_l1_forward(r, *steps, *channels, *target_channels),
        Op::UnitNorm { steps, channels } => losses::unit_norm_forward(r, *steps, *channels),
        Op::CrossEntropy { segments, target } => losses::cross_entropy_forward(r, *segments, *target),
        Op::Collision { .. } => losses::collision_forward(r),
        Op::Triplet { triplets, temperature } => losses::triplet_forward(r, *triplets, *temperature),
        Op::Imitation { .. } => imitation::forward(r),
        Op::Sum => losses::sum_forward(r),
        Op::Largest => losses::largest_forward(r),
        Op::Scale { factor } => losses::scale_forward(r, *factor),
        Op::Metrics { .. } => metrics::forward(r),
    }
}

/// Computes a node's result from what is kept of it; see [`Op::again_reads`].
fn again(r: &mut Recorder) -> Result<()> {
    match &r.node.op {
        Op::Linear { .. } => linear::gelu_again(r),
        Op::BatchNorm { gamma, beta, activation, .. } => norm::batch_again(r, [*gamma, *beta], *activation),
        op => Err(Error::Backend(format!("results of '{}' are kept", op.name()))),
    }
}

/// Computes the gradients of a node's operands and parameters.
fn backward(r: &mut Recorder) -> Result<()> {
    match &r.node.op {
        Op::Linear { weight, bias, activation } => linear::backward(r, *weight, *bias, *activation),
        Op::LayerNorm { gamma, beta, activation } => norm::layer_backward(r, *gamma, *beta, *activation),
        Op::BatchNorm { gamma, beta, train, activation, .. } => norm::batch_backward(r, [*gamma, *beta], *train, *activation),
        Op::LinearNorm { .. } => linear_norm::backward(r),
        Op::Fourier { frequencies, channel } => fourier::backward(r, *frequencies, *channel),
        Op::Gather { index } => rows::gather_backward(r, *index),
        Op::Concat => parts::concat_backward(r),
        Op::LinearMax { weight, bias, segments } => linear_max::backward(r, *weight, *bias, *segments),
        Op::NormLinearMax { .. } => linear_max::norm_backward(r),
        Op::LinearPair { inner, inner_bias, outer, outer_bias, index } => {
            let pair = Pair { inner: *inner, inner_bias: *inner_bias, outer: *outer, outer_bias: *outer_bias };
            linear::pair_backward(r, pair, *index)
        }
        Op::Add { map } => rows::add_backward(r, *map),
        Op::Outer => rows::outer_backward(r),
        Op::Dropout { rate } => dropout::backward(r, *rate),
        Op::Residual { dropout, drop_path, group, group_index } => {
            dropout::residual_backward(r, *dropout, *drop_path, *group, *group_index)
        }
        Op::Attention(spec) if group_attention::is_one(&r.plan.graph, r.node, spec) => group_attention::backward(r, spec),
        Op::Attention(spec) => attention::backward(r, spec),
        Op::Neighborhood { length, heads, window, bias } => neighborhood::backward(r, *length, *heads, *window, *bias),
        Op::Unfold { length, positions } => sequences::unfold_backward(r, *length, positions),
        Op::Mix { length, weights } => sequences::mix_backward(r, *length, weights),
        Op::Interleave => parts::interleave_backward(r),
        Op::JoinSteps { .. } => parts::join_steps_backward(r),
        Op::SmoothL1 { steps, channels, target_channels } => losses::smooth_l1_backward(r, *steps, *channels, *target_channels),
        Op::UnitNorm { steps, channels } => losses::unit_norm_backward(r, *steps, *channels),
        Op::CrossEntropy { segments, target } => losses::cross_entropy_backward(r, *segments, *target),
        Op::Collision { .. } => losses::collision_backward(r),
        Op::Triplet { triplets, temperature } => losses::triplet_backward(r, *triplets, *temperature),
        Op::Imitation { .. } => imitation::backward(r),
        Op::Sum => losses::sum_backward(r),
        Op::Largest => losses::largest_backward(r),
        Op::Scale { factor } => losses::scale_backward(r, *factor),
        Op::Metrics { .. } => Ok(()),
    }
}
