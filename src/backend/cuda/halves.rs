//! Tensors in 16 bits, where products are computed in 16 bits: only products look at them, and what makes sums of them in single precision.
//! A step's time goes to bytes.

use super::recorder::Multiply;
use crate::graph::{Activation, Element, Graph, Node, Op, Pass, Place, TensorId};
use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

/// Rows of halves begin at multiples of 16 bytes.
const COLUMNS: usize = 8;

/// Which tensors of a graph are.
pub fn of(graph: &Graph, multiply: Multiply) -> Vec<TensorId> {
    if multiply.half() == 0 {
        return Vec::new();
    }
    let (mut made, mut elsewhere) = (vec![false; graph.tensors.len()], vec![false; graph.tensors.len()]);
    for node in &graph.nodes {
        let (inputs, outputs) = places(node);
        for (tensors, taken) in [(&node.inputs, inputs), (&node.outputs, outputs)] {
            for (place, id) in tensors.iter().enumerate().filter_map(|(place, id)| Some((place, (*id)?))) {
                made[id.0] = true;
                elsewhere[id.0] |= !taken.contains(&place);
            }
        }
    }
    let fits = |id: &TensorId| {
        let tensor = graph.tensor(*id);
        tensor.place == Place::Arena && tensor.element == Element::Real && tensor.width.is_multiple_of(COLUMNS)
    };
    (0..graph.tensors.len()).filter(|&i| made[i] && !elsewhere[i]).map(TensorId).filter(fits).collect()
}

/// Inputs and outputs of a node that may be halves, by their places in its lists.
fn places(node: &Node) -> (&'static [usize], &'static [usize]) {
    match (&node.op, node.pass) {
        (Op::LayerNorm { .. } | Op::LinearNorm { .. }, Pass::Forward) => (&[], &[0]),
        // Only what GELU gives: gradients do not look at it.
        (Op::Linear { activation: Activation::Gelu, .. }, Pass::Forward | Pass::Again) => (&[0], &[0]),
        (Op::Linear { .. }, Pass::Forward | Pass::Backward) => (&[0], &[]),
        // y and its gradient
        (Op::LinearNorm { .. }, Pass::Backward) => (&[1, 3], &[]),
        (Op::LinearMax { .. } | Op::NormLinearMax { .. }, Pass::Forward) => (&[0], &[]),
        (Op::LinearMax { .. } | Op::NormLinearMax { .. }, Pass::Backward) => (&[0], &[0]),
        (Op::LinearPair { .. }, Pass::Forward) => (&[0], &[0]),
        // x and the gradient of y; that of x
        (Op::LinearPair { .. }, Pass::Backward) => (&[0, 4], &[0]),
        _ => (&[], &[]),
    }
}

/// Values of halves as single precision.
pub fn widen(bits: &[u16], multiply: Multiply, values: &mut [f32]) {
    match multiply {
        Multiply::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(values),
        _ => bits.reinterpret_cast::<bf16>().convert_to_f32_slice(values),
    }
}
