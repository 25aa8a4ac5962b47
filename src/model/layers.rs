//! Small layers that several modules share.

use crate::{
    error::Result,
    graph::{Activation, Builder, Rows, Scope, TensorId},
};
use std::ops::Range;

/// Linear, LayerNorm, ReLU, Linear: x `[n, D]` -> `[n, out]`.
pub fn mlp_head(b: &mut Builder, p: &Scope, x: TensorId) -> Result<TensorId> {
    let p = p.at("mlp");
    b.enter(p.name());
    let h = b.linear(x, &p.at(0), Activation::None)?; // [n, hidden]
    let h = b.layer_norm(h, &p.at(1), Activation::Relu)?; // [n, hidden]
    let y = b.linear(h, &p.at(3), Activation::None)?; // [n, out]
    b.leave();
    Ok(y)
}

/// Rows of an embedding table by an index slot: `[rows, D]`.
pub fn embedding(b: &mut Builder, p: &Scope, index: usize, rows: Rows) -> Result<TensorId> {
    let table = b.parameter(p, "weight")?; // [categories, D]
    Ok(b.gather(table, index, rows))
}

/// Some of query (0), key (1) and value (2) of an attention's packed projection: x `[n, D]` -> `[n, parts * D]`.
pub fn in_projection(b: &mut Builder, p: &Scope, x: TensorId, parts: Range<usize>) -> Result<TensorId> {
    let weight = p.matrix("in_proj_weight")?; // [3 * D, D]
    let rows = parts.start * weight.columns..parts.end * weight.columns;
    b.linear_part(x, weight.row_range(rows.clone()), Some(p.vector("in_proj_bias")?.part(rows)), Activation::None)
}
