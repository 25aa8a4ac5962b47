//! Gives every tensor of a graph a fixed place in one arena from its lifetime, for batches up to some capacity.

use super::{
    Element, Graph, Node, Place, TensorId,
    schedule::{self, Group},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Elements to which places are aligned (64 bytes of single precision).
const ALIGNMENT: usize = 16;

/// A graph with a place for every tensor.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is run.
    pub graph: Graph,
    /// Its nodes as groups that may run in one go, in order.
    pub groups: Vec<Group>,
    /// Largest count of each symbol that the places allow.
    pub capacity: Vec<usize>,
    /// Elements of the arena of reals.
    pub real_len: usize,
    /// Elements of the arena of indexes.
    pub index_len: usize,
    offsets: Vec<usize>,
    id: u64,
}

impl Plan {
    /// Plans `graph` for batches whose counts are at most `capacity`.
    pub fn new(graph: Graph, capacity: Vec<usize>) -> Self {
        let groups = schedule::single(&graph);
        Self::of_groups(graph, capacity, groups)
    }

    /// As [`Plan::new`], for a device that may run nodes together for which `local` says so, see [`schedule`], and stores the tensors `halves` in
    /// 16 bits.
    pub fn grouped(mut graph: Graph, capacity: Vec<usize>, local: impl Fn(&Graph, &Node) -> bool, halves: &[TensorId]) -> Self {
        for id in halves {
            graph.tensors[id.0].element = Element::Half;
        }
        let groups = schedule::grouped(&mut graph, &capacity, local);
        Self::of_groups(graph, capacity, groups)
    }

    fn of_groups(graph: Graph, capacity: Vec<usize>, groups: Vec<Group>) -> Self {
        let spans = lifetimes(&graph, &groups);
        static PLANS: AtomicU64 = AtomicU64::new(0);
        let (id, offsets) = (PLANS.fetch_add(1, Ordering::Relaxed), vec![usize::MAX; graph.tensors.len()]);
        let mut plan = Self { offsets, graph, groups, capacity, real_len: 0, index_len: 0, id };
        plan.real_len = plan.place(&[Element::Real, Element::Half], &spans);
        plan.index_len = plan.place(&[Element::Index], &spans);
        plan
    }

    /// A number that no other plan of this process has, but for copies: backends know by it what they have prepared.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// First element of a tensor of the arena, in elements of the run's precision.
    pub fn offset(&self, id: TensorId) -> usize {
        self.offsets[id.0]
    }

    /// True if a batch with these counts fits.
    pub fn fits(&self, counts: &[usize]) -> bool {
        counts.len() == self.capacity.len() && counts.iter().zip(&self.capacity).all(|(n, max)| n <= max)
    }

    /// Places all tensors of some kinds of elements, the largest first, each in the smallest gap that it fits in; gives the arena's length.
    fn place(&mut self, elements: &[Element], spans: &[Option<(usize, usize)>]) -> usize {
        let mut order: Vec<Placed> = (0..self.graph.tensors.len())
            .filter(|&i| elements.contains(&self.graph.tensors[i].element) && self.graph.tensors[i].place == Place::Arena)
            .filter_map(|i| Some(Placed { tensor: i, offset: 0, len: self.room(i), span: spans[i]? }))
            .collect();
        order.sort_by_key(|new| (std::cmp::Reverse(new.len), new.span));
        // By offset.
        let mut placed: Vec<Placed> = Vec::new();
        for mut new in order {
            let (mut end, mut best) = (0, None);
            for other in placed.iter().filter(|other| other.meets(&new)) {
                let gap = other.offset.saturating_sub(end);
                if gap >= new.len && best.is_none_or(|(least, _)| gap < least) {
                    best = Some((gap, end));
                }
                end = end.max(other.offset + other.len);
            }
            new.offset = best.map_or(end, |(_, offset)| offset);
            self.offsets[new.tensor] = new.offset;
            placed.insert(placed.partition_point(|other| other.offset <= new.offset), new);
        }
        placed.iter().map(|tensor| tensor.offset + tensor.len).max().unwrap_or(0)
    }

    /// Elements of the run's precision that a tensor takes; of single precision if there are halves.
    fn room(&self, tensor: usize) -> usize {
        let tensor = &self.graph.tensors[tensor];
        let elements = tensor.rows.resolve(&self.capacity) * tensor.width;
        let elements = if tensor.element == Element::Half { elements.div_ceil(2) } else { elements };
        elements.next_multiple_of(ALIGNMENT)
    }

    /// Elements of reals that are alive at once, by group: with the best of places, the arena would be as long as the largest.
    pub fn alive(&self) -> Vec<usize> {
        let spans = lifetimes(&self.graph, &self.groups);
        let mut alive = vec![0; self.groups.len() + 1];
        for (i, tensor) in self.graph.tensors.iter().enumerate() {
            if let Some((first, last)) = spans[i].filter(|_| tensor.element != Element::Index && tensor.place == Place::Arena) {
                alive[first..=last].iter_mut().for_each(|sum| *sum += self.room(i));
            }
        }
        alive
    }
}

/// A tensor with its place, from its first group to its last.
struct Placed {
    tensor: usize,
    offset: usize,
    len: usize,
    span: (usize, usize),
}

impl Placed {
    fn meets(&self, other: &Self) -> bool {
        self.span.0 <= other.span.1 && other.span.0 <= self.span.1
    }
}

/// First and last group that touches each tensor; results live to the end.
fn lifetimes(graph: &Graph, groups: &[Group]) -> Vec<Option<(usize, usize)>> {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; graph.tensors.len()];
    for (g, group) in groups.iter().enumerate() {
        for id in graph.nodes[group.nodes.clone()].iter().flat_map(|node| node.inputs.iter().chain(&node.outputs)).flatten() {
            let span = spans[id.0].get_or_insert((g, g));
            span.1 = span.1.max(g);
        }
        // What gradients of weights are made of stays until they are.
        let until = g + groups[g..].iter().position(|group| group.settles).unwrap_or(0);
        for id in
            graph.nodes[group.nodes.clone()].iter().filter(|node| schedule::leaves_weights(node)).flat_map(|node| &node.inputs).flatten()
        {
            spans[id.0].get_or_insert((g, g)).1 = until;
        }
        for id in graph.nodes[group.nodes.clone()].iter().filter_map(schedule::comes_first) {
            spans[id.0].get_or_insert((g, g)).0 = 0;
        }
    }
    for id in graph.results.iter().map(|(_, id)| *id) {
        if let Some(span) = &mut spans[id.0] {
            span.1 = groups.len();
        }
    }
    if let Some(span) = graph.seed.and_then(|seed| spans[seed.0].as_mut()) {
        span.0 = 0;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Mode, RowMap, Rows, Symbol};

    #[test]
    fn places_of_living_tensors_do_not_overlap() {
        let mut b = Builder::new(Mode::Evaluate);
        let x = b.input("x", 0, Rows::of(Symbol(0)), 5);
        let mut chain = vec![b.add(x, x, RowMap::Same).unwrap()];
        for i in 0..6 {
            let next = b.add(chain[i], chain[i / 2], RowMap::Same).unwrap();
            chain.push(next);
        }
        b.result("y", chain[1]);
        let plan = Plan::new(b.finish(), vec![7]);
        let spans = lifetimes(&plan.graph, &plan.groups);
        let places: Vec<_> = (0..plan.graph.tensors.len())
            .filter_map(|i| spans[i].filter(|_| plan.graph.tensors[i].place == Place::Arena).map(|s| (plan.offsets[i], s)))
            .collect();
        for (i, a) in places.iter().enumerate() {
            for b in &places[i + 1..] {
                let together = a.1.0 <= b.1.1 && b.1.0 <= a.1.1;
                assert!(!together || a.0.abs_diff(b.0) >= 35, "{a:?} {b:?}");
            }
        }
        assert!(plan.real_len < 48 * chain.len(), "memory is used again");
        assert!(plan.alive().iter().all(|&alive| alive <= plan.real_len));
        assert!(plan.fits(&[7]) && !plan.fits(&[8]));
    }
}
