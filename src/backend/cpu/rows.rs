//! Operations that move or add rows.

use super::{
    call::{Call, Out, block},
    math::{Real, add, add_scaled, add_to, put},
};
use crate::graph::RowMap;

/// y[i] = x[index[i]].
pub fn gather_forward<T: Real>(call: &mut Call<T>, index: usize) {
    let (x, width) = call.input(0);
    let list = call.index(index);
    let y = call.output(0);
    call.for_rows(y.len() / width.max(1), block(2 * width), [y], 0, |rows, [y], _| {
        for (&i, y) in list[rows].iter().zip(y.chunks_exact_mut(width)) {
            y.copy_from_slice(&x[i as usize * width..][..width]);
        }
    });
}

pub fn gather_backward<T: Real>(call: &mut Call<T>, index: usize) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (dy, _) = call.dy();
    let list = call.index(index);
    scatter_add(call, dx, accumulate, dy, &list[..call.dy_rows()]);
}

/// dx[index[i]] += dy[i] in the order of i. Where indexes never fall a task has rows of dx, otherwise a strip of columns.
pub fn scatter_add<T: Real>(call: &mut Call<T>, dx: Out<T>, accumulate: bool, dy: &[T], list: &[i32]) {
    let width = dx.width;
    if list.is_sorted() {
        let rows = dx.len() / width.max(1);
        let per = block(width * (1 + list.len() / rows.max(1)));
        return call.for_rows(rows, per, [dx], 0, |range, [dx], _| {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            let [from, to] = [range.start, range.end].map(|row| list.partition_point(|&i| (i as usize) < row));
            for (&i, dy) in list[from..to].iter().zip(dy[from * width..].chunks_exact(width)) {
                add_to(&mut dx[(i as usize - range.start) * width..][..width], dy);
            }
        });
    }
    let strip = width.div_ceil(8).next_multiple_of(16);
    call.tasks(width.div_ceil(strip), 0, |task, _| {
        let columns = task * strip..width.min((task + 1) * strip);
        // SAFETY: strips of columns do not overlap.
        let at = |row: usize| unsafe { dx.part(row * width + columns.start..row * width + columns.end) };
        if !accumulate {
            (0..dx.len() / width).for_each(|row| at(row).fill(T::ZERO));
        }
        for (row, &i) in list.iter().enumerate() {
            add_to(at(i as usize), &dy[row * width + columns.start..row * width + columns.end]);
        }
    });
}

/// Operands one below the other.
pub fn concat_forward<T: Real>(call: &mut Call<T>) {
    let y = call.output(0);
    let mut start = 0;
    for operand in 0..call.node.inputs.len() {
        let (x, _) = call.input(operand);
        // SAFETY: no task runs.
        unsafe { y.part(start..start + x.len()) }.copy_from_slice(x);
        start += x.len();
    }
}

pub fn concat_backward<T: Real>(call: &mut Call<T>) {
    let (dy, width) = call.dy();
    let mut start = 0;
    for operand in 0..call.node.outputs.len() {
        let len = call.rows(operand_of(call, operand)) * width;
        if let Some((dx, accumulate)) = call.dx(operand) {
            // SAFETY: no task runs.
            put(unsafe { dx.part(0..len) }, &dy[start..start + len], accumulate);
        }
        start += len;
    }
}

/// The tensor of a forward operand, seen from the gradient's node.
fn operand_of<T>(call: &Call<T>, operand: usize) -> crate::graph::TensorId {
    call.node.operands[operand]
}

/// Row of the second operand for row i of the first.
fn mapped(map: RowMap, i: usize) -> usize {
    match map {
        RowMap::Same => i,
        RowMap::Periodic(n) => i % n,
        RowMap::Grouped(n) => i / n,
    }
}

/// y[i] = x[i] + z[map(i)].
pub fn add_forward<T: Real>(call: &mut Call<T>, map: RowMap) {
    let ((x, width), (z, _)) = (call.input(0), call.input(1));
    let y = call.output(0);
    call.for_rows(y.len() / width.max(1), block(3 * width), [y], 0, |rows, [y], _| {
        for (row, y) in rows.zip(y.chunks_exact_mut(width)) {
            let (x, z) = (&x[row * width..][..width], &z[mapped(map, row) * width..][..width]);
            add(y, x, z);
        }
    });
}

pub fn add_backward<T: Real>(call: &mut Call<T>, map: RowMap) {
    let (dy, width) = call.dy();
    let rows = call.dy_rows();
    if let Some((dx, accumulate)) = call.dx(0) {
        copy_rows(call, dx, accumulate, dy);
    }
    let Some((dz, accumulate)) = call.dx(1) else { return };
    match map {
        RowMap::Same => copy_rows(call, dz, accumulate, dy),
        RowMap::Periodic(n) => sum_rows(call, dz, accumulate, dy, width, n, move |z, i| i * n + z, rows / n.max(1)),
        RowMap::Grouped(n) => sum_rows(call, dz, accumulate, dy, width, rows / n.max(1), move |z, i| z * n + i, n),
    }
}

fn copy_rows<T: Real>(call: &mut Call<T>, dx: Out<T>, accumulate: bool, dy: &[T]) {
    let width = dx.width;
    call.for_rows(dx.len() / width.max(1), block(3 * width), [dx], 0, |rows, [dx], _| {
        put(dx, &dy[rows.start * width..rows.end * width], accumulate);
    });
}

/// dz[z] = sum over i below `count` of dy[row(z, i)].
#[allow(clippy::too_many_arguments)]
fn sum_rows<T: Real>(
    call: &mut Call<T>,
    dz: Out<T>,
    accumulate: bool,
    dy: &[T],
    width: usize,
    rows: usize,
    row: impl Fn(usize, usize) -> usize + Sync,
    count: usize,
) {
    call.for_rows(rows, block(width * count), [dz], 0, |range, [dz], _| {
        if !accumulate {
            dz.fill(T::ZERO);
        }
        for (z, dz) in range.zip(dz.chunks_exact_mut(width)) {
            for i in 0..count {
                add_to(dz, &dy[row(z, i) * width..][..width]);
            }
        }
    });
}

/// y[i * M + m] = x[i] + z[m].
pub fn outer_forward<T: Real>(call: &mut Call<T>) {
    let ((x, width), (z, _)) = (call.input(0), call.input(1));
    let modes = call.input_rows(1);
    let y = call.output(0);
    call.for_rows(y.len() / width.max(1), block(2 * width), [y], 0, |rows, [y], _| {
        for (row, y) in rows.zip(y.chunks_exact_mut(width)) {
            let (x, z) = (&x[row / modes * width..][..width], &z[row % modes * width..][..width]);
            add(y, x, z);
        }
    });
}

pub fn outer_backward<T: Real>(call: &mut Call<T>) {
    let (dy, width) = call.dy();
    let modes = call.rows(operand_of(call, 1));
    let rows = call.dy_rows() / modes.max(1);
    if let Some((dx, accumulate)) = call.dx(0) {
        sum_rows(call, dx, accumulate, dy, width, rows, |x, m| x * modes + m, modes);
    }
    if let Some((dz, accumulate)) = call.dx(1) {
        sum_rows(call, dz, accumulate, dy, width, modes, |m, x| x * modes + m, rows);
    }
}

/// Rows of a convolution with kernel 3 and padding 1 at some positions.
pub fn unfold_forward<T: Real>(call: &mut Call<T>, length: usize, positions: &[usize]) {
    let (x, width) = call.input(0);
    let y = call.output(0);
    let out = positions.len() * 3 * width;
    let sequences = call.input_rows(0) / length.max(1);
    let y = y.with_width(out);
    call.for_rows(sequences, block(out + length * width), [y], 0, |range, [y], _| {
        for (sequence, y) in range.zip(y.chunks_exact_mut(out.max(1))) {
            let x = &x[sequence * length * width..][..length * width];
            for (&p, y) in positions.iter().zip(y.chunks_exact_mut(3 * width)) {
                for tap in 0..3 {
                    let source = (p + tap).checked_sub(1).filter(|&s| s < length);
                    for c in 0..width {
                        y[c * 3 + tap] = source.map_or(T::ZERO, |s| x[s * width + c]);
                    }
                }
            }
        }
    });
}

pub fn unfold_backward<T: Real>(call: &mut Call<T>, length: usize, positions: &[usize]) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (dy, _) = call.dy();
    let width = dx.width;
    let (out, size) = (positions.len() * 3 * width, length * width);
    let sequences = dx.len() / size.max(1);
    call.for_rows(sequences, block(out + size), [dx.with_width(size)], 0, |range, [dx], _| {
        for (sequence, dx) in range.zip(dx.chunks_exact_mut(size)) {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            for (&p, dy) in positions.iter().zip(dy[sequence * out..][..out].chunks_exact(3 * width)) {
                for tap in 0..3 {
                    if let Some(s) = (p + tap).checked_sub(1).filter(|&s| s < length) {
                        for c in 0..width {
                            dx[s * width + c] += dy[c * 3 + tap];
                        }
                    }
                }
            }
        }
    });
}

/// Weighted sums over the rows of each sequence.
pub fn mix_forward<T: Real>(call: &mut Call<T>, length: usize, weights: &[Vec<(usize, f64)>]) {
    let (x, width) = call.input(0);
    let y = call.output(0);
    let out = weights.len() * width;
    let sequences = call.input_rows(0) / length.max(1);
    call.for_rows(sequences, block(out + length * width), [y.with_width(out)], 0, |range, [y], _| {
        y.fill(T::ZERO);
        for (sequence, y) in range.zip(y.chunks_exact_mut(out.max(1))) {
            for (sources, y) in weights.iter().zip(y.chunks_exact_mut(width)) {
                for &(i, weight) in sources {
                    add_scaled(y, &x[(sequence * length + i) * width..][..width], T::of(weight));
                }
            }
        }
    });
}

pub fn mix_backward<T: Real>(call: &mut Call<T>, length: usize, weights: &[Vec<(usize, f64)>]) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (dy, width) = call.dy();
    let (out, size) = (weights.len() * width, length * width);
    let sequences = dx.len() / size.max(1);
    call.for_rows(sequences, block(out + size), [dx.with_width(size)], 0, |range, [dx], _| {
        for (sequence, dx) in range.zip(dx.chunks_exact_mut(size)) {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            for (o, sources) in weights.iter().enumerate() {
                for &(i, weight) in sources {
                    add_scaled(&mut dx[i * width..][..width], &dy[sequence * out + o * width..][..width], T::of(weight));
                }
            }
        }
    });
}

/// Row i of operand k becomes row i * K + k.
pub fn interleave_forward<T: Real>(call: &mut Call<T>) {
    let y = call.output(0);
    let parts = call.node.inputs.len();
    let width = y.width;
    for k in 0..parts {
        let (x, _) = call.input(k);
        for (i, x) in x.chunks_exact(width).enumerate() {
            // SAFETY: no task runs.
            unsafe { y.rows(i * parts + k..i * parts + k + 1) }.copy_from_slice(x);
        }
    }
}

pub fn interleave_backward<T: Real>(call: &mut Call<T>) {
    let (dy, width) = call.dy();
    let parts = call.node.outputs.len();
    for k in 0..parts {
        let Some((dx, accumulate)) = call.dx(k) else { continue };
        // SAFETY: no task runs.
        let dx = unsafe { dx.part(0..dx.len()) };
        for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
            put(dx, &dy[(i * parts + k) * width..][..width], accumulate);
        }
    }
}

/// Pair s of operand k goes to columns s * 2K + 2k.
pub fn join_steps_forward<T: Real>(call: &mut Call<T>, steps: usize) {
    let parts = call.node.inputs.len();
    let y = call.output(0);
    let rows = y.len() / y.width.max(1);
    for k in 0..parts {
        let (x, _) = call.input(k);
        call.for_rows(rows, block(y.width), [y], 0, |range, [y], _| {
            let x = &x[range.start * steps * 2..range.end * steps * 2];
            for (x, y) in x.chunks_exact(2).zip(y.chunks_exact_mut(2 * parts)) {
                y[2 * k..2 * k + 2].copy_from_slice(x);
            }
        });
    }
}

pub fn join_steps_backward<T: Real>(call: &mut Call<T>) {
    let parts = call.node.outputs.len();
    let (dy, width) = call.dy();
    let rows = call.dy_rows();
    for k in 0..parts {
        let Some((dx, accumulate)) = call.dx(k) else { continue };
        call.for_rows(rows, block(width), [dx], 0, |range, [dx], _| {
            let dy = &dy[range.start * width..range.end * width];
            for (dx, dy) in dx.chunks_exact_mut(2).zip(dy.chunks_exact(2 * parts)) {
                put(dx, &dy[2 * k..2 * k + 2], accumulate);
            }
        });
    }
}
