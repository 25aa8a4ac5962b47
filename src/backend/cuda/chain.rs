//! Chains of operations that work row by row, each chain one launch; see `graph::schedule`.

use super::{
    Multiply,
    device::{Address, MULTIPROCESSORS},
    partials::{self, PartialSum},
    product::SLICE,
    recorder::{Recorder, RowCount},
};
use crate::{
    error::Result,
    graph::{
        Graph, Node, Op, Pass, Plan, Rows,
        schedule::{self, Group},
    },
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block.
pub const BLOCK: u32 = 256;
/// Rows of a launch, of each branch's product with the most, up to which tiles are wide: in blocks of 32 they fill a large device about once.
const FEW: usize = 10_000;
/// Rows of a branch of more than [`LONG`] nodes from which blocks of 64 are enough to keep it busy.
const ENOUGH: usize = 6144;
const LONG: usize = 4;
/// Most blocks of a branch.
const MOST_BLOCKS: usize = 4096;
/// Widest layer norm of a chain.
pub const WIDEST_NORM: usize = 256;
/// Dynamic shared memory of a launch. Of such blocks two fit on a multiprocessor that has 164 KiB or more, one on those with 100 KiB.
const MOST_SHARED: usize = 48 * 1024;

/// Tiles of a launch's products; a shape of `run_chain.cuh`. A block should have as many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// 64 x 64.
    #[default]
    Square,
    /// 64 x 128.
    Full,
    /// 32 x 128.
    Wide,
}

impl Shape {
    /// For branches.
    fn of(branches: &[Units], plan: &Plan) -> Self {
        let rows = |share: &Units| share.units.resolve(&plan.capacity) * share.most;
        if branches.iter().map(rows).sum::<usize>() > FEW {
            Self::Square
        } else if branches.iter().any(|share| rows(share) >= ENOUGH && share.nodes > LONG) {
            Self::Full
        } else {
            Self::Wide
        }
    }
    pub fn rows(self) -> usize {
        match self {
            Self::Square | Self::Full => 64,
            Self::Wide => 32,
        }
    }
    pub fn columns(self) -> usize {
        match self {
            Self::Square => 64,
            Self::Full | Self::Wide => 128,
        }
    }
    /// Steps of a product whose operands are in shared memory.
    pub fn stages(self, multiply: Multiply) -> usize {
        match self {
            Self::Full | Self::Wide if multiply.half() == 0 => 4,
            _ => 3,
        }
    }
    /// Elements of the summed dimension that a step has.
    pub fn depth(self, multiply: Multiply) -> usize {
        if multiply.half() == 0 { SLICE } else { 2 * SLICE }
    }
    /// Blocks that a large device runs at a time.
    fn places(self) -> usize {
        match self {
            Self::Square | Self::Wide => 2 * MULTIPROCESSORS,
            Self::Full => MULTIPROCESSORS,
        }
    }
    fn name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Full => "full",
            Self::Wide => "wide",
        }
    }
}

/// An operation of a chain; mirrors `LinkKind` of `chain.cuh`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    LinearForward,
    LinearDx,
    LayerNormForward,
    LayerNormForwardWide,
    LayerNormBackward,
    LayerNormBackwardWide,
    FourierForward,
    FourierBackward,
    NeighborhoodForward,
    NeighborhoodBackward,
    GroupAttentionForward,
    GroupAttentionBackward,
    Dropout,
    ResidualForward,
    ResidualBackward,
    AddForward,
    GatherForward,
    SumGroups,
    SumPeriods,
    SumTable,
    OuterSum,
    PairBias,
    UnfoldForward,
    UnfoldBackward,
    Mix,
    InterleaveForward,
    InterleaveBackward,
    JoinStepsForward,
    JoinStepsBackward,
    GeluAgain,
}

/// Whether a node is recorded as links of a chain.
pub fn takes(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Linear { .. } | Op::Fourier { .. } | Op::Dropout { .. } | Op::Residual { .. } => true,
        Op::LayerNorm { gamma, .. } => gamma.len <= WIDEST_NORM,
        Op::Attention(spec) => super::group_attention::is_one(graph, node, spec),
        Op::Neighborhood { length, heads, window, bias } => {
            let width = graph.tensor(node.operands[0]).width;
            super::neighborhood::shared(width, *length, *heads, *window, bias.len) <= MOST_SHARED
        }
        Op::Add { .. } | Op::Outer | Op::Unfold { .. } | Op::Mix { .. } | Op::Interleave | Op::JoinSteps { .. } => true,
        Op::Gather { .. } => node.pass == Pass::Forward || super::rows::is_table(graph, node),
        _ => false,
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Branch {
    units: RowCount,
    first_block: i32,
    blocks: i32,
    first_link: i32,
    links: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    step: Address,
    branches: Address,
    links: Address,
    count: i32,
    pad: i32,
}

/// Bytes of the arguments of a link, at most.
const MOST_ARGUMENTS: usize = 304;

/// A kind with its arguments; mirrors `Link`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Link {
    kind: i32,
    pad: [i32; 3],
    arguments: [u8; MOST_ARGUMENTS],
}

/// The chain that is being recorded.
#[derive(Debug, Default)]
pub struct Chain {
    branches: Vec<Branch>,
    links: Vec<Link>,
    blocks: usize,
    shared: usize,
    /// Of its products.
    pub shape: Shape,
    /// Sums that are left to its end.
    pub sums: Vec<PartialSum>,
}

impl Chain {
    /// Blocks of the branch that is being recorded.
    pub fn blocks(&self) -> usize {
        self.branches.last().map_or(1, |branch| branch.blocks as usize)
    }
    /// Appends a link with its arguments and the dynamic shared memory that it needs.
    pub fn link<A: Pod>(&mut self, kind: Kind, shared: usize, arguments: &A) {
        const { assert!(size_of::<A>() <= MOST_ARGUMENTS) };
        let mut link = Link { kind: kind as i32, ..Link::zeroed() };
        link.arguments[..size_of::<A>()].copy_from_slice(bytemuck::bytes_of(arguments));
        self.links.push(link);
        self.shared = self.shared.max(shared);
        if let Some(branch) = self.branches.last_mut() {
            branch.links += 1;
        }
    }
}

/// How a branch is shared out among blocks: its units, most rows that one has in a product, or in any tensor, and its nodes.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    units: Rows,
    most: usize,
    nodes: usize,
}
/// A single unit: one block has all.
pub const ONE: Units = Units { units: Rows { symbol: None, times: 1 }, most: 1, nodes: 1 };

impl Units {
    /// Blocks for at most so many units: each has a tile of rows, or, rather than that blocks of a long branch come one after another, some.
    fn blocks(&self, shape: Shape, capacity: &[usize]) -> usize {
        let (units, tile) = (self.units.resolve(capacity), (shape.rows() / self.most).max(1));
        let tiles = if self.nodes > LONG { units.div_ceil(tile).div_ceil(shape.places()).max(1) } else { 1 };
        units.div_ceil(tile * tiles).clamp(1, MOST_BLOCKS)
    }
}

/// Records a group of nodes that [`takes`] accepts: as one launch, or two.
pub fn record<'a>(r: &mut Recorder<'a>, group: &Group, node: impl Fn(&mut Recorder<'a>, usize) -> Result<()>) -> Result<()> {
    let plan = r.plan;
    // Blocks begin in their order: the longest branch should not wait for others.
    let mut branches: Vec<&[usize]> = group.branches.iter().map(Vec::as_slice).collect();
    branches.sort_by_key(|nodes| std::cmp::Reverse(nodes.len()));
    let record = |r: &mut Recorder<'a>, branches: &[&[usize]]| {
        let shares = shares(plan, branches);
        launch(r, Shape::of(&shares, plan), &shares, |r, branch| branches[branch].iter().try_for_each(|&n| node(r, n)))
    };
    let square = Shape::of(&shares(plan, &branches), plan) == Shape::Square;
    let Some((few, rest, first)) = few_rows(&plan.graph, branches[0]).filter(|_| square) else { return record(r, &branches) };
    branches[0] = rest;
    let (few, others) = (&[few][..], &branches[..]);
    let launches = if first { [few, others] } else { [others, few] };
    launches.into_iter().try_for_each(|branches| record(r, branches))
}

/// How branches are shared out.
fn shares(plan: &Plan, branches: &[&[usize]]) -> Vec<Units> {
    let graph = &plan.graph;
    let share = |nodes: &&[usize]| {
        let nodes = || nodes.iter().map(|&n| &graph.nodes[n]);
        let symbol = nodes().next().and_then(|node| schedule::symbol(graph, node));
        let tensors = nodes().flat_map(|node| node.inputs.iter().chain(&node.outputs)).flatten();
        let rows = tensors.map(|&id| graph.tensor(id).rows).filter(|rows| rows.symbol == symbol).map(|rows| rows.times);
        let products = nodes().filter_map(|node| product_rows(graph, node));
        let most = products.max().or(rows.max()).unwrap_or(1).max(1);
        Units { units: Rows { symbol, times: 1 }, most, nodes: nodes().len() }
    };
    branches.iter().map(share).collect()
}

/// Rows that a unit has in a node's product, if it is one.
fn product_rows(graph: &Graph, node: &Node) -> Option<usize> {
    matches!(node.op, Op::Linear { .. }).then(|| schedule::rows(graph, node).times)
}

/// The first or the last of a branch's nodes, in whose products a unit has so few rows that a block with a tile of rows for the others would
/// fill no more than half of one; the others; and whether the few come first.
fn few_rows<'a>(graph: &Graph, nodes: &'a [usize]) -> Option<(&'a [usize], &'a [usize], bool)> {
    let products: Vec<(usize, usize)> =
        nodes.iter().enumerate().filter_map(|(i, &n)| Some((i, product_rows(graph, &graph.nodes[n])?))).collect();
    let most = products.iter().map(|&(_, rows)| rows).max()?;
    let many = |&(_, rows): &(usize, usize)| rows > most / 4;
    let (first, last) = (products.iter().position(many)?, products.iter().rposition(many)?);
    let behind = products.len() - 1 - last;
    if first.max(behind) <= LONG {
        None
    } else if first > behind {
        let (few, rest) = nodes.split_at(products[first].0);
        Some((few, rest, true))
    } else {
        let (rest, few) = nodes.split_at(products[last].0 + 1);
        Some((few, rest, false))
    }
}

/// Records branches whose links `links` appends.
pub fn launch<'a>(
    r: &mut Recorder<'a>,
    shape: Shape,
    branches: &[Units],
    links: impl Fn(&mut Recorder<'a>, usize) -> Result<()>,
) -> Result<()> {
    r.chain = Some(Chain { shape, ..Chain::default() });
    for (branch, share) in branches.iter().enumerate() {
        let blocks = share.blocks(shape, &r.plan.capacity);
        if let Some(chain) = &mut r.chain {
            let [first_block, first_link] = [chain.blocks, chain.links.len()].map(|n| n as i32);
            chain.blocks += blocks;
            chain.branches.push(Branch { units: share.units.into(), first_block, blocks: blocks as i32, first_link, links: 0 });
        }
        links(r, branch)?;
    }
    let Some(chain) = r.chain.take() else { return Ok(()) };
    if chain.links.is_empty() {
        return Ok(());
    }
    let arguments = Arguments {
        step: r.step(),
        branches: r.constants(&chain.branches),
        links: r.constants(&chain.links),
        count: chain.branches.len() as i32,
        pad: 0,
    };
    r.launch(&format!("chain_{}_{}", shape.name(), r.multiply.suffix()), [chain.blocks as u32, 1, 1], BLOCK, chain.shared, &arguments);
    partials::add_up(r, chain.sums);
    Ok(())
}
