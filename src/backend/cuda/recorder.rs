//! Turns a plan into a list of launches: once per plan; the list is replayed for every batch and step.
//!
//! Nothing that differs between batches or steps is in a launch. Row counts, places of inputs in the feed, seed and step are
//! read on the device from the [`StepBlock`]; grids are sized for the plan's capacity, and blocks without work end at once.

use super::{
    chain::{self, Chain, Kind},
    device::{ALIGNMENT, Address, Launch},
    linear::{self, PairSums},
    linear_max::{self, SegmentOf},
    linear_norm::{self, NormGradient},
    loss_scale, metrics,
    partials::{self, PartialSum},
    product::{Gradient, RunStatistics, Weight},
    weights,
};
use crate::{
    error::{Error, Result},
    graph::{Element, Feed, Matrix, Node, Place, Plan, Rows, Step, TensorId, Vector},
};
use bytemuck::{Pod, Zeroable};
use std::collections::HashMap;

/// Most counts of a batch.
pub const COUNTS: usize = 16;
/// Most slots of a feed, of reals and of index lists.
pub const SLOTS: usize = 64;
/// Most blocks along one side of a grid: kernels stride over what is left.
const MOST_BLOCKS: usize = 16 * 1024;

/// How products are computed. All else is in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multiply {
    /// Three products of tf32 parts on tensor cores: as exact as single precision.
    #[default]
    Tf32x3,
    /// tf32 on tensor cores.
    Tf32,
    /// bfloat16 on tensor cores, sums in single precision.
    Bf16,
    /// Half precision on tensor cores, sums in single precision; the gradient of the loss is scaled, see
    /// [`LossScale`](crate::backend::LossScale).
    F16,
}

impl Multiply {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Tf32x3 => "matrix products in three tf32 parts, as exact as single precision",
            Self::Tf32 => "matrix products in tf32",
            Self::Bf16 => "matrix products in bfloat16",
            Self::F16 => "matrix products in half precision",
        }
    }
    /// How tensors in 16 bits are stored, a `Format` of `common.cuh`; 0: there are none.
    pub fn half(self) -> i32 {
        match self {
            Self::Tf32x3 | Self::Tf32 => 0,
            Self::Bf16 => 1,
            Self::F16 => 2,
        }
    }
    /// The end of the names of kernels that compute so.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Tf32x3 => "tf32x3",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// What differs from batch to batch and step to step; mirrors `StepBlock` of `common.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct StepBlock {
    seed: u64,
    /// Bit i: index list i never falls; of those that are asked for.
    sorted: u64,
    step: u32,
    /// Whether there are gradients of earlier batches.
    gathered: u32,
    counts: [i32; COUNTS],
    /// First element of each slot of reals.
    real_slots: [i32; SLOTS],
    /// First element and length of each index list.
    index_slots: [[i32; 2]; SLOTS],
}

impl StepBlock {
    /// Of a feed, whose reals and indexes begin with these elements of their memory, and a step, with gradients `gathered` from earlier batches or
    /// none; looks at the lists `scattered`.
    ///
    /// # Errors
    /// The feed has more counts, slots or elements than there is room for.
    pub fn new(feed: &Feed, step: &Step, [reals, indexes]: [usize; 2], scattered: u64, gathered: bool) -> Result<Self> {
        let mut block = Self { seed: step.seed, step: step.step as u32, gathered: gathered.into(), ..Self::zeroed() };
        let number = |n: usize| i32::try_from(n).map_err(|_| Error::Backend(format!("the batch has a count or place of {n}")));
        if feed.counts.len() > COUNTS || feed.real_slots.len() > SLOTS || feed.index_slots.len() > SLOTS {
            let [counts, reals, lists] = [feed.counts.len(), feed.real_slots.len(), feed.index_slots.len()];
            return Err(Error::Backend(format!(
                "{counts} counts, {reals} inputs and {lists} index lists are more than {COUNTS}, {SLOTS} and {SLOTS}"
            )));
        }
        for (to, &count) in block.counts.iter_mut().zip(&feed.counts) {
            *to = number(count)?;
        }
        for (to, slot) in block.real_slots.iter_mut().zip(&feed.real_slots) {
            *to = number(reals + slot.start)?;
        }
        for (to, slot) in block.index_slots.iter_mut().zip(&feed.index_slots) {
            *to = [number(indexes + slot.start)?, number(slot.len())?];
        }
        for (i, slot) in feed.index_slots.iter().enumerate().filter(|(i, _)| scattered >> i & 1 != 0) {
            block.sorted |= u64::from(feed.indexes[slot.clone()].is_sorted()) << i;
        }
        Ok(block)
    }
}

/// A number of rows; mirrors `Rows` of `common.cuh`. A negative symbol means the constant `times`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct RowCount {
    symbol: i32,
    times: i32,
}

impl RowCount {
    /// Always as many.
    pub fn fixed(rows: usize) -> Self {
        Rows::fixed(rows).into()
    }
}

impl From<Rows> for RowCount {
    fn from(rows: Rows) -> Self {
        Self { symbol: rows.symbol.map_or(-1, |symbol| symbol.0 as i32), times: rows.times as i32 }
    }
}

/// A tensor of reals; mirrors `Reference` of `common.cuh`. With a slot, `data` is the feed's first element.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Reference {
    data: Address,
    slot: i32,
    /// Mirrors `Format`: 0 single precision, or [`Multiply::half`].
    format: i32,
}

impl Reference {
    /// A tensor at an address.
    pub fn at(data: Address) -> Self {
        Self { data, slot: -1, format: 0 }
    }
    /// Its address; for tensors that are not in the feed.
    pub fn address(self) -> Address {
        debug_assert!(self.slot < 0, "inputs have no fixed address");
        self.data
    }
    /// None: its data is a null pointer.
    pub fn none() -> Self {
        Self::at(0)
    }
    pub fn is_none(self) -> bool {
        self == Self::none()
    }
}

/// Indexes, an index list of the feed or a tensor of the index arena; mirrors `IndexReference` of `common.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct IndexReference {
    data: Address,
    slot: i32,
    pad: i32,
}

impl IndexReference {
    /// Its address; for tensors of the index arena.
    pub fn address(self) -> Address {
        debug_assert!(self.slot < 0, "lists of the feed have no fixed address");
        self.data
    }
    /// Indexes at an address.
    pub fn at(data: Address) -> Self {
        Self { data, slot: -1, pad: 0 }
    }
}

/// Where everything begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    pub step: Address,
    pub reals: Address,
    pub indexes: Address,
    pub parameters: Address,
    pub gradients: Address,
    pub statistics: Address,
    pub pending: Address,
    pub arena: Address,
    pub index_arena: Address,
    pub scratch: Address,
    /// Of [`Graph::numbers`](crate::graph::Graph::numbers).
    pub numbers: Address,
    /// Whether a loss of the gathered gradients is not finite.
    pub spoiled: Address,
    pub constants: Address,
    /// What the loss's gradient is multiplied by, a [`loss_scale::Block`]; 0: nothing.
    pub loss_scale: Address,
}

impl Addresses {
    /// Places far from each other and from 0, as good as real ones to find sizes.
    pub fn apart() -> Self {
        let at = |n: Address| n << 48;
        Self {
            step: at(1),
            reals: at(2),
            indexes: at(3),
            parameters: at(4),
            gradients: at(5),
            statistics: at(6),
            pending: at(7),
            arena: at(8),
            index_arena: at(9),
            scratch: at(10),
            numbers: at(11),
            spoiled: at(12),
            constants: at(13),
            loss_scale: at(14),
        }
    }
}

/// A plan as launches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// In order.
    pub launches: Vec<Launch>,
    /// Number of launches up to the end of each node's group; before the first come those of `start`.
    pub ends: Vec<usize>,
    /// Launches before the first node.
    pub start: usize,
    /// Bytes that the constants take.
    pub constants: Vec<u8>,
    /// Bytes of scratch that the neediest node takes.
    pub scratch: usize,
    /// Bit i: a launch asks whether index list i never falls.
    pub scattered: u64,
}

/// A run of numbers or a matrix in a flat buffer.
pub trait Placed {
    /// First element.
    fn offset(&self) -> usize;
}

impl Placed for Vector {
    fn offset(&self) -> usize {
        self.offset
    }
}

impl Placed for Matrix {
    fn offset(&self) -> usize {
        self.offset
    }
}

/// The node that is being recorded, and what has been so far.
pub struct Recorder<'a> {
    pub plan: &'a Plan,
    pub node: &'a Node,
    /// How products are computed.
    pub multiply: Multiply,
    /// How tensors in 16 bits are stored, whatever computes a product.
    half: i32,
    at: Addresses,
    /// Of the gradient of the loss, a number that only the host or an update changes.
    seed: Address,
    program: Program,
    /// Bytes of scratch that last to the end, and those behind them that the node has taken.
    lasting: usize,
    taken: usize,
    /// Sums that are left to the end.
    pub sums: Vec<PartialSum>,
    /// Gradients of weights that wait for the group that settles them.
    pub gradients: Vec<Gradient>,
    /// Sums that the gradients of pairs of layers are made of at the end.
    pub pairs: Vec<PairSums>,
    /// The same of norms of inputs.
    pub norms: Vec<NormGradient>,
    /// Copies in 16 bits of weights that products read.
    pub packed: HashMap<Weight, Weight>,
    /// Lists of segments whose rows' segments have been looked up before the first node.
    pub segments: Vec<SegmentOf>,
    /// Of the columns of tensors, as the launches that made these have left them.
    pub statistics: HashMap<TensorId, RunStatistics>,
    /// Where a loss's forward pass, by its node's stream, has left its partial sums, and how many.
    pub counts: HashMap<u32, (Address, usize)>,
    /// Sums of measures, which the report adds up.
    pub metrics: Option<metrics::Sums>,
    /// The chain that the node is part of.
    pub chain: Option<Chain>,
}

impl<'a> Recorder<'a> {
    /// Records every node of a plan with `node`. Sizes of constants and scratch do not depend on the addresses.
    ///
    /// # Errors
    /// Those of `node`, with the name of the node.
    pub fn record(plan: &'a Plan, at: Addresses, multiply: Multiply, node: impl Fn(&mut Self) -> Result<()>) -> Result<Program> {
        let Some(first) = plan.graph.nodes.first() else { return Ok(Program::default()) };
        let mut r = Self {
            plan,
            node: first,
            multiply,
            half: multiply.half(),
            at,
            seed: 0,
            program: Program::default(),
            lasting: 0,
            taken: 0,
            sums: Vec::new(),
            gradients: Vec::new(),
            pairs: Vec::new(),
            norms: Vec::new(),
            packed: HashMap::new(),
            segments: Vec::new(),
            statistics: HashMap::new(),
            counts: HashMap::new(),
            metrics: None,
            chain: None,
        };
        let one = r.constants(&[1.0_f32]);
        r.seed = if at.loss_scale == 0 { one } else { at.loss_scale + loss_scale::FACTOR };
        weights::pack_parameters(&mut r);
        linear_max::look_up(&mut r);
        linear::pair_products(&mut r)?;
        r.program.start = r.program.launches.len();
        let one = |r: &mut Self, n: usize| {
            r.node = &plan.graph.nodes[n];
            node(r).map_err(|error| match error {
                Error::Backend(reason) => Error::Backend(format!("'{}': {reason}", r.node.name)),
                other => other,
            })
        };
        for group in &plan.groups {
            r.taken = 0;
            if group.nodes.clone().all(|n| chain::takes(&plan.graph, &plan.graph.nodes[n])) {
                chain::record(&mut r, group, one)?;
            } else {
                group.nodes.clone().try_for_each(|n| one(&mut r, n))?;
            }
            if group.settles {
                linear_norm::settle(&mut r);
            }
            r.program.ends.resize(group.nodes.end, r.program.launches.len());
        }
        linear::pair_gradients(&mut r)?;
        partials::finish(&mut r);
        let (numbers, spoiled) = (r.at.numbers, r.at.spoiled);
        metrics::report(&mut r, numbers, spoiled);
        Ok(r.program)
    }

    /// Address of the [`StepBlock`].
    pub fn step(&self) -> Address {
        self.at.step
    }
    /// Rows of a tensor, as kernels resolve them.
    pub fn rows(&self, id: TensorId) -> RowCount {
        self.plan.graph.tensor(id).rows.into()
    }
    /// Most rows that a tensor can have under this plan.
    pub fn capacity(&self, id: TensorId) -> usize {
        self.plan.graph.tensor(id).rows.resolve(&self.plan.capacity)
    }
    /// Columns of a tensor.
    pub fn width(&self, id: TensorId) -> usize {
        self.plan.graph.tensor(id).width
    }
    /// Address of a tensor of reals.
    pub fn reference(&self, id: TensorId) -> Reference {
        let tensor = self.plan.graph.tensor(id);
        debug_assert_ne!(tensor.element, Element::Index, "{}", tensor.name);
        if self.plan.graph.seed == Some(id) {
            return Reference::at(self.seed);
        }
        match tensor.place {
            Place::Input(slot) => Reference { data: self.at.reals, slot: slot as i32, format: 0 },
            Place::Parameter(offset) => Reference::at(self.at.parameters + bytes(offset)),
            Place::Gradient(offset) => Reference::at(self.at.gradients + bytes(offset)),
            Place::Arena => {
                let format = if tensor.element == Element::Half { self.half } else { 0 };
                Reference { format, ..Reference::at(self.at.arena + bytes(self.plan.offset(id))) }
            }
        }
    }
    /// Operand `i`. Backward: operands, then outputs of the forward node.
    pub fn input(&self, i: usize) -> Reference {
        self.reference(self.node.input(i))
    }
    /// Forward: output `i`.
    pub fn output(&self, i: usize) -> Reference {
        self.reference(self.node.output(i))
    }
    /// Operand `i`, which holds indexes.
    pub fn index_input(&self, i: usize) -> IndexReference {
        self.index_reference(self.node.input(i))
    }
    /// Forward: output `i`, which holds indexes.
    pub fn index_output(&self, i: usize) -> IndexReference {
        self.index_reference(self.node.output(i))
    }
    fn index_reference(&self, id: TensorId) -> IndexReference {
        debug_assert_eq!(self.plan.graph.tensor(id).element, Element::Index);
        IndexReference::at(self.at.index_arena + bytes(self.plan.offset(id)))
    }
    /// Backward: the tensor of the gradient of the result.
    pub fn dy_id(&self) -> TensorId {
        self.node.input(self.node.inputs.len() - 1)
    }
    /// Backward: gradient of the result.
    pub fn dy(&self) -> Reference {
        self.reference(self.dy_id())
    }
    /// Backward: gradient of operand `i`, if it has one, and whether to add to it.
    pub fn dx(&self, i: usize) -> Option<(Reference, bool)> {
        self.node.outputs[i].map(|id| (self.reference(id), self.node.accumulate[i]))
    }
    /// An index list of the feed.
    pub fn index(&self, slot: usize) -> IndexReference {
        IndexReference { data: self.at.indexes, slot: slot as i32, pad: 0 }
    }
    /// As [`Recorder::index`], of which a kernel asks whether it never falls.
    pub fn scattered_index(&mut self, slot: usize) -> IndexReference {
        self.program.scattered |= 1u64.checked_shl(slot as u32).unwrap_or(0); // plans with more lists are refused

        self.index(slot)
    }
    /// Address of a parameter.
    pub fn parameter(&self, part: impl Placed) -> Address {
        self.at.parameters + bytes(part.offset())
    }
    /// Address of a parameter's gradient, which is added to.
    pub fn gradient(&self, part: impl Placed) -> Address {
        self.at.gradients + bytes(part.offset())
    }
    /// Address of running statistics.
    pub fn running(&self, part: impl Placed) -> Address {
        self.at.statistics + bytes(part.offset())
    }
    /// Address of pending statistics.
    pub fn pending(&self, part: impl Placed) -> Address {
        self.at.pending + bytes(part.offset())
    }
    /// Room for `elements` of 4 bytes of any content, for the launches of this node alone.
    pub fn scratch(&mut self, elements: usize) -> Address {
        let address = self.at.scratch + (self.lasting + self.taken) as Address;
        self.taken += (4 * elements).next_multiple_of(ALIGNMENT);
        self.program.scratch = self.program.scratch.max(self.lasting + self.taken);
        address
    }
    /// As [`Recorder::scratch`], but no other node gets it: for what is read at the end.
    pub fn lasting_scratch(&mut self, elements: usize) -> Address {
        let address = self.scratch(elements);
        (self.lasting, self.taken) = (self.lasting + self.taken, 0);
        address
    }
    /// Address of values that stay as they are.
    pub fn constants<T: Pod>(&mut self, values: &[T]) -> Address {
        let kept = &mut self.program.constants;
        let start = kept.len().next_multiple_of(16);
        kept.resize(start, 0);
        kept.extend_from_slice(bytemuck::cast_slice(values));
        self.at.constants + start as Address
    }
    /// Blocks of the chain's branch that the node is part of: partial sums have one for each.
    pub fn chain_blocks(&self) -> usize {
        self.chain.as_ref().map_or(1, Chain::blocks)
    }
    /// Of the tiles of the chain's products.
    pub fn chain_shape(&self) -> chain::Shape {
        self.chain.as_ref().map_or_else(Default::default, |chain| chain.shape)
    }
    /// Appends a link with its arguments and its dynamic shared memory to the chain.
    pub fn link<A: Pod>(&mut self, kind: Kind, shared: usize, arguments: &A) {
        if let Some(chain) = &mut self.chain {
            chain.link(kind, shared, arguments);
        }
    }
    /// Appends a launch of a kernel whose argument is `arguments`.
    pub fn launch<A: Pod>(&mut self, kernel: &str, grid: [u32; 3], block: u32, shared: usize, arguments: &A) {
        self.program.launches.push(Launch::new(kernel, grid, block, shared as u32, arguments));
    }
}

/// Blocks for `work` of which each takes `each` at a time; at least one. Kernels stride over what is left.
pub fn blocks(work: usize, each: usize) -> u32 {
    work.div_ceil(each.max(1)).clamp(1, MOST_BLOCKS) as u32
}

/// Bytes of elements.
pub fn bytes(elements: usize) -> Address {
    4 * elements as Address
}
