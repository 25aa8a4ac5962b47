//! What turns hidden rows into trajectories and projections.

use super::layers::mlp_head;
use crate::{
    config::ModelConfig,
    error::Result,
    graph::{Activation, Builder, Parameters, Scope, TensorId},
};

/// Positions, cos and sin of the heading, and velocities side by side in every step: x `[n, D]` -> `[n, F * 6]`.
fn joined(b: &mut Builder, p: &Scope, names: [&str; 3], x: TensorId, config: &ModelConfig) -> Result<TensorId> {
    let mut parts = Vec::with_capacity(names.len());
    for name in names {
        parts.push(mlp_head(b, &p.at(name), x)?); // [n, F * 2]
    }
    b.join_steps(&parts, config.future_steps)
}

/// The agents' futures: x `[A, D]` -> `[A, F * 6]`.
pub fn agent_predictor(b: &mut Builder, p: &Scope, x: TensorId, config: &ModelConfig) -> Result<TensorId> {
    joined(b, p, ["loc_predictor", "yaw_predictor", "vel_predictor"], x, config)
}

/// Trajectories of decoder queries: x `[n, D]` -> `[n, F * 6]`: x, y, cos, sin, vx, vy.
///
/// # Errors
/// [`crate::error::Error::Graph`] if `parameters` are not those of `config`.
pub fn trajectory_heads(b: &mut Builder, parameters: &Parameters, x: TensorId, config: &ModelConfig) -> Result<TensorId> {
    joined(b, &parameters.root().at("planning_decoder"), ["loc_head", "yaw_head", "vel_head"], x, config)
}

/// x `[B, D]` -> `[B, D]`.
pub fn hidden_projection(b: &mut Builder, p: &Scope, x: TensorId) -> Result<TensorId> {
    let h = b.linear(x, &p.at(0), Activation::Relu)?;
    b.linear(h, &p.at(2), Activation::None)
}
