//! Sums over rows in two launches: blocks leave partial sums of their runs of rows, which are then added in the order of blocks.

use super::{
    device::Address,
    recorder::{Recorder, blocks},
};
use crate::graph::Vector;
use bytemuck::{Pod, Zeroable};

/// Rows that a block sums up, where there are not too many.
const RUN: usize = 64;
/// Most partial sums of an element.
const MOST: usize = 256;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumPartials {
    partials: Address,
    first: Address,
    second: Address,
    totals: Address,
    count: i32,
    length: i32,
    split: i32,
    pad: i32,
}

/// Blocks for runs of up to `rows` rows.
pub fn runs(rows: usize) -> usize {
    (blocks(rows, RUN) as usize).min(MOST)
}

/// Adds the sum of `count` partial sums of all elements of `parameters`, one or two, to their gradients. Gives the place of the sum alone if
/// `keep`, else 0.
pub fn add_to_gradients(r: &mut Recorder, partials: Address, count: usize, parameters: &[Vector], keep: bool) -> Address {
    let length = parameters.iter().map(|p| p.len).sum();
    let totals = if keep { r.scratch(length) } else { 0 };
    let (first, second) = (r.gradient(parameters[0]), r.gradient(parameters[parameters.len() - 1]));
    let [count, length, split] = [count, length, parameters[0].len].map(|n| n as i32);
    let arguments = SumPartials { partials, first, second, totals, count, length, split, pad: 0 };
    r.launch("sum_partials", [blocks(length as usize, 32), 1, 1], 256, 0, &arguments);
    totals
}
