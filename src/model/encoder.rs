//! Transformer encoder: the tokens of a scenario attend to each other (pre-norm, drop path rising over the layers).

use super::layers::in_projection;
use crate::{
    config::ModelConfig,
    data::batch::Index,
    error::Result,
    graph::{Activation, Attention, Builder, Scope, TensorId},
};

/// x `[N, D]` -> `[N, D]`, normalised.
pub fn record(b: &mut Builder, p: &Scope, mut x: TensorId, config: &ModelConfig) -> Result<TensorId> {
    let steps = config.encoder_depth.saturating_sub(1).max(1);
    for layer in 0..config.encoder_depth {
        let rate = config.drop_path * layer as f64 / steps as f64;
        x = encoder_layer(b, &p.at(format_args!("encoder_blocks.{layer}")), x, rate, config)?;
    }
    b.layer_norm(x, &p.at("norm"), Activation::None)
}

fn encoder_layer(b: &mut Builder, p: &Scope, x: TensorId, rate: f64, config: &ModelConfig) -> Result<TensorId> {
    b.enter(p.name());
    let scenario = Some(Index::TokenScenario as usize);
    let a = p.at("attn");
    let h = b.layer_norm(x, &p.at("norm1"), Activation::None)?; // [N, D]
    let qkv = in_projection(b, &a, h, 0..3)?; // [N, 3 * D]
    let spec = Attention {
        heads: config.num_heads,
        head_width: config.dim / config.num_heads,
        offsets: [0, config.dim, 2 * config.dim],
        segments: Index::TokenSegments as usize,
        dropout: 0.0,
        key_dropout: None,
        group: None,
    };
    let h = b.attention(qkv, qkv, qkv, spec)?; // [N, D]
    let h = b.linear(h, &a.at("out_proj"), Activation::None)?;
    let x = b.residual(x, h, 0.0, rate, 1, scenario)?;

    let h = b.layer_norm(x, &p.at("norm2"), Activation::None)?;
    let h = b.linear(h, &p.at("mlp.fc1"), Activation::Gelu)?; // [N, 4 * D]
    let h = b.linear(h, &p.at("mlp.fc2"), Activation::None)?; // [N, D]
    let x = b.residual(x, h, 0.0, rate, 1, scenario)?;
    b.leave();
    Ok(x)
}
