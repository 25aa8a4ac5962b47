//! Static objects to tokens.

use super::{fourier, layers::embedding};
use crate::{
    data::batch::{Index, Input, symbol},
    error::Result,
    graph::{Builder, RowMap, Rows, Scope, TensorId},
};

/// -> `[S, D]`.
pub fn record(b: &mut Builder, p: &Scope) -> Result<TensorId> {
    b.enter(p.name());
    let statics = Rows::of(symbol::STATICS);
    let shape = b.input("static shape", Input::StaticShape as usize, statics, 2);
    let x = fourier::record(b, &p.at("obj_encoder"), shape)?; // [S, D]
    let kind = embedding(b, &p.at("type_emb"), Index::StaticCategory as usize, statics)?; // [S, D]
    let x = b.add(x, kind, RowMap::Same)?;
    b.leave();
    Ok(x)
}
