//! Sums over rows in two launches: blocks leave partial sums of their runs of rows, which are then added in the order of blocks. The second
//! launch is one for all nodes of a plan, at its end.

use super::{
    device::Address,
    recorder::{Recorder, blocks, bytes},
};
use crate::graph::Vector;
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Rows that a block sums up, where there are not too many.
const RUN: usize = 16;
/// Most partial sums of an element: two blocks for each of a large device's multiprocessors.
const MOST: usize = 264;
/// Columns that a block adds up.
const TILE: usize = 32;

/// Partial sums and the gradients that they are added to; mirrors `PartialSum` of `partials.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct PartialSum {
    partials: Address,
    first: Address,
    second: Address,
    totals: Address,
    count: i32,
    length: i32,
    split: i32,
    pad: i32,
}

impl PartialSum {
    /// Of `count` partial sums of all elements of `parameters`, one or two.
    fn new(r: &Recorder, partials: Address, count: usize, parameters: &[Vector], totals: Address) -> Self {
        let length: usize = parameters.iter().map(|p| p.len).sum();
        let (first, second) = (r.gradient(parameters[0]), r.gradient(parameters[parameters.len() - 1]));
        let [count, length, split] = [count, length, parameters[0].len].map(|n| n as i32);
        Self { partials, first, second, totals, count, length, split, pad: 0 }
    }
    /// Where it adds.
    fn targets(&self) -> [Range<Address>; 2] {
        let range = |start, len| start..start + bytes(len as usize);
        [range(self.first, self.split), range(self.second, self.length - self.split)]
    }
    fn meets(&self, other: &Self) -> bool {
        self.targets().iter().any(|a| other.targets().iter().any(|b| a.start < b.end && b.start < a.end))
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumPartials {
    sums: Address,
    tiles: Address,
}

/// Blocks for runs of up to `rows` rows.
pub fn runs(rows: usize) -> usize {
    (blocks(rows, RUN) as usize).min(MOST)
}

/// Room for `count` partial sums of each element of `parameters`, one or two, which are added to their gradients at the end of the plan.
pub fn of_gradients(r: &mut Recorder, count: usize, parameters: &[Vector]) -> Address {
    let partials = r.lasting_scratch(count * parameters.iter().map(|p| p.len).sum::<usize>());
    let sum = PartialSum::new(r, partials, count, parameters, 0);
    r.sums.push(sum);
    partials
}

/// Adds `count` partial sums of all elements of `parameters`, one or two, to their gradients now. Gives the place of the sums alone.
pub fn add_to_gradients(r: &mut Recorder, partials: Address, count: usize, parameters: &[Vector]) -> Address {
    let totals = r.scratch(parameters.iter().map(|p| p.len).sum());
    let sum = PartialSum::new(r, partials, count, parameters, totals);
    launch(r, &[sum]);
    totals
}

/// Launches all that has been left to the end: at once, but for what goes to the same gradients.
pub fn finish(r: &mut Recorder) {
    let mut rounds: Vec<Vec<PartialSum>> = Vec::new();
    for sum in std::mem::take(&mut r.sums) {
        let round = rounds.iter().rposition(|round| round.iter().any(|other| other.meets(&sum))).map_or(0, |last| last + 1);
        match rounds.get_mut(round) {
            Some(others) => others.push(sum),
            None => rounds.push(vec![sum]),
        }
    }
    rounds.iter().for_each(|round| launch(r, round));
}

fn launch(r: &mut Recorder, sums: &[PartialSum]) {
    let tiles_of = |(i, sum): (usize, &PartialSum)| (0..sum.length).step_by(TILE).flat_map(move |column| [i as i32, column]);
    let tiles: Vec<i32> = sums.iter().enumerate().flat_map(tiles_of).collect();
    let arguments = SumPartials { sums: r.constant_values(sums), tiles: r.constant_indexes(&tiles) };
    r.launch("sum_partials", [(tiles.len() / 2) as u32, 1, 1], 256, 0, &arguments);
}
