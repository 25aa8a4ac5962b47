//! The network, forward only, recorded on a graph: agents, map and static objects become tokens, an encoder lets them attend
//! to each other, a decoder proposes trajectories along reference lines and scores them.
//!
//! J. Cheng, Y. Chen, Q. Chen, "PLUTO: Pushing the Limit of Imitation Learning-based Planning for Autonomous Driving", 2024.
//!
//! Shapes in comments: B scenarios, A agents, L polygons, S static objects, N = B + A + L + S tokens, R reference lines,
//! M modes, F future steps, D width; A, L, S, N, R count the rows of the whole batch that exist.

mod agent_encoder;
mod decoder;
mod ego_state;
mod encoder;
mod fourier;
mod heads;
mod history_encoder;
mod layers;
mod map_encoder;
pub mod params;
mod points_encoder;
mod static_objects;

use crate::{
    config::ModelConfig,
    data::batch::{Index, Input, symbol},
    error::{Error, Result},
    graph::{Builder, Parameters, RowMap, Rows, TensorId},
};
pub use heads::trajectory_heads;

/// What the network returns.
#[derive(Debug, Clone, Copy)]
pub struct Outputs {
    /// `[R * M, F * 6]`: x, y, cos, sin, vx, vy of every candidate; row is line * M + mode. Without gradient in training.
    pub trajectory: TensorId,
    /// `[R * M, 1]`.
    pub logits: TensorId,
    /// `[A, F * 6]`: predicted futures of the agents.
    pub prediction: TensorId,
    /// `[R * M, D]`: what the heads decode.
    pub queries: TensorId,
    /// `[B, D]`: projected ego token, with `use_hidden_proj`.
    pub hidden: Option<TensorId>,
    /// `[B, F * 4]`: trajectory without a reference line, with `ref_free_traj`.
    pub ref_free_trajectory: Option<TensorId>,
}

/// Checks the options.
///
/// # Errors
/// [`Error::Config`] with the key.
pub fn validate(config: &ModelConfig) -> Result<()> {
    let ensure = |ok: bool, key: &str, reason: &str| if ok { Ok(()) } else { Err(Error::config(format!("model.{key}"), reason)) };
    let rate = |key: &str, rate: f64| ensure((0.0..1.0).contains(&rate), key, "is no rate in [0, 1)");
    ensure(config.dim > 0 && config.dim.is_multiple_of(8), "dim", "must be a positive multiple of 8")?;
    ensure(config.num_heads > 0 && config.dim.is_multiple_of(config.num_heads), "num_heads", "must divide model.dim")?;
    ensure((1..=7).contains(&config.state_channel), "state_channel", "must be from 1 to 7")?;
    ensure(config.history_channel == 9, "history_channel", "only 9 channels are made")?;
    let shortest = history_encoder::lengths(config.history_steps.saturating_sub(1))[2];
    ensure(shortest >= history_encoder::WINDOWS[2], "history_steps", "must be at least 18")?;
    ensure(config.future_steps > 0, "future_steps", "must be positive")?;
    ensure(config.decoder_depth > 0, "decoder_depth", "must be positive")?;
    ensure(config.num_modes > 0, "num_modes", "must be positive")?;
    ensure(config.radius > 0.0 && config.radius.is_finite(), "radius", "must be positive")?;
    rate("dropout", config.dropout)?;
    rate("drop_path", config.drop_path)?;
    rate("state_dropout", config.state_dropout)
}

/// Records the whole network.
///
/// # Errors
/// [`Error::Graph`] if `parameters` are not those of `config`.
pub fn record(b: &mut Builder, parameters: &Parameters, config: &ModelConfig) -> Result<Outputs> {
    let p = parameters.root();
    let agents = agent_encoder::record(b, &p.at("agent_encoder"), config)?; // [B + A, D]
    let polygons = map_encoder::record(b, &p.at("map_encoder"))?; // [L, D]
    let statics = static_objects::record(b, &p.at("static_objects_encoder"))?; // [S, D]

    let tokens = Rows::of(symbol::TOKENS);
    let parts: Vec<TensorId> = agents.into_iter().chain([polygons, statics]).collect();
    let stacked = b.concat(&parts, tokens)?; // [N, D], kind by kind
    let x = b.gather(stacked, Index::TokenSource as usize, tokens); // [N, D], scenario by scenario
    let pose = b.input("pose", Input::TokenPose as usize, tokens, 3);
    let position = fourier::record(b, &p.at("pos_emb"), pose)?; // [N, D]
    let x = b.add(x, position, RowMap::Same)?;
    let x = encoder::record(b, &p, x, config)?; // [N, D]

    let agent = b.gather(x, Index::AgentToken as usize, Rows::of(symbol::AGENTS)); // [A, D]
    let prediction = heads::agent_predictor(b, &p.at("agent_predictor"), agent, config)?; // [A, F * 6]
    let ego = b.gather(x, Index::EgoToken as usize, Rows::of(symbol::SCENARIOS)); // [B, D]

    let d = p.at("planning_decoder");
    let queries = decoder::record(b, &d, x, ego, config)?; // [R * M, D]
    let trajectory = trajectory_heads(b, parameters, queries, config)?; // [R * M, F * 6]
    let logits = layers::mlp_head(b, &d.at("pi_head"), queries)?; // [R * M, 1]

    let hidden = if config.use_hidden_proj { Some(heads::hidden_projection(b, &p.at("hidden_proj"), ego)?) } else { None };
    let ref_free_trajectory = if config.ref_free_traj { Some(layers::mlp_head(b, &p.at("ref_free_decoder"), ego)?) } else { None };
    Ok(Outputs { trajectory, logits, prediction, queries, hidden, ref_free_trajectory })
}
