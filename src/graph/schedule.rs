//! Which nodes a device may run in one go: chains of operations that work row by row.
//!
//! The rows of a tensor are a multiple of a count of the batch. One of that count, with its rows in every tensor, is a unit: an agent with
//! the 20, 10 and 5 rows of its history, a line with its modes, a token. An operation is local if unit u of its results needs unit u of its
//! operands alone. Local operations that follow one another can be done unit by unit, one block of threads having some units all the
//! way, with no wait for other blocks. A group is such a run of nodes; chains in it that have nothing to do with each other are its branches.

use super::{Graph, Node, Op, Pass, Place, RowMap, Symbol, TensorId};
use std::{collections::HashMap, ops::Range};

/// Nodes that run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// All of them, which follow one another.
    pub nodes: Range<usize>,
    /// The same as chains that are independent of each other; each in order.
    pub branches: Vec<Vec<usize>>,
    /// Whether the gradients of weights that nodes of this group and of those before have left ([`leaves_weights`]) are due at its end.
    pub settles: bool,
}

impl Group {
    fn of(node: usize) -> Self {
        Self { nodes: node..node + 1, branches: vec![vec![node]], settles: false }
    }
}

/// Linear layers whose gradients of weights should be computed together: enough to keep a device busy.
const TOGETHER: usize = 16;
/// Elements that should stay alive for such gradients (128 MiB of single precision).
const ALIVE: usize = 32 << 20;

/// Whether a device may compute the gradients of a node's weights later than the rest.
pub fn leaves_weights(node: &Node) -> bool {
    node.pass == Pass::Backward && matches!(node.op, Op::Linear { .. })
}

/// Every node by itself.
pub fn single(graph: &Graph) -> Vec<Group> {
    (0..graph.nodes.len()).map(|n| Group { settles: true, ..Group::of(n) }).collect()
}

/// Groups of nodes for which `local` says that the device can take them unit by unit; others stay by themselves. `elements` of a tensor
/// are those that it has room for.
pub fn grouped(graph: &Graph, local: impl Fn(&Node) -> bool, elements: impl Fn(TensorId) -> usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut open = Open::default();
    for (n, node) in graph.nodes.iter().enumerate() {
        let joins = local(node) && open.join(graph, n);
        if !joins {
            groups.extend(open.close(n));
            open = Open { start: n, ..Open::default() };
            if !local(node) || !open.join(graph, n) {
                groups.push(Group::of(n));
                open.start = n + 1;
            }
        }
    }
    groups.extend(open.close(graph.nodes.len()));
    let (mut left, mut alive, last) = (0, 0, groups.len().saturating_sub(1));
    for (g, group) in groups.iter_mut().enumerate() {
        for node in graph.nodes[group.nodes.clone()].iter().filter(|node| leaves_weights(node)) {
            left += 1;
            alive += node.inputs.iter().flatten().map(|id| elements(*id)).sum::<usize>();
        }
        group.settles = left >= TOGETHER || alive >= ALIVE || g == last;
        (left, alive) = if group.settles { (0, 0) } else { (left, alive) };
    }
    groups
}

/// The count whose units a node works on; none: its rows are a fixed number, which is one unit.
pub fn symbol(graph: &Graph, node: &Node) -> Option<Symbol> {
    let main = if node.pass == Pass::Backward { node.input(node.inputs.len() - 1) } else { node.output(0) };
    graph.tensor(main).rows.symbol
}

/// Whether a node reads operand `i` unit by unit.
fn reads_locally(graph: &Graph, node: &Node, i: usize) -> bool {
    let whole = match (&node.op, node.pass) {
        (Op::Gather { .. }, Pass::Forward) => i == 0,
        (Op::Add { map: RowMap::Periodic(_) } | Op::Outer, Pass::Forward) => i == 1,
        _ => false,
    };
    !whole && node.inputs[i].is_some_and(|id| graph.tensor(id).rows.symbol == symbol(graph, node))
}

/// Whether a node writes output `i` unit by unit.
fn writes_locally(graph: &Graph, node: &Node, i: usize) -> bool {
    let summed = matches!((&node.op, node.pass), (Op::Add { map: RowMap::Periodic(_) } | Op::Outer, Pass::Backward) if i == 1);
    !summed && node.outputs[i].is_some_and(|id| graph.tensor(id).rows.symbol == symbol(graph, node))
}

/// What a group has done to a tensor.
#[derive(Debug, Clone, Copy)]
struct Use {
    branch: usize,
    written: bool,
    /// By more than one branch, or not unit by unit.
    shared: bool,
}

/// A group that may grow.
#[derive(Default)]
struct Open {
    start: usize,
    branches: Vec<(Option<Symbol>, Vec<usize>)>,
    uses: HashMap<Option<TensorId>, Use>,
}

impl Open {
    /// Takes a node in, if it may run beside or behind those that are there.
    fn join(&mut self, graph: &Graph, n: usize) -> bool {
        let node = &graph.nodes[n];
        // The gradients of all parameters count as one tensor: parts of it may overlap.
        let key = |id: TensorId| (!matches!(graph.tensor(id).place, Place::Gradient(_))).then_some(id);
        let reads = (0..node.inputs.len()).filter_map(|i| Some((key(node.inputs[i]?), false, reads_locally(graph, node, i))));
        let writes = (0..node.outputs.len()).filter_map(|i| Some((key(node.outputs[i]?), true, writes_locally(graph, node, i))));
        let uses: Vec<(Option<TensorId>, bool, bool)> = reads.chain(writes).collect();
        let mut behind = Vec::new();
        for &(tensor, writes, locally) in &uses {
            let Some(before) = self.uses.get(&tensor).filter(|before| before.written || writes) else { continue };
            if before.shared || !locally || tensor.is_none() {
                return false;
            }
            behind.push(before.branch);
        }
        behind.sort_unstable();
        behind.dedup();
        if behind.iter().any(|&b| self.branches[b].0 != symbol(graph, node)) {
            return false;
        }
        let branch = self.merge(&behind, symbol(graph, node));
        self.branches[branch].1.push(n);
        for (tensor, written, locally) in uses {
            let entry = self.uses.entry(tensor).or_insert(Use { branch, written, shared: !locally });
            entry.shared |= !locally || entry.branch != branch;
            entry.written |= written;
        }
        true
    }

    /// One branch of several, or a new one; gives its number.
    fn merge(&mut self, branches: &[usize], symbol: Option<Symbol>) -> usize {
        let Some((&first, others)) = branches.split_first() else {
            self.branches.push((symbol, Vec::new()));
            return self.branches.len() - 1;
        };
        for &other in others {
            let nodes = std::mem::take(&mut self.branches[other].1);
            self.branches[first].1.extend(nodes);
            self.uses.values_mut().filter(|of| of.branch == other).for_each(|of| of.branch = first);
        }
        self.branches[first].1.sort_unstable();
        first
    }

    fn close(self, end: usize) -> Option<Group> {
        let branches: Vec<_> = self.branches.into_iter().map(|(_, nodes)| nodes).filter(|nodes| !nodes.is_empty()).collect();
        (self.start < end).then_some(Group { nodes: self.start..end, branches, settles: false })
    }
}
