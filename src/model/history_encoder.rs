//! Agents' histories: three levels of neighborhood attention, then a feature pyramid of which the last step is kept.
//!
//! A. Hassani et al., "Neighborhood Attention Transformer", 2023; T. Lin et al., "Feature Pyramid Networks", 2017. Behind the
//! levels only those positions are computed that the kept one reads.

use crate::{
    config::ModelConfig,
    error::Result,
    graph::{Activation, Builder, RowMap, Scope, TensorId},
};

const LEVELS: usize = 3;
const BLOCKS: usize = 2;
/// Attention heads of the levels.
pub const HEADS: [usize; LEVELS] = [2, 4, 8];
/// Steps that a step sees, by level.
pub const WINDOWS: [usize; LEVELS] = [3, 3, 5];

/// Steps of each level, given those of the first.
pub fn lengths(first: usize) -> [usize; LEVELS] {
    [first, first.div_ceil(2), first.div_ceil(2).div_ceil(2)]
}

/// x `[n * (T - 1), 9]` -> `[n, D]`.
pub fn record(b: &mut Builder, p: &Scope, x: TensorId, config: &ModelConfig) -> Result<TensorId> {
    b.enter(p.name());
    let lengths = lengths(config.history_steps - 1);
    let mut x = convolution(b, &p.at("embed.proj"), x, lengths[0], (0..lengths[0]).collect())?; // [n * t0, D / 4]
    let mut outs = [x; LEVELS];
    for level in 0..LEVELS {
        let length = lengths[level];
        for block in 0..BLOCKS {
            let rate = config.drop_path * (BLOCKS * level + block) as f64 / (LEVELS * BLOCKS - 1) as f64;
            let q = p.at(format_args!("levels.{level}.blocks.{block}"));
            x = transformer_block(b, &q, x, level, length, rate)?; // [n * t, C]
        }
        outs[level] = b.layer_norm(x, &p.at(format_args!("norm{level}")), Activation::None)?; // [n * t, C]
        if level + 1 < LEVELS {
            let q = p.at(format_args!("levels.{level}.downsample"));
            let even = (0..lengths[level + 1]).map(|i| 2 * i).collect();
            x = convolution(b, &q.at("reduction"), x, length, even)?; // [n * t / 2, 2 * C]
            x = b.layer_norm(x, &q.at("norm"), Activation::None)?;
        }
    }
    let y = pyramid(b, p, &outs, &lengths)?;
    b.leave();
    Ok(y)
}

/// x `[n * length, C]` -> the same.
fn transformer_block(b: &mut Builder, p: &Scope, x: TensorId, level: usize, length: usize, rate: f64) -> Result<TensorId> {
    b.enter(format!("{level}"));
    let h = b.layer_norm(x, &p.at("norm1"), Activation::None)?;
    let qkv = b.linear(h, &p.at("attn.qkv"), Activation::None)?; // [n * length, 3 * C]
    let h = b.neighborhood(qkv, length, HEADS[level], WINDOWS[level], p.vector("attn.rpb")?)?; // [n * length, C]
    let h = b.linear(h, &p.at("attn.proj"), Activation::None)?;
    let x = b.residual(x, h, 0.0, rate, length, None)?;
    let h = b.layer_norm(x, &p.at("norm2"), Activation::None)?;
    let h = b.linear(h, &p.at("mlp.fc1"), Activation::Gelu)?; // [n * length, 3 * C]
    let h = b.linear(h, &p.at("mlp.fc2"), Activation::None)?; // [n * length, C]
    let x = b.residual(x, h, 0.0, rate, length, None)?;
    b.leave();
    Ok(x)
}

/// Convolution with kernel 3 and padding 1 at some positions: x `[n * length, C]` -> `[n * positions, out]`.
fn convolution(b: &mut Builder, p: &Scope, x: TensorId, length: usize, positions: Vec<usize>) -> Result<TensorId> {
    let windows = b.unfold(x, length, positions)?; // [n * positions, 3 * C]
    b.linear(windows, p, Activation::None)
}

/// Merges the levels from the coarsest to the finest and gives the last step: `[n, D]`.
fn pyramid(b: &mut Builder, p: &Scope, outs: &[TensorId; LEVELS], lengths: &[usize; LEVELS]) -> Result<TensorId> {
    // Positions of each level that the last step reads: two at the finest level, then what these are interpolated from.
    let mut positions = vec![vec![lengths[0] - 2, lengths[0] - 1]];
    for level in 1..LEVELS {
        let reads = interpolation(&positions[level - 1], lengths[level - 1], lengths[level]);
        let mut sources: Vec<usize> = reads.iter().flatten().map(|&(source, _)| source).collect();
        sources.sort_unstable();
        sources.dedup();
        positions.push(sources);
    }
    let mut merged = None;
    for level in (0..LEVELS).rev() {
        let q = p.at(format_args!("lateral_convs.{level}"));
        let lateral = convolution(b, &q, outs[level], lengths[level], positions[level].clone())?; // [n * positions, D]
        merged = Some(match merged {
            None => lateral,
            Some(coarser) => {
                let place = |source: usize| positions[level + 1].iter().position(|&s| s == source).expect("listed above");
                let weights = interpolation(&positions[level], lengths[level], lengths[level + 1])
                    .into_iter()
                    .map(|terms| terms.into_iter().map(|(source, weight)| (place(source), weight)).collect())
                    .collect();
                let raised = b.mix(coarser, positions[level + 1].len(), weights)?; // [n * positions, D]
                b.add(lateral, raised, RowMap::Same)?
            }
        });
    }
    let merged = merged.expect("there are levels"); // [n * 2, D]
    convolution(b, &p.at("fpn_conv"), merged, 2, vec![1]) // [n, D]
}

/// Linear interpolation from `coarse` to `fine` steps, pixel centres aligned: sources and weights of some fine positions.
fn interpolation(positions: &[usize], fine: usize, coarse: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = coarse as f64 / fine as f64;
    let terms = |&position: &usize| {
        let at = ((position as f64 + 0.5) * scale - 0.5).max(0.0);
        let (low, part) = (at as usize, at.fract());
        let high = (low + 1).min(coarse - 1);
        if high == low || part == 0.0 { vec![(low, 1.0)] } else { vec![(low, 1.0 - part), (high, part)] }
    };
    positions.iter().map(terms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_of_the_last_steps() {
        assert_eq!(interpolation(&[18, 19], 20, 10), [vec![(8, 0.25), (9, 0.75)], vec![(9, 1.0)]]);
        assert_eq!(interpolation(&[8, 9], 10, 5), [vec![(3, 0.25), (4, 0.75)], vec![(4, 1.0)]]);
        assert_eq!(interpolation(&[0], 10, 5), [vec![(0, 1.0)]]);
    }
}
