//! What is computed, without saying how: a flat list of operations on matrices, recorded once and run many times.
//!
//! - [`builder`]: records operations with checked shapes; the model is written against it.
//! - [`op`]: every operation, its formula, and what its gradient reads.
//! - [`autodiff`]: appends the gradient operations.
//! - [`plan`]: gives every tensor a fixed place in one arena from its lifetime.
//! - [`parameters`]: names, shapes and places in the flat parameter buffer.
//! - [`feed`]: what changes from batch to batch: row counts, inputs, index lists.
//! - [`random`]: counter-based random numbers.
//! - [`schedule`]: which nodes may run in one go.
//!
//! Every tensor is a row-major matrix `[rows, width]`. The number of rows may depend on the batch: it is a [`Rows`], a
//! multiple of one of the batch's counts, so that rows which a mask excludes do not exist at all.

pub mod autodiff;
pub mod builder;
pub mod feed;
pub mod op;
pub mod parameters;
pub mod plan;
pub mod random;
pub mod schedule;

pub use builder::{Builder, Mode};
pub use feed::{Feed, Reals, RealsRef, Scalar, Step};
pub use op::{Activation, Attention, Deviation, Folded, MOST_CANDIDATES, MOST_MOMENTS, Measure, Op, RowMap, Subject};
pub use parameters::{Matrix, Parameter, Parameters, Scope, Vector};
pub use plan::Plan;
use std::ops::Range;

/// Most numbers that a graph's [`Graph::numbers`] are.
pub const MOST_NUMBERS: usize = 64;

/// Index of a tensor in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// A count that the batch states: how many agents, tokens, ... it holds. The owner of the feed gives them meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Symbol(pub usize);

/// A number of rows: a constant, or a multiple of a count of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rows {
    /// The count; none for a constant.
    pub symbol: Option<Symbol>,
    /// Factor, or the constant.
    pub times: usize,
}

impl Rows {
    /// A constant number.
    pub const fn fixed(times: usize) -> Self {
        Self { symbol: None, times }
    }
    /// One row for each of a count.
    pub const fn of(symbol: Symbol) -> Self {
        Self { symbol: Some(symbol), times: 1 }
    }
    /// `times` rows for each of these.
    pub const fn times(self, times: usize) -> Self {
        Self { symbol: self.symbol, times: self.times * times }
    }
    /// The number, given the batch's counts.
    pub fn resolve(self, counts: &[usize]) -> usize {
        self.symbol.map_or(1, |s| counts[s.0]) * self.times
    }
}

/// What a tensor's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// The precision of the run.
    Real,
    /// 16 bits, where the plan's backend wants it so.
    Half,
    /// `i32`, for positions that a forward operation remembers for its gradient.
    Index,
}

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the feed, under this slot.
    Input(usize),
    /// In the flat parameter buffer at this offset.
    Parameter(usize),
    /// In the flat gradient buffer at this offset, which is that of its parameter.
    Gradient(usize),
    /// In the arena; the plan says where.
    Arena,
}

impl Place {
    /// Whether it is the gradient of a parameter.
    pub fn is_gradient(self) -> bool {
        matches!(self, Self::Gradient(_))
    }
}

/// A matrix `[rows, width]`.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Dotted name of the scope and operation that made it.
    pub name: String,
    /// Number of rows.
    pub rows: Rows,
    /// Number of columns.
    pub width: usize,
    /// What its elements are.
    pub element: Element,
    /// Where it lies.
    pub place: Place,
}

/// Direction of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Computes `outputs` from `inputs`. `outputs[0]` is the result, others are kept for the gradient.
    Forward,
    /// Computes the gradients of the forward node's inputs.
    Backward,
    /// Computes the forward node's result once more, for gradients that read it: it is cheaper to compute than to keep.
    Again,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Node {
    /// Dotted name.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Forward or backward.
    pub pass: Pass,
    /// Forward: the operands. Again: the forward node's operands, then its outputs (`None` where they are not read).
    /// Backward: the same, then the gradient of `outputs[0]`.
    pub inputs: Vec<Option<TensorId>>,
    /// The forward node's operands, for their shapes: in a backward node their values may be gone.
    pub operands: Vec<TensorId>,
    /// Forward: result and remembered tensors. Again: the result. Backward: the gradient of each forward operand, `None` where there
    /// is none.
    pub outputs: Vec<Option<TensorId>>,
    /// Backward: add to the output instead of overwriting it. Parameter gradients are always added to.
    pub accumulate: Vec<bool>,
    /// Number that keeps the random numbers of this node apart from all others'.
    pub stream: u32,
}

impl Node {
    /// Operand `i`, which this operation always has.
    pub fn input(&self, i: usize) -> TensorId {
        self.inputs[i].expect("operand of the node")
    }
    /// Output `i`, which this operation always has.
    pub fn output(&self, i: usize) -> TensorId {
        self.outputs[i].expect("output of the node")
    }
}

/// A recorded computation.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All operations in the order in which they run.
    pub nodes: Vec<Node>,
    /// Gradient of a tensor, after [`autodiff`].
    pub gradients: std::collections::HashMap<TensorId, TensorId>,
    /// Gradient of the loss, which the backend sets to 1 before the first backward node; none without [`autodiff`].
    pub seed: Option<TensorId>,
    /// Results that stay readable after the run, by name.
    pub results: Vec<(String, TensorId)>,
}

impl Graph {
    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }
    /// A named result.
    pub fn result(&self, name: &str) -> Option<TensorId> {
        self.results.iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }
    /// Results that are one row whatever the batch, such as losses, and the places of their numbers in a report.
    pub fn numbers(&self) -> impl Iterator<Item = (TensorId, Range<usize>)> {
        let mut end = 0;
        let row = |id: &TensorId| {
            let tensor = self.tensor(*id);
            tensor.rows == Rows::fixed(1) && tensor.place == Place::Arena && tensor.element == Element::Real
        };
        let rows = self.results.iter().map(|(_, id)| *id).filter(row);
        rows.map(move |id| {
            let start = end;
            end += self.tensor(id).width;
            (id, start..end)
        })
        .take_while(|(_, place)| place.end <= MOST_NUMBERS)
    }
    /// How many of the numbers are losses: the single ones before all others.
    pub fn losses(&self) -> usize {
        self.numbers().take_while(|(_, place)| place.len() == 1).count()
    }
}
