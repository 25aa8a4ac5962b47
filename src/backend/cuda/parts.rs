//! Operations that put several operands together; what they do is in `rows.cuh` and `rows.cu`.

use super::{
    chain::Kind,
    device::Address,
    recorder::{Recorder, Reference, RowCount},
    rows::{BLOCK, lanes, row_grid},
};
use crate::{
    error::{Error, Result},
    graph::{Rows, TensorId},
};
use bytemuck::{Pod, Zeroable};

/// Most operands.
const MOST_PARTS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Parts {
    data: [Reference; MOST_PARTS],
    step: Address,
    whole: Reference,
    rows: [RowCount; MOST_PARTS],
    accumulate: [i32; MOST_PARTS],
    count: i32,
    width: i32,
    lanes: i32,
    pad: i32,
}

/// The parts of an operation that puts its operands together, without their data.
fn parts(r: &Recorder, whole: TensorId) -> Result<Parts> {
    let (operands, width) = (&r.node.operands, r.width(whole));
    if operands.len() > MOST_PARTS {
        return Err(Error::Backend(format!("{} operands are more than {MOST_PARTS}", operands.len())));
    }
    let mut rows = [RowCount::from(Rows::fixed(0)); MOST_PARTS];
    rows.iter_mut().zip(operands).for_each(|(rows, &id)| *rows = r.rows(id));
    Ok(Parts {
        data: [Reference::none(); MOST_PARTS],
        step: r.step(),
        whole: r.reference(whole),
        rows,
        accumulate: [0; MOST_PARTS],
        count: operands.len() as i32,
        width: width as i32,
        lanes: lanes(width),
        pad: 0,
    })
}

/// Calls `run` with what the forward pass needs.
fn parts_forward(r: &mut Recorder, run: impl Fn(&mut Recorder, &Parts)) -> Result<()> {
    let mut arguments = parts(r, r.node.output(0))?;
    (0..r.node.inputs.len()).for_each(|k| arguments.data[k] = r.input(k));
    run(r, &arguments);
    Ok(())
}

/// Calls `run` with what the backward pass needs, once or more.
fn parts_backward(r: &mut Recorder, run: impl Fn(&mut Recorder, &Parts)) -> Result<()> {
    let none = parts(r, r.dy_id())?;
    let mut arguments = none;
    for k in 0..r.node.outputs.len() {
        let Some((dx, accumulate)) = r.dx(k) else { continue };
        // An operand that is there twice takes one gradient after the other.
        if r.node.outputs[..k].contains(&r.node.outputs[k]) {
            run(r, &arguments);
            arguments = none;
        }
        arguments.data[k] = dx;
        arguments.accumulate[k] = i32::from(accumulate);
    }
    if arguments.data != none.data {
        run(r, &arguments);
    }
    Ok(())
}

/// A launch over all rows of the whole.
fn concat(r: &mut Recorder, kernel: &str, whole: TensorId, arguments: &Parts) {
    r.launch(kernel, row_grid(r.capacity(whole), r.width(whole)), BLOCK as u32, 0, arguments);
}

/// Operands one below the other.
pub fn concat_forward(r: &mut Recorder) -> Result<()> {
    parts_forward(r, |r, arguments| concat(r, "concat_forward", r.node.output(0), arguments))
}

pub fn concat_backward(r: &mut Recorder) -> Result<()> {
    parts_backward(r, |r, arguments| concat(r, "concat_backward", r.dy_id(), arguments))
}

/// Row i of operand k becomes row i * K + k.
pub fn interleave_forward(r: &mut Recorder) -> Result<()> {
    parts_forward(r, |r, arguments| r.link(Kind::InterleaveForward, 0, arguments))
}

pub fn interleave_backward(r: &mut Recorder) -> Result<()> {
    parts_backward(r, |r, arguments| r.link(Kind::InterleaveBackward, 0, arguments))
}

/// Pair s of operand k goes to columns s * 2K + 2k.
pub fn join_steps_forward(r: &mut Recorder) -> Result<()> {
    parts_forward(r, |r, arguments| r.link(Kind::JoinStepsForward, 0, arguments))
}

pub fn join_steps_backward(r: &mut Recorder) -> Result<()> {
    parts_backward(r, |r, arguments| r.link(Kind::JoinStepsBackward, 0, arguments))
}
