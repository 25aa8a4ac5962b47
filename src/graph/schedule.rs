//! Which nodes a device may run in one go: chains of operations that work row by row.
//!
//! The rows of a tensor are a multiple of a count of the batch. One of that count, with its rows in every tensor, is a unit: an agent with
//! the 20, 10 and 5 rows of its history, a line with its modes, a token. An operation is local if unit u of its results needs unit u of its
//! operands alone. Local operations that follow one another can be done unit by unit, one block of threads having some units all the
//! way, with no wait for other blocks. A group is such a run of nodes; chains in it that have nothing to do with each other are its branches.

use super::{Graph, Node, Op, Pass, RowMap, Rows, Symbol, TensorId};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

/// Nodes that run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// All of them.
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

/// Gradients of weights should be computed together, to keep a device busy, but what they read stays alive until then: at most so many
/// layers, and so many elements.
const TOGETHER: usize = 48;
const KEPT: usize = 32 << 20;

/// Whether a device may compute the gradients of a node's weights later than the rest.
pub fn leaves_weights(node: &Node) -> bool {
    node.pass == Pass::Backward
        && matches!(
            node.op,
            Op::Linear { .. } | Op::LinearNorm { .. } | Op::LinearMax { .. } | Op::NormLinearMax { .. } | Op::LinearPair { .. }
        )
}

/// What a node computes from parameters alone: a device may do so before the first node.
pub fn comes_first(node: &Node) -> Option<TensorId> {
    (node.pass == Pass::Forward && matches!(node.op, Op::LinearPair { .. })).then(|| node.output(1))
}

/// Every node by itself.
pub fn single(graph: &Graph) -> Vec<Group> {
    (0..graph.nodes.len()).map(|n| Group { settles: true, ..Group::of(n) }).collect()
}

/// Groups of nodes for which `local` says that the device can take them unit by unit; others stay by themselves. Nodes change their
/// places so that there are few groups; those that touch the same tensor stay in order.
pub fn grouped(graph: &mut Graph, capacity: &[usize], local: impl Fn(&Graph, &Node) -> bool) -> Vec<Group> {
    let local: Vec<bool> = graph.nodes.iter().map(|node| local(graph, node)).collect();
    if !local.contains(&true) {
        return single(graph);
    }
    let mut waiting = Waiting::new(graph);
    let (mut order, mut groups) = (Vec::with_capacity(local.len()), Vec::new());
    while order.len() < local.len() {
        let mut open = Open::default();
        while let Some(n) = waiting.ready.iter().copied().find(|&n| local[n] && open.join(graph, n)) {
            waiting.take(n);
            order.push(n);
        }
        let branches: Vec<Vec<usize>> = open.branches.into_iter().map(|(_, nodes)| nodes).filter(|nodes| !nodes.is_empty()).collect();
        groups.extend((!branches.is_empty()).then_some(branches));
        for n in waiting.ready.iter().copied().filter(|&n| !local[n]).collect::<Vec<_>>() {
            waiting.take(n);
            order.push(n);
            groups.push(vec![vec![n]]);
        }
    }
    let mut groups = in_order(graph, &order, groups);
    settle(graph, capacity, &mut groups);
    groups
}

/// Puts the nodes in a new order, and gives the groups, branches of old numbers, in new ones.
fn in_order(graph: &mut Graph, order: &[usize], groups: Vec<Vec<Vec<usize>>>) -> Vec<Group> {
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.iter().filter_map(|&n| nodes[n].take()).collect();
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, &old)| place[old] = new);
    let mut start = 0;
    let renumbered = groups.into_iter().map(|mut branches| {
        branches.iter_mut().flatten().for_each(|n| *n = place[*n]);
        let nodes = start..start + branches.iter().map(Vec::len).sum::<usize>();
        start = nodes.end;
        Group { nodes, branches, settles: false }
    });
    renumbered.collect()
}

/// Decides which groups gradients of weights are due at.
fn settle(graph: &Graph, capacity: &[usize], groups: &mut [Group]) {
    let elements = |id: &TensorId| graph.tensor(*id).rows.resolve(capacity) * graph.tensor(*id).width;
    let (mut left, mut kept, last) = (0, 0, groups.len().saturating_sub(1));
    for (g, group) in groups.iter_mut().enumerate() {
        for node in graph.nodes[group.nodes.clone()].iter().filter(|node| leaves_weights(node)) {
            left += 1;
            kept += node.inputs.iter().flatten().map(elements).sum::<usize>();
        }
        group.settles = left >= TOGETHER || kept >= KEPT || g == last;
        if group.settles {
            (left, kept) = (0, 0);
        }
    }
}

/// Nodes that have not been taken, by their numbers.
struct Waiting {
    /// Those whose turn has come.
    ready: BTreeSet<usize>,
    /// Nodes that each waits for, and those that wait for it.
    before: Vec<usize>,
    behind: Vec<Vec<usize>>,
}

impl Waiting {
    /// A node waits for those before it that write what it reads or writes, or read what it writes; one that computes a result again also
    /// for what the first reader of the result waits for.
    fn new(graph: &Graph) -> Self {
        let count = graph.nodes.len();
        let mut waiting = Self { ready: BTreeSet::new(), before: vec![0; count], behind: vec![Vec::new(); count] };
        // The last that wrote each tensor, and those that have read it since.
        let mut uses: HashMap<TensorId, (Option<usize>, Vec<usize>)> = HashMap::new();
        for (n, node) in graph.nodes.iter().enumerate() {
            let mut first: BTreeSet<usize> = BTreeSet::new();
            for id in node.inputs.iter().flatten() {
                let (written, read) = uses.entry(*id).or_default();
                first.extend(*written);
                read.push(n);
            }
            for id in node.outputs.iter().flatten() {
                let (written, read) = uses.entry(*id).or_default();
                first.extend(written.replace(n));
                first.extend(read.drain(..));
            }
            if node.pass == Pass::Again {
                let reader = graph.nodes[n..].iter().find(|other| other.inputs.contains(&node.outputs[0]));
                let beside = reader.iter().flat_map(|reader| &reader.inputs).flatten();
                first.extend(beside.filter_map(|id| uses.get(id).and_then(|(written, _)| *written)));
            }
            first.remove(&n);
            waiting.before[n] = first.len();
            first.iter().for_each(|&f| waiting.behind[f].push(n));
            if first.is_empty() {
                waiting.ready.insert(n);
            }
        }
        waiting
    }

    fn take(&mut self, n: usize) {
        self.ready.remove(&n);
        for other in std::mem::take(&mut self.behind[n]) {
            self.before[other] -= 1;
            if self.before[other] == 0 {
                self.ready.insert(other);
            }
        }
    }
}

/// Rows of a node's result, or backward of its gradient.
pub fn rows(graph: &Graph, node: &Node) -> Rows {
    let main = if node.pass == Pass::Backward { node.input(node.inputs.len() - 1) } else { node.output(0) };
    graph.tensor(main).rows
}

/// The count whose units a node works on; none: its rows are a fixed number, which is one unit.
pub fn symbol(graph: &Graph, node: &Node) -> Option<Symbol> {
    rows(graph, node).symbol
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

/// Whether output `i` of a node is a sum over units.
fn sums_units(node: &Node, i: usize) -> bool {
    match (&node.op, node.pass) {
        (Op::Gather { .. }, Pass::Backward) => i == 0,
        (Op::Add { map: RowMap::Periodic(_) } | Op::Outer, Pass::Backward) => i == 1,
        _ => false,
    }
}

/// Whether a node writes output `i` unit by unit.
fn writes_locally(graph: &Graph, node: &Node, i: usize) -> bool {
    !sums_units(node, i) && node.outputs[i].is_some_and(|id| graph.tensor(id).rows.symbol == symbol(graph, node))
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
    branches: Vec<(Option<Symbol>, Vec<usize>)>,
    uses: HashMap<Option<TensorId>, Use>,
}

impl Open {
    /// Takes a node in, if it may run beside or behind those that are there.
    fn join(&mut self, graph: &Graph, n: usize) -> bool {
        let node = &graph.nodes[n];
        // The gradients of all parameters count as one tensor: parts of it may overlap. Sums over units are left to the end.
        let gradient = |id: TensorId| graph.tensor(id).place.is_gradient();
        let key = |id: TensorId| (!gradient(id)).then_some(id);
        let later = |i: usize, id: TensorId| gradient(id) && sums_units(node, i);
        let reads = (0..node.inputs.len()).filter_map(|i| Some((key(node.inputs[i]?), false, reads_locally(graph, node, i))));
        let writes = (0..node.outputs.len()).filter_map(|i| Some((i, node.outputs[i]?))).filter(|&(i, id)| !later(i, id));
        let writes = writes.map(|(i, id)| (key(id), true, writes_locally(graph, node, i)));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Mode};

    #[test]
    fn local_nodes_run_together_and_in_order() {
        let mut b = Builder::new(Mode::Evaluate);
        let (x, y) = (b.input("x", 0, Rows::of(Symbol(0)), 3), b.input("y", 1, Rows::of(Symbol(1)), 3));
        let first = b.add(x, x, RowMap::Same).unwrap();
        let whole = b.concat(&[first, y], Rows::of(Symbol(2))).unwrap();
        let second = b.add(first, x, RowMap::Same).unwrap();
        let other = b.add(y, y, RowMap::Same).unwrap();
        let last = b.add(whole, whole, RowMap::Same).unwrap();
        let mut graph = b.finish();
        let groups = grouped(&mut graph, &[4, 4, 8], |_, node| !matches!(node.op, Op::Concat));
        let results: Vec<Vec<Vec<TensorId>>> = groups
            .iter()
            .map(|group| group.branches.iter().map(|nodes| nodes.iter().map(|&n| graph.nodes[n].output(0)).collect()).collect())
            .collect();
        assert_eq!(results, [vec![vec![first, second], vec![other]], vec![vec![whole]], vec![vec![last]]]);
        assert_eq!(groups.iter().map(|group| group.nodes.clone()).collect::<Vec<_>>(), [0..3, 3..4, 4..5]);
        assert_eq!(groups.iter().map(|group| group.settles).collect::<Vec<_>>(), [false, false, true]);
    }
}
