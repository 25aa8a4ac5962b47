//! Appends the gradient of a scalar to a graph.

use super::{Element, Graph, Node, Op, Parameters, Pass, Place, Tensor, TensorId, op::Reads};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Walks the recorded nodes backwards once and appends the gradient nodes of `loss`, whose own gradient is 1.
///
/// Gradients of parameters are added to the gradient buffer. A tensor that does not lead to the loss gets none, nor does one
/// that only parameters in `frozen` (prefixes of names) lead to. An operation between others may add to the gradient of its
/// frozen parameters nevertheless.
///
/// # Errors
/// A parameter that does not reach the loss and is not in `frozen`: its gradient would silently be 0.
pub fn differentiate(graph: &mut Graph, loss: TensorId, parameters: &Parameters, frozen: &[&str]) -> Result<()> {
    let forward = graph.nodes.len();
    let needs = needs_gradient(graph, &trained(parameters, frozen));
    let seed = new_gradient(graph, loss);
    graph.gradients.insert(loss, seed);
    graph.seed = Some(seed);
    let mut touched = vec![false; parameters.len()];
    let mut again = again(graph);

    for index in (0..forward).rev() {
        let node = graph.nodes[index].clone();
        let result = node.output(0);
        let Some(&dy) = graph.gradients.get(&result) else { continue };
        for vector in node.op.parameters() {
            touched[vector.range()].fill(true);
        }
        if node.op == Op::Sum && node.operands.iter().all(|&x| needs[x.0] && is_read_once(graph, forward, x)) {
            // The gradient of each is that of the sum.
            graph.gradients.extend(node.operands.iter().map(|&x| (x, dy)));
            continue;
        }
        let (mut outputs, mut accumulate) = (Vec::new(), Vec::new());
        for (operand, &x) in node.inputs.iter().enumerate() {
            let x = x.expect("forward nodes have all operands");
            if let Place::Parameter(offset) = graph.tensor(x).place {
                let tensor = graph.tensor(x);
                touched[offset..offset + tensor.rows.times * tensor.width].fill(true);
            }
            if !needs[x.0] || !node.op.differentiable(operand) {
                outputs.push(None);
                accumulate.push(false);
                continue;
            }
            let is_parameter = matches!(graph.tensor(x).place, Place::Parameter(_));
            let known = graph.gradients.get(&x).copied();
            let dx = known.unwrap_or_else(|| {
                let dx = new_gradient(graph, x);
                graph.gradients.insert(x, dx);
                dx
            });
            outputs.push(Some(dx));
            accumulate.push(known.is_some() || is_parameter);
        }
        let (reads_operand, reads_output) = node.op.backward_reads();
        let mut inputs = reads(&node, reads_operand, reads_output);
        inputs[..node.inputs.len()].iter_mut().flatten().for_each(|x| *x = once_more(graph, &mut again, *x));
        inputs.push(Some(dy));
        graph.nodes.push(Node { pass: Pass::Backward, inputs, outputs, accumulate, ..node });
    }
    check_reachable(parameters, &touched, frozen)
}

/// Operands and outputs of a forward node that are read.
fn reads(node: &Node, operand: Reads, output: Reads) -> Vec<Option<TensorId>> {
    let operands = node.inputs.iter().enumerate().map(|(i, &x)| x.filter(|_| operand(i)));
    operands.chain(node.outputs.iter().enumerate().map(|(i, &y)| y.filter(|_| output(i)))).collect()
}

/// How gradients get at a result that is not kept for them.
#[derive(Clone, Copy)]
enum Remake {
    By(usize),
    Done(TensorId),
}

/// Results that are computed again for gradients, with their nodes: all that can be, but for those that are kept anyway.
fn again(graph: &Graph) -> HashMap<TensorId, Remake> {
    let able = graph.nodes.iter().enumerate().filter(|(_, node)| node.op.again_reads().is_some());
    let results = able.map(|(index, node)| (node.output(0), Remake::By(index)));
    results.filter(|(y, _)| graph.results.iter().all(|(_, kept)| kept != y)).collect()
}

/// The tensor that gradients read in place of x, which is computed before the first that does.
fn once_more(graph: &mut Graph, again: &mut HashMap<TensorId, Remake>, x: TensorId) -> TensorId {
    let index = match again.get(&x) {
        None => return x,
        Some(Remake::Done(y)) => return *y,
        Some(Remake::By(index)) => *index,
    };
    let (node, tensor) = (graph.nodes[index].clone(), graph.tensor(x).clone());
    let Some((operand, output)) = node.op.again_reads() else { return x };
    graph.tensors.push(tensor);
    let y = TensorId(graph.tensors.len() - 1);
    graph.nodes.push(Node { pass: Pass::Again, inputs: reads(&node, operand, output), outputs: vec![Some(y)], ..node });
    again.insert(x, Remake::Done(y));
    y
}

/// Whether a tensor of the arena is an operand of one of the first nodes alone, and once.
fn is_read_once(graph: &Graph, nodes: usize, x: TensorId) -> bool {
    let reads = graph.nodes[..nodes].iter().flat_map(|node| &node.inputs).filter(|&&input| input == Some(x));
    graph.tensor(x).place == Place::Arena && reads.count() == 1
}

/// Which elements of the parameter buffer are not frozen.
fn trained(parameters: &Parameters, frozen: &[&str]) -> Vec<bool> {
    let mut trained = vec![true; parameters.len()];
    for p in parameters.iter().filter(|p| !p.statistic && frozen.iter().any(|f| p.name.starts_with(f))) {
        trained[p.range()].fill(false);
    }
    trained
}

/// Which tensors lead from a trained parameter: those that have a gradient.
fn needs_gradient(graph: &Graph, trained: &[bool]) -> Vec<bool> {
    let trains = |offset: usize| trained.get(offset).copied().unwrap_or(false);
    let mut needs: Vec<bool> = graph.tensors.iter().map(|t| matches!(t.place, Place::Parameter(offset) if trains(offset))).collect();
    for node in &graph.nodes {
        let any = node.op.parameters().iter().any(|vector| trains(vector.offset))
            || node.inputs.iter().enumerate().any(|(i, x)| node.op.differentiable(i) && x.is_some_and(|x| needs[x.0]));
        if any {
            needs[node.output(0).0] = true;
        }
    }
    needs
}

/// The gradient's tensor: for a parameter a view of the gradient buffer, otherwise new room in the arena.
fn new_gradient(graph: &mut Graph, of: TensorId) -> TensorId {
    let tensor = graph.tensor(of).clone();
    let place = if let Place::Parameter(offset) = tensor.place { Place::Gradient(offset) } else { Place::Arena };
    graph.tensors.push(Tensor { name: format!("d({})", tensor.name), element: Element::Real, place, ..tensor });
    TensorId(graph.tensors.len() - 1)
}

fn check_reachable(parameters: &Parameters, touched: &[bool], frozen: &[&str]) -> Result<()> {
    for p in parameters.iter().filter(|p| !p.statistic) {
        if !touched[p.range()].iter().all(|&t| t) && !frozen.iter().any(|f| p.name.starts_with(f)) {
            return Err(Error::Graph(format!("parameter '{}' does not reach the loss", p.name)));
        }
    }
    Ok(())
}
