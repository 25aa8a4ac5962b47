//! The ego's present state to a token: by one learned query that attends to its channels, or by an MLP.

use super::layers::in_projection;
use crate::{
    config::ModelConfig,
    data::batch::{Index, Input, ego_channel, symbol},
    error::Result,
    graph::{Activation, Attention, Builder, RowMap, Rows, Scope, TensorId},
};

/// Heads of the attention over channels, whatever the rest of the network has.
const HEADS: usize = 4;
/// The first channels (the pose) are never masked.
const ALWAYS_SEEN: usize = 3;

/// -> `[B, D]`.
pub fn record(b: &mut Builder, p: &Scope, config: &ModelConfig) -> Result<TensorId> {
    b.enter(p.name());
    let y = if config.state_attn_encoder { attention(b, p, config)? } else { mlp(b, p, config)? };
    b.leave();
    Ok(y)
}

/// Every channel becomes a token; in training those behind the pose are masked at random.
fn attention(b: &mut Builder, p: &Scope, config: &ModelConfig) -> Result<TensorId> {
    let (scenarios, channels) = (Rows::of(symbol::SCENARIOS), config.state_channel);
    let mut tokens = Vec::with_capacity(channels);
    for i in 0..channels {
        let value = b.input("ego channel", ego_channel(i), scenarios, 1);
        tokens.push(b.linear(value, &p.at(format_args!("linears.{i}")), Activation::None)?); // [B, D]
    }
    let tokens = b.interleave(&tokens)?; // [B * K, D]
    let position = b.parameter(p, "pos_embed")?; // [K, D]
    let tokens = b.add(tokens, position, RowMap::Periodic(channels))?;

    let a = p.at("attn");
    let query = b.parameter(p, "query")?; // [1, D]
    let query = in_projection(b, &a, query, 0..1)?; // [1, D]
    let query = b.gather(query, Index::StateQuery as usize, scenarios); // [B, D]
    let keys = in_projection(b, &a, tokens, 1..3)?; // [B * K, 2 * D]: keys, values
    let spec = Attention {
        heads: HEADS,
        head_width: config.dim / HEADS,
        offsets: [0, 0, config.dim],
        segments: Index::StateSegments as usize,
        dropout: 0.0,
        key_dropout: (config.state_dropout > 0.0).then_some((ALWAYS_SEEN, config.state_dropout)),
        group: None,
    };
    let y = b.attention(query, keys, keys, spec)?; // [B, D]
    b.linear(y, &a.at("out_proj"), Activation::None)
}

/// Linear without bias, BatchNorm, ReLU, Linear.
fn mlp(b: &mut Builder, p: &Scope, config: &ModelConfig) -> Result<TensorId> {
    let state = b.input("ego state", Input::EgoState as usize, Rows::of(symbol::SCENARIOS), config.state_channel);
    let h = b.linear(state, &p.at(0), Activation::None)?; // [B, D]
    let h = b.batch_norm(h, &p.at(1), Activation::Relu)?; // [B, D]
    b.linear(h, &p.at(3), Activation::None) // [B, D]
}
