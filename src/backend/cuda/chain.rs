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
        Graph, Node, Op, Pass, Rows,
        schedule::{self, Group},
    },
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block.
pub const BLOCK: u32 = 256;
/// Rows of a launch, of each branch's tensor with the most, up to which tiles are wide: in blocks of 32 they fill a large device about once.
const FEW: usize = 10_000;
/// Rows of a branch of more than [`LONG`] nodes from which blocks of 64 are enough to keep it busy.
const ENOUGH: usize = 4096;
const LONG: usize = 4;
/// Most blocks of a branch.
const MOST_BLOCKS: usize = 4096;
/// Widest layer norm of a chain.
pub const WIDEST_NORM: usize = 256;
/// Dynamic shared memory that any device has room for, twice on a multiprocessor.
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
    /// For branches of so many rows and nodes.
    fn of(branches: impl Iterator<Item = (usize, usize)> + Clone) -> Self {
        if branches.clone().map(|(rows, _)| rows).sum::<usize>() > FEW {
            Self::Square
        } else if branches.clone().any(|(rows, nodes)| rows >= ENOUGH && nodes > LONG) {
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

/// How a branch is shared out among blocks: its units, most rows that one has in a tensor, and its nodes.
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

/// Records a group of nodes that [`takes`] accepts.
pub fn record<'a>(r: &mut Recorder<'a>, group: &Group, node: impl Fn(&mut Recorder<'a>, usize) -> Result<()>) -> Result<()> {
    let graph = &r.plan.graph;
    let units = |nodes: &Vec<usize>| {
        let symbol = schedule::symbol(graph, &graph.nodes[nodes[0]]);
        let tensors = nodes.iter().map(|&n| &graph.nodes[n]).flat_map(|node| node.inputs.iter().chain(&node.outputs)).flatten();
        let rows = tensors.map(|&id| graph.tensor(id).rows).filter(|rows| rows.symbol == symbol).map(|rows| rows.times);
        Units { units: Rows { symbol, times: 1 }, most: rows.max().unwrap_or(1).max(1), nodes: nodes.len() }
    };
    // Blocks begin in their order: the longest branch should not wait for others.
    let mut branches: Vec<&Vec<usize>> = group.branches.iter().collect();
    branches.sort_by_key(|nodes| std::cmp::Reverse(nodes.len()));
    let shares: Vec<Units> = branches.iter().copied().map(units).collect();
    let shape = Shape::of(shares.iter().map(|share| (share.units.resolve(&r.plan.capacity) * share.most, share.nodes)));
    launch(r, shape, &shares, |r, branch| branches[branch].iter().try_for_each(|&n| node(r, n)))
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
        branches: r.constant_values(&chain.branches),
        links: r.constant_values(&chain.links),
        count: chain.branches.len() as i32,
        pad: 0,
    };
    r.launch(&format!("chain_{}_{}", shape.name(), r.multiply.suffix()), [chain.blocks as u32, 1, 1], BLOCK, chain.shared, &arguments);
    partials::add_up(r, chain.sums);
    Ok(())
}
