//! Weights in 16 bits, where products are computed in 16 bits: rounded once a step, not by every block that reads them.

use super::{device::Address, linear::parameter, product::Weight, recorder::Recorder};
use crate::graph::Op;
use bytemuck::{Pod, Zeroable};

/// Threads of a block, and elements that each has.
const BLOCK: usize = 256;
const ELEMENTS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PackedMatrix {
    from: Address,
    to: Address,
    rows: i32,
    columns: i32,
    from_stride: i32,
    stride: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PackWeights {
    matrices: Address,
    parts: Address,
    format: i32,
    pad: i32,
}

/// The copy that products read, or the matrix itself.
pub fn factor(r: &Recorder, weight: Weight) -> Weight {
    if r.multiply.half() == 0 { weight } else { r.packed[&weight] }
}

/// Copies all parameters that products read.
pub fn pack_parameters(r: &mut Recorder) {
    let matrix = |op: &Op| match *op {
        Op::Linear { weight, .. } | Op::LinearMax { weight, .. } | Op::NormLinearMax { weight, .. } => Some(weight),
        Op::LinearPair { inner, .. } => Some(inner),
        _ => None,
    };
    let weights: Vec<Weight> = r.plan.graph.nodes.iter().filter_map(|node| Some(parameter(r, matrix(&node.op)?))).collect();
    pack(r, &weights);
}

/// Copies matrices in one launch, each once, before anything reads the copies, which last.
pub fn pack(r: &mut Recorder, weights: &[Weight]) {
    let format = r.multiply.half();
    if format == 0 {
        return;
    }
    let (mut matrices, mut parts) = (Vec::new(), Vec::new());
    for weight in weights {
        if r.packed.contains_key(weight) {
            continue;
        }
        let stride = weight.columns.next_multiple_of(ELEMENTS);
        let to = r.lasting_scratch(weight.rows * stride / 2);
        r.packed.insert(*weight, Weight { at: to, stride, ..*weight });
        parts.extend((0..weight.rows * stride).step_by(ELEMENTS * BLOCK).map(|first| [matrices.len() as i32, first as i32]));
        let [rows, columns, from_stride, stride] = [weight.rows, weight.columns, weight.stride, stride].map(|n| n as i32);
        matrices.push(PackedMatrix { from: weight.at, to, rows, columns, from_stride, stride });
    }
    if !matrices.is_empty() {
        let arguments = PackWeights { matrices: r.constants(&matrices), parts: r.constants(&parts), format, pad: 0 };
        r.launch("pack_weights", [parts.len() as u32, 1, 1], BLOCK as u32, 0, &arguments);
    }
}
