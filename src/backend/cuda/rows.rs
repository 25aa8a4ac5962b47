//! Operations that move or add rows. Those that put operands together are in `parts`, those within sequences in `sequences`.

use super::{
    chain::Kind,
    device::Address,
    partials,
    recorder::{IndexReference, Recorder, Reference, RowCount, blocks},
};
use crate::{
    error::Result,
    graph::{Graph, Node, Pass, RowMap, Rows, TensorId},
};
use bytemuck::{Pod, Zeroable};

/// Threads of a block.
pub const BLOCK: usize = 256;
/// Rows that a block of `scatter_add` has at a time.
const WARPS: usize = 8;
/// Columns of its tile.
const CHUNK: usize = 128;

/// Threads that have a row of `width` elements.
pub fn lanes(width: usize) -> i32 {
    width.next_power_of_two().min(32) as i32
}

/// The grid for rows that groups of `lanes(width)` threads have.
pub fn row_grid(rows: usize, width: usize) -> [u32; 3] {
    [blocks(rows, BLOCK / lanes(width) as usize), 1, 1]
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Fill {
    y: Reference,
    step: Address,
    rows: RowCount,
    width: i32,
    value: f32,
}

/// Sets all of a tensor to a value.
pub fn fill(r: &mut Recorder, tensor: TensorId, value: f32) {
    let (rows, width) = (r.capacity(tensor), r.width(tensor));
    let arguments = Fill { y: r.reference(tensor), step: r.step(), rows: r.rows(tensor), width: width as i32, value };
    r.launch("fill", [blocks(rows * width, BLOCK), 1, 1], BLOCK as u32, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GatherForward {
    x: Reference,
    y: Reference,
    index: IndexReference,
    step: Address,
    rows: RowCount,
    width: i32,
    pad: i32,
}

/// y[i] = x[index[i]].
pub fn gather_forward(r: &mut Recorder, index: usize) -> Result<()> {
    let id = r.node.output(0);
    let width = r.width(id);
    let arguments = GatherForward {
        x: r.input(0),
        y: r.output(0),
        index: r.index(index),
        step: r.step(),
        rows: r.rows(id),
        width: width as i32,
        pad: 0,
    };
    r.link(Kind::GatherForward, 0, &arguments);
    Ok(())
}

pub fn gather_backward(r: &mut Recorder, index: usize) -> Result<()> {
    if is_table(&r.plan.graph, r.node) {
        sum_table(r, index);
        return Ok(());
    }
    let Some(dx) = r.dx(0) else { return Ok(()) };
    let (dy, target) = (r.dy_id(), r.node.operands[0]);
    scatter_add(r, dx, target, r.dy(), dy, index);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScatterAdd {
    dy: Reference,
    dx: Reference,
    index: IndexReference,
    step: Address,
    rows: RowCount,
    targets: RowCount,
    width: i32,
    accumulate: i32,
}

/// dx[index[i]] (+)= dy[i] in the order of i. `dx` has the shape of `target`, `dy` that of `source`.
pub fn scatter_add(r: &mut Recorder, (dx, accumulate): (Reference, bool), target: TensorId, dy: Reference, source: TensorId, index: usize) {
    let (targets, width) = (r.capacity(target), r.width(target));
    let arguments = ScatterAdd {
        dy,
        dx,
        index: r.scattered_index(index),
        step: r.step(),
        rows: r.rows(source),
        targets: r.rows(target),
        width: width as i32,
        accumulate: i32::from(accumulate),
    };
    r.launch("scatter_add", [blocks(targets, WARPS), blocks(width, CHUNK), 1], BLOCK as u32, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumTable {
    dy: Reference,
    partials: Address,
    index: IndexReference,
    step: Address,
    rows: RowCount,
    table: i32,
    width: i32,
}

/// Most rows of a table whose gradient chains sum up: each looks at all of a block's rows.
const MOST_TABLE: usize = 64;

/// Whether a gather's gradient is that of a small table of parameters.
pub fn is_table(graph: &Graph, node: &Node) -> bool {
    let table = |id: TensorId| graph.tensor(id).place.is_gradient() && graph.tensor(id).rows.times <= MOST_TABLE;
    node.pass == Pass::Backward && node.outputs[0].is_none_or(table)
}

/// The gradient of a table: the chain's blocks leave partial sums.
fn sum_table(r: &mut Recorder, index: usize) {
    let id = r.node.operands[0];
    let (table, width) = (r.capacity(id), r.width(id));
    let Some(partials) = partials::of_operand(r, 0, table * width) else { return };
    let rows = r.rows(r.dy_id());
    let arguments =
        SumTable { dy: r.dy(), partials, index: r.index(index), step: r.step(), rows, table: table as i32, width: width as i32 };
    r.link(Kind::SumTable, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AddForward {
    x: Reference,
    z: Reference,
    y: Reference,
    step: Address,
    rows: RowCount,
    x_divide: i32,
    z_divide: i32,
    z_period: i32,
    width: i32,
}

/// y[i] = x[i / x_divide] + z[i / z_divide % z_period].
fn add(r: &mut Recorder, x_divide: usize, z_divide: usize, z_period: usize) {
    let id = r.node.output(0);
    let width = r.width(id);
    let arguments = AddForward {
        x: r.input(0),
        z: r.input(1),
        y: r.output(0),
        step: r.step(),
        rows: r.rows(id),
        x_divide: x_divide as i32,
        z_divide: z_divide as i32,
        z_period: z_period as i32,
        width: width as i32,
    };
    r.link(Kind::AddForward, 0, &arguments);
}

/// y[i] = x[i] + z[map(i)].
pub fn add_forward(r: &mut Recorder, map: RowMap) -> Result<()> {
    const ALL: usize = i32::MAX as usize;
    match map {
        RowMap::Same => add(r, 1, 1, ALL),
        RowMap::Periodic(n) => add(r, 1, 1, n),
        RowMap::Grouped(n) => add(r, 1, n, ALL),
    }
    Ok(())
}

pub fn add_backward(r: &mut Recorder, map: RowMap) -> Result<()> {
    if let Some(dx) = r.dx(0) {
        sum_groups(r, dx, 1);
    }
    let Some(dz) = r.dx(1) else { return Ok(()) };
    match map {
        RowMap::Same => sum_groups(r, dz, 1),
        RowMap::Periodic(n) => sum_periods(r, n),
        RowMap::Grouped(n) => sum_groups(r, dz, n),
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumGroups {
    dy: Reference,
    dx: Reference,
    step: Address,
    rows: RowCount,
    count: i32,
    width: i32,
    accumulate: i32,
    pad: i32,
}

/// Row i is the sum of rows i * n .. i * n + n of dy.
fn sum_groups(r: &mut Recorder, (dx, accumulate): (Reference, bool), n: usize) {
    let id = r.dy_id();
    let (rows, width) = (r.plan.graph.tensor(id).rows, r.width(id));
    let groups = Rows { symbol: rows.symbol, times: rows.times / n.max(1) };
    let arguments = SumGroups {
        dy: r.dy(),
        dx,
        step: r.step(),
        rows: groups.into(),
        count: n as i32,
        width: width as i32,
        accumulate: i32::from(accumulate),
        pad: 0,
    };
    r.link(Kind::SumGroups, 0, &arguments);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumPeriods {
    dy: Reference,
    partials: Address,
    step: Address,
    rows: RowCount,
    period: i32,
    width: i32,
}

/// The gradient of operand 1, whose row z is the sum of rows i * n + z of dy: the chain's blocks leave partial sums.
fn sum_periods(r: &mut Recorder, n: usize) {
    let id = r.dy_id();
    let (rows, width) = (r.rows(id), r.width(id));
    let Some(partials) = partials::of_operand(r, 1, n * width) else { return };
    let arguments = SumPeriods { dy: r.dy(), partials, step: r.step(), rows, period: n as i32, width: width as i32 };
    r.link(Kind::SumPeriods, 0, &arguments);
}

/// y[i * M + m] = x[i] + z[m].
pub fn outer_forward(r: &mut Recorder) -> Result<()> {
    let modes = r.capacity(r.node.input(1));
    add(r, modes.max(1), 1, modes.max(1));
    Ok(())
}

pub fn outer_backward(r: &mut Recorder) -> Result<()> {
    let modes = r.capacity(r.node.operands[1]);
    if let Some(dx) = r.dx(0) {
        sum_groups(r, dx, modes);
    }
    sum_periods(r, modes);
    Ok(())
}
