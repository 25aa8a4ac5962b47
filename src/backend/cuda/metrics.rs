//! Measures of predicted trajectories, and the report of a run; see `metrics.cu`.

use super::{
    device::Address,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks, bytes},
};
use crate::{
    error::{Error, Result},
    graph::{Deviation, Measure as Wanted, Op, Subject},
};
use bytemuck::{Pod, Zeroable};

/// Most measures.
const MOST_MEASURES: usize = 16;
/// Threads of a block, its warps, and most blocks.
const BLOCK: u32 = 256;
const WARPS: usize = 8;
const MOST_BLOCKS: u32 = 128;
/// Numbers of 4 bytes in a sum.
const SUM: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Measure {
    limit: f64,
    most: i32,
    deviation: i32,
    last: i32,
    pad: i32,
}

impl Measure {
    fn new(measure: &Wanted) -> Self {
        let most = match measure.subject {
            Subject::Ego(most) => most as i32,
            Subject::Agent => 0,
            Subject::Agents => -1,
        };
        let (deviation, limit) = match measure.deviation {
            Deviation::Distance => (0, 0.0),
            Deviation::Beyond(limit) => (1, limit),
            Deviation::Turn => (2, 0.0),
        };
        Self { limit, most, deviation, last: measure.last.into(), pad: 0 }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Metrics {
    operands: [Reference; 6],
    lists: [IndexReference; 3],
    step: Address,
    partials: Address,
    agents: RowCount,
    steps: i32,
    count: i32,
    measures: [Measure; MOST_MEASURES],
}

/// Sums of blocks, which the report adds up.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    partials: Address,
    sums: Address,
    blocks: usize,
    measures: usize,
}

/// Sums of every measure over the egos and agents of each block.
pub fn forward(r: &mut Recorder) -> Result<()> {
    let Op::Metrics { steps, candidates, tokens, scenarios, measures } = &r.node.op else { unreachable!("metrics") };
    if measures.len() > MOST_MEASURES || r.metrics.is_some() {
        return Err(Error::Backend(format!("{} measures are more than {MOST_MEASURES}, or not the first of the plan", measures.len())));
    }
    // No more egos than candidates.
    let units = r.capacity(r.node.input(0)) + r.capacity(r.node.input(2));
    let count = measures.len();
    let blocks = blocks(units * count, WARPS).min(MOST_BLOCKS);
    let partials = r.lasting_scratch(SUM * count * blocks as usize);
    r.metrics = Some(Sums { partials, sums: r.output(0).address(), blocks: blocks as usize, measures: count });
    let mut arguments = Metrics {
        operands: [0, 1, 2, 3, 4, 5].map(|i| r.input(i)),
        lists: [candidates, tokens, scenarios].map(|list| r.index(*list)),
        step: r.step(),
        partials,
        agents: r.rows(r.node.input(2)),
        steps: *steps as i32,
        count: count as i32,
        measures: [Measure::zeroed(); MOST_MEASURES],
    };
    arguments.measures.iter_mut().zip(measures).for_each(|(to, measure)| *to = Measure::new(measure));
    r.launch("metrics", [blocks, 1, 1], BLOCK, 0, &arguments);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Report {
    partials: Address,
    sums: Address,
    from: Address,
    to: Address,
    spoiled: Address,
    step: Address,
    blocks: i32,
    measures: i32,
    count: i32,
    losses: i32,
}

/// Adds up the measures, puts the numbers of a report side by side, so that one copy brings them to the host, and says whether a loss of
/// a training pass is not finite.
pub fn report(r: &mut Recorder, to: Address, spoiled: Address) {
    let graph = &r.plan.graph;
    let mut from: Vec<Address> = Vec::new();
    for (id, place) in graph.numbers() {
        from.extend((0..place.len()).map(|i| r.reference(id).address() + bytes(i)));
    }
    let Sums { partials, sums, blocks, measures } = r.metrics.unwrap_or_default();
    if from.is_empty() && measures == 0 {
        return;
    }
    let [blocks, measures, count, losses] = [blocks, measures, from.len(), graph.losses()].map(|n| n as i32);
    let spoiled = if graph.seed.is_some() { spoiled } else { 0 };
    let from = r.constants(&from);
    let arguments = Report { partials, sums, from, to, spoiled, step: r.step(), blocks, measures, count, losses };
    r.launch("report", [1, 1, 1], BLOCK, 0, &arguments);
}
