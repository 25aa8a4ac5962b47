//! Sums over rows in two launches: blocks leave partial sums of their runs of rows, which are then added in the order of blocks. The second
//! launch is one for all nodes of a plan, at its end.

use super::{
    device::{Address, MULTIPROCESSORS},
    recorder::{Recorder, blocks, bytes},
};
use crate::graph::Vector;
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Rows that a block sums up, where there are not too many.
const RUN: usize = 16;
/// Most partial sums of an element.
const MOST: usize = 2 * MULTIPROCESSORS;
/// Threads of a block that adds up; each has four columns, or a share of their partial sums if there are more than `FEW`.
const BLOCK: usize = 256;
const FEW: usize = 16;
const MOST_SHARES: usize = 32;

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
    room: i32,
    split: i32,
    columns: i32,
    stride: i32,
}

impl PartialSum {
    /// Of `count` partial sums of all elements of `parameters`, one or two.
    fn new(r: &Recorder, partials: Address, count: usize, parameters: &[Vector], totals: Address) -> Self {
        let length: usize = parameters.iter().map(|p| p.len).sum();
        let (first, second) = (r.gradient(parameters[0]), r.gradient(parameters[parameters.len() - 1]));
        let split = parameters[0].len as i32;
        let [count, length] = [count, length].map(|n| n as i32);
        Self { partials, first, second, totals, count, length, room: length, split, columns: split, stride: split }
    }
    /// Where it adds.
    fn targets(&self) -> [Range<Address>; 2] {
        let range = |start, len| start..start + bytes(len as usize);
        let rows = self.split / self.columns.max(1);
        [range(self.first, (rows - 1).max(0) * self.stride + self.columns), range(self.second, self.length - self.split)]
    }
    fn meets(&self, other: &Self) -> bool {
        self.targets().iter().any(|a| other.targets().iter().any(|b| a.start != 0 && a.start < b.end && b.start < a.end))
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

/// Room for partial sums of the blocks of a chain, which make the gradient of operand `i`, of `len` elements: at the end of the plan if that
/// is a parameter, else behind the chain. None if it has no gradient.
pub fn of_operand(r: &mut Recorder, i: usize, len: usize) -> Option<Address> {
    let (dz, accumulate) = r.dx(i)?;
    let count = r.chain_blocks();
    let parameter = r.node.outputs[i].is_some_and(|id| r.plan.graph.tensor(id).place.is_gradient());
    let partials = if parameter { r.lasting_scratch(count * len) } else { r.scratch(count * len) };
    let [first, totals] = if accumulate { [dz.address(), 0] } else { [0, dz.address()] };
    let [count, length] = [count, len].map(|n| n as i32);
    let sum =
        PartialSum { partials, first, second: 0, totals, count, length, room: length, split: length, columns: length, stride: length };
    match &mut r.chain {
        Some(chain) if !parameter => chain.sums.push(sum),
        _ => r.sums.push(sum),
    }
    Some(partials)
}

/// Adds `count` partial sums of all elements of `parameters`, one or two, to their gradients now. Gives the place of the sums alone.
pub fn add_to_gradients(r: &mut Recorder, partials: Address, count: usize, parameters: &[Vector]) -> Address {
    let totals = r.scratch(parameters.iter().map(|p| p.len).sum());
    let sum = PartialSum::new(r, partials, count, parameters, totals);
    launch(r, &[sum]);
    totals
}

/// Partial sums, each a matrix and then a vector, that go to gradients or to `totals`; addresses of 0 are left out.
pub struct MatrixSums {
    pub count: usize,
    pub rows: usize,
    pub columns: usize,
    /// Length of the vector.
    pub vector: usize,
    /// Gradient of the matrix, and what lies between its rows.
    pub matrix: (Address, usize),
    /// Gradient of the vector.
    pub bias: Address,
    /// Overwritten with the sums alone.
    pub totals: Address,
}

impl MatrixSums {
    /// Elements between partial sums.
    pub fn room(&self) -> usize {
        (self.rows * self.columns + self.vector).next_multiple_of(4)
    }
    /// Given where they begin.
    pub fn of(&self, partials: Address) -> PartialSum {
        let split = self.rows * self.columns;
        let [count, length, room, split, columns, stride] =
            [self.count, split + self.vector, self.room(), split, self.columns, self.matrix.1].map(|n| n as i32);
        PartialSum { partials, first: self.matrix.0, second: self.bias, totals: self.totals, count, length, room, split, columns, stride }
    }
}

/// Launches all that has been left to the end.
pub fn finish(r: &mut Recorder) {
    let sums = std::mem::take(&mut r.sums);
    add_up(r, sums);
}

/// Adds partial sums up at once, but for what goes to the same gradients.
pub fn add_up(r: &mut Recorder, sums: Vec<PartialSum>) {
    let mut rounds: Vec<Vec<PartialSum>> = Vec::new();
    for sum in sums {
        let round = rounds.iter().rposition(|round| round.iter().any(|other| other.meets(&sum))).map_or(0, |last| last + 1);
        match rounds.get_mut(round) {
            Some(others) => others.push(sum),
            None => rounds.push(vec![sum]),
        }
    }
    rounds.iter().for_each(|round| launch(r, round));
}

fn launch(r: &mut Recorder, sums: &[PartialSum]) {
    let tiles_of = |(i, sum): (usize, &PartialSum)| {
        let count = sum.count as usize;
        let shares = if count > FEW { (count / 8).next_power_of_two().min(MOST_SHARES) } else { 1 };
        (0..sum.length).step_by(4 * BLOCK / shares).map(move |column| [i as i32, column, shares as i32, 0])
    };
    let tiles: Vec<[i32; 4]> = sums.iter().enumerate().flat_map(tiles_of).collect();
    let arguments = SumPartials { sums: r.constants(sums), tiles: r.constants(&tiles) };
    r.launch("sum_partials", [tiles.len() as u32, 1, 1], BLOCK as u32, 0, &arguments);
}
