//! Planning decoder: a query for every mode of every reference line attends to the other lines, the other modes and the scene.
//!
//! Rows of queries are line * M + mode.

use super::{
    fourier,
    layers::in_projection,
    points_encoder::{self, Groups},
};
use crate::{
    config::ModelConfig,
    data::batch::{Index, Input, symbol},
    error::Result,
    graph::{Activation, Attention, Builder, RowMap, Rows, Scope, TensorId},
};

/// memory `[N, D]`, ego `[B, D]` -> queries `[R * M, D]`.
pub fn record(b: &mut Builder, p: &Scope, memory: TensorId, ego: TensorId, config: &ModelConfig) -> Result<TensorId> {
    b.enter(p.name());
    let lines = reference_lines(b, p)?; // [R, D]

    // q_proj reads (line, mode): its two halves are added for every pair.
    let (d, q) = (config.dim, p.at("q_proj"));
    let weight = q.matrix("weight")?; // [D, 2 * D]
    let line = b.linear_part(lines, weight.column_range(0..d), Some(q.vector("bias")?), Activation::None)?; // [R, D]
    let modes = b.parameter(p, "m_emb")?; // [M, D]
    let mode = b.linear_part(modes, weight.column_range(d..2 * d), None, Activation::None)?; // [M, D]
    let mut x = b.outer(line, mode)?; // [R * M, D]

    for layer in 0..config.decoder_depth {
        let mode_position = b.parameter(p, "m_pos")?; // [M, D]
        x = decoder_layer(b, &p.at(format_args!("decoder_blocks.{layer}")), x, memory, mode_position, config)?;
    }

    if config.cat_x {
        let q = p.at("cat_x_proj");
        let weight = q.matrix("weight")?; // [D, 2 * D]
        let own = b.linear_part(x, weight.column_range(0..d), Some(q.vector("bias")?), Activation::None)?; // [R * M, D]
        let shared = b.linear_part(ego, weight.column_range(d..2 * d), None, Activation::None)?; // [B, D]
        let shared = b.gather(shared, Index::LineScenario as usize, Rows::of(symbol::LINES)); // [R, D]
        x = b.add(own, shared, RowMap::Grouped(config.num_modes))?;
    }
    b.leave();
    Ok(x)
}

/// -> `[R, D]`.
fn reference_lines(b: &mut Builder, p: &Scope) -> Result<TensorId> {
    let rows = Rows::of(symbol::LINES);
    let points = b.input("line points", Input::LinePoints as usize, Rows::of(symbol::LINE_POINTS), 6);
    let groups = Groups { segments: Index::LinePointSegments as usize, of_point: Index::PointLine as usize, rows };
    let x = points_encoder::record(b, &p.at("r_encoder"), points, &groups)?; // [R, D]
    let pose = b.input("line pose", Input::LinePose as usize, rows, 3);
    let position = fourier::record(b, &p.at("r_pos_emb"), pose)?; // [R, D]
    b.add(x, position, RowMap::Same)
}

/// x `[R * M, D]` -> the same.
fn decoder_layer(
    b: &mut Builder,
    p: &Scope,
    x: TensorId,
    memory: TensorId,
    mode_position: TensorId,
    config: &ModelConfig,
) -> Result<TensorId> {
    b.enter(p.name());
    let (d, rate) = (config.dim, config.dropout);
    let spec = |offsets, segments: Index| Attention {
        heads: config.num_heads,
        head_width: d / config.num_heads,
        offsets,
        segments: segments as usize,
        dropout: rate,
        key_dropout: None,
        group: None,
    };

    // Among the lines of a scenario, for each mode.
    let a = p.at("r2r_attn");
    let h = b.layer_norm(x, &p.at("norm1"), Activation::None)?;
    let qkv = in_projection(b, &a, h, 0..3)?; // [R * M, 3 * D]
    let h = b.attention(qkv, qkv, qkv, spec([0, d, 2 * d], Index::LineSegments))?; // [R * M, D]
    let h = b.linear(h, &a.at("out_proj"), Activation::None)?;
    let x = b.residual(x, h, rate, 0.0, 1, None)?;

    // Among the modes of a line; values are free of the mode's position.
    let a = p.at("m2m_attn");
    let h = b.layer_norm(x, &p.at("norm2"), Activation::None)?;
    let placed = b.add(h, mode_position, RowMap::Periodic(config.num_modes))?;
    let qk = in_projection(b, &a, placed, 0..2)?; // [R * M, 2 * D]
    let v = in_projection(b, &a, h, 2..3)?; // [R * M, D]
    let h = b.attention(qk, qk, v, Attention { group: Some(config.num_modes), ..spec([0, d, 0], Index::ModeSegments) })?; // [R * M, D]
    let h = b.linear(h, &a.at("out_proj"), Activation::None)?;
    let x = b.residual(x, h, rate, 0.0, 1, None)?;

    // To the tokens of the scenario.
    let a = p.at("cross_attn");
    let h = b.layer_norm(x, &p.at("norm3"), Activation::None)?;
    let q = in_projection(b, &a, h, 0..1)?; // [R * M, D]
    let kv = in_projection(b, &a, memory, 1..3)?; // [N, 2 * D]
    let h = b.attention(q, kv, kv, spec([0, 0, d], Index::CrossSegments))?; // [R * M, D]
    let h = b.linear(h, &a.at("out_proj"), Activation::None)?;
    let x = b.residual(x, h, rate, 0.0, 1, None)?;

    let h = b.layer_norm(x, &p.at("norm4"), Activation::None)?;
    let h = b.linear(h, &p.at("ffn.0"), Activation::Relu)?; // [R * M, 4 * D]
    let h = b.dropout(h, rate);
    let h = b.linear(h, &p.at("ffn.3"), Activation::None)?; // [R * M, D]
    let x = b.residual(x, h, rate, 0.0, 1, None)?;
    b.leave();
    Ok(x)
}
