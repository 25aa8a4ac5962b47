//! Embedding of continuous values: each has learned frequencies and an MLP of its own; the results are summed.

use crate::{
    error::Result,
    graph::{Activation, Builder, RowMap, Scope, TensorId, Vector},
};

/// Frequencies of one value.
pub const BANDS: usize = 64;

/// x `[n, K]` -> `[n, D]`.
pub fn record(b: &mut Builder, p: &Scope, x: TensorId) -> Result<TensorId> {
    b.enter(p.name());
    let frequencies = p.vector("freqs.weight")?; // [K, bands]
    let mut total = None;
    for channel in 0..b.width(x) {
        let m = p.at(format_args!("mlps.{channel}"));
        let own = Vector { offset: frequencies.offset + channel * BANDS, len: BANDS };
        let h = b.fourier(x, channel, own)?; // [n, 2 * bands + 1]
        let h = b.linear(h, &m.at(0), Activation::None)?; // [n, D]
        let h = b.layer_norm(h, &m.at(1), Activation::Relu)?; // [n, D]
        let h = b.linear(h, &m.at(3), Activation::None)?; // [n, D]
        total = Some(match total {
            None => h,
            Some(sum) => b.add(sum, h, RowMap::Same)?,
        });
    }
    let total = total.ok_or_else(|| crate::error::Error::Graph(format!("{}: no values", p.name())))?;
    let h = b.layer_norm(total, &p.at("to_out.0"), Activation::Relu)?; // [n, D]
    let y = b.linear(h, &p.at("to_out.2"), Activation::None)?; // [n, D]
    b.leave();
    Ok(y)
}
