//! What the launches of a step have to do, and how long each takes: rows of a table, one for all groups of nodes that are alike.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use training_engine::{
    backend::cuda::device::Launch,
    graph::{
        Feed, Graph, Node, Op, Pass, Place, Plan, TensorId,
        schedule::{Group, leaves_weights},
    },
};

/// Operations of products, two for a multiplication with its addition, and bytes that are read or written at least: every tensor and
/// matrix once, in single precision.
#[derive(Clone, Copy, Default)]
pub struct Work {
    pub flops: f64,
    pub bytes: f64,
}

/// Groups that are alike, such as those of the layers of an encoder.
#[derive(Default)]
pub struct Row {
    pub kernels: BTreeSet<String>,
    pub groups: usize,
    pub launches: usize,
    /// Of the largest launch.
    pub blocks: u32,
    pub work: Work,
    pub seconds: f64,
}

impl Row {
    fn add(&mut self, launches: &[(Launch, f64)], work: Work) {
        self.groups += 1;
        for (launch, seconds) in launches {
            self.kernels.insert(launch.kernel.clone());
            self.launches += 1;
            self.blocks = self.blocks.max(launch.grid.iter().product());
            self.seconds += seconds;
        }
        self.work.flops += work.flops;
        self.work.bytes += work.bytes;
    }
}

/// Rows by name, of launches with the seconds that each took; `ends` says how many there are until a node is done.
pub fn rows(plan: &Plan, feed: &Feed, ends: &[usize], timed: &[(Launch, f64)]) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut left: Vec<&Node> = Vec::new();
    let mut done = 0;
    for group in &plan.groups {
        let launches = &timed[done..ends[group.nodes.end - 1]];
        done = ends[group.nodes.end - 1];
        let nodes = &plan.graph.nodes[group.nodes.clone()];
        left.extend(nodes.iter().filter(|node| leaves_weights(node)));
        let is_of_weights = |(launch, _): &(Launch, f64)| launch.kernel.starts_with("linear_dw");
        let last = launches.iter().rposition(is_of_weights);
        let weights = last.map(|last| launches[..last].iter().rposition(|launch| !is_of_weights(launch)).map_or(0, |before| before + 1));
        let split = weights.filter(|_| group.settles && !left.is_empty()).unwrap_or(launches.len());
        rows.entry(name(nodes)).or_default().add(&launches[..split], of_group(&plan.graph, group, feed));
        if split < launches.len() {
            let mut work = Work::default();
            left.drain(..).for_each(|node| add_weights(&mut work, &plan.graph, node, feed));
            rows.entry("gradients of weights".into()).or_default().add(&launches[split..], work);
        }
    }
    rows.entry("what is left to the end".into()).or_default().add(&timed[done..], Work::default());
    rows
}

/// Of nodes that run together: where the first is, what it does, and how many follow; layers count as one.
fn name(nodes: &[Node]) -> String {
    let first = &nodes[0];
    let mut parts: Vec<&str> = first.name.split('.').map(|part| if part.parse::<usize>().is_ok() { "*" } else { part }).collect();
    parts.dedup();
    parts.pop();
    let pass = format!("{:?}", first.pass).to_lowercase();
    let more = if nodes.len() > 1 { format!(" +{}", nodes.len() - 1) } else { String::new() };
    let place = parts.iter().map(|part| format!("{part}.")).collect::<String>();
    format!("{pass} {place}{}{more}", first.op.name())
}

/// Of all that is done within a group, without gradients of weights that are left to others.
fn of_group(graph: &Graph, group: &Group, feed: &Feed) -> Work {
    let mut work = Work::default();
    let mut seen = HashSet::new();
    for node in &graph.nodes[group.nodes.clone()] {
        work.flops += flops(graph, node, feed);
        work.bytes += 4.0 * matrices(&node.op) as f64;
        // What a node of the group has made is not read again.
        for id in node.inputs.iter().chain(&node.outputs).flatten() {
            if seen.insert(*id) {
                work.bytes += bytes(graph, *id, feed);
            }
        }
        for (id, _) in node.outputs.iter().zip(&node.accumulate).filter(|(_, accumulates)| **accumulates) {
            work.bytes += id.map_or(0.0, |id| bytes(graph, id, feed));
        }
    }
    work
}

/// The gradient of a linear layer's matrix.
fn add_weights(work: &mut Work, graph: &Graph, node: &Node, feed: &Feed) {
    let (Op::Linear { weight, .. } | Op::LinearNorm { weight, .. }) = &node.op else { return };
    let rows = graph.tensor(node.operands[0]).rows.resolve(&feed.counts);
    let elements = rows * (weight.rows + weight.columns) + weight.rows * weight.columns;
    work.flops += product(rows, weight.rows, weight.columns);
    work.bytes += 4.0 * elements as f64;
}

fn bytes(graph: &Graph, id: TensorId, feed: &Feed) -> f64 {
    let tensor = graph.tensor(id);
    // The gradients of parameters are those of `matrices`.
    let elements = if matches!(tensor.place, Place::Gradient(_)) { 0 } else { tensor.rows.resolve(&feed.counts) * tensor.width };
    4.0 * elements as f64
}

/// Elements of a node's matrices.
fn matrices(op: &Op) -> usize {
    match op {
        Op::Linear { weight, .. } | Op::LinearNorm { weight, .. } | Op::LinearMax { weight, .. } | Op::NormLinearMax { weight, .. } => {
            weight.rows * weight.columns
        }
        Op::LinearPair { inner, outer, .. } => inner.rows * inner.columns + outer.rows * outer.columns,
        _ => 0,
    }
}

fn product(rows: usize, n: usize, k: usize) -> f64 {
    2.0 * rows as f64 * n as f64 * k as f64
}

/// Of products alone; of a linear layer backward that of its operand.
fn flops(graph: &Graph, node: &Node, feed: &Feed) -> f64 {
    let rows = graph.tensor(node.operands[0]).rows.resolve(&feed.counts);
    let backward = node.pass == Pass::Backward;
    let with_gradient = |i: usize| if node.outputs[i].is_some() { 1.0 } else { 0.0 };
    match &node.op {
        Op::LinearNorm { weight, .. } => product(rows, weight.rows, weight.columns) * if backward { 0.0 } else { 1.0 },
        Op::Linear { weight, .. } => product(rows, weight.rows, weight.columns) * if backward { with_gradient(0) } else { 1.0 },
        Op::LinearMax { weight, .. } => product(rows, weight.rows, weight.columns) * if backward { 1.0 + with_gradient(0) } else { 1.0 },
        Op::NormLinearMax { weight, .. } => {
            product(rows, weight.rows, weight.columns) * if backward { 2.0 + with_gradient(0) } else { 1.0 }
        }
        Op::LinearPair { inner, outer, .. } => {
            product(rows, outer.rows, inner.columns) * if backward { 1.0 + with_gradient(0) } else { 1.0 }
        }
        // Two products forward, five backward.
        Op::Attention(spec) => {
            let list = &feed.indexes[feed.index_slots[spec.segments].clone()];
            let pairs: f64 = list.chunks_exact(6).map(|s| f64::from(s[1]) * f64::from(s[4])).sum();
            2.0 * pairs * (spec.heads * spec.head_width) as f64 * if backward { 5.0 } else { 2.0 }
        }
        Op::Neighborhood { window, .. } => {
            let width = graph.tensor(node.operands[0]).width / 3;
            product(rows, width, *window) * if backward { 5.0 } else { 2.0 }
        }
        _ => 0.0,
    }
}
