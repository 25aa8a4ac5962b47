//! Largest value of each column in each segment of rows.

use super::{
    call::{Call, block},
    math::Real,
};

/// Start, count, and whether zeros take part, of segment `s`.
fn segment(list: &[i32], s: usize) -> (usize, usize, bool) {
    let (start, count, flag) = (list[3 * s], list[3 * s + 1], list[3 * s + 2]);
    (start.max(0) as usize, count.max(0) as usize, flag != 0 || count <= 0)
}

pub fn forward<T: Real>(call: &mut Call<T>, segments: usize) {
    let (x, width) = call.input(0);
    let list = call.index(segments);
    let (y, kept) = (call.output(0), call.index_output(1));
    let rows = y.len() / width.max(1);
    let per = x.len() / rows.max(1);
    call.for_rows(rows, block(per + width), [y], 0, |segments, [y], _| {
        // SAFETY: the blocks of tasks do not overlap.
        let kept = unsafe { kept.rows(segments.clone()) };
        for ((s, y), kept) in segments.zip(y.chunks_exact_mut(width)).zip(kept.chunks_exact_mut(width)) {
            let (start, count, zeros) = segment(list, s);
            let first = if zeros {
                y.fill(T::ZERO);
                kept.fill(-1);
                start
            } else {
                y.copy_from_slice(&x[start * width..(start + 1) * width]);
                kept.fill(start as i32);
                start + 1
            };
            for row in first..start + count {
                let x = &x[row * width..(row + 1) * width];
                for ((y, kept), &x) in y.iter_mut().zip(kept.iter_mut()).zip(x) {
                    // A value that is not a number wins and stays.
                    #[allow(clippy::eq_op)]
                    let larger = (x > *y) | (x != x);
                    *y = if larger { x } else { *y };
                    *kept = if larger { row as i32 } else { *kept };
                }
            }
        }
    });
}

pub fn backward<T: Real>(call: &mut Call<T>, segments: usize) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (dy, width) = call.dy();
    let list = call.index(segments);
    let kept = call.index_input(2);
    if !accumulate {
        call.for_rows(dx.len() / width.max(1), block(width), [dx], 0, |_, [dx], _| dx.fill(T::ZERO));
    }
    let rows = call.dy_rows();
    let per = block(width);
    call.tasks(rows.div_ceil(per), 0, |i, _| {
        for s in i * per..rows.min((i + 1) * per) {
            let (start, count, _) = segment(list, s);
            // SAFETY: segments do not overlap, and every row that is kept lies in its segment.
            let dx = unsafe { dx.rows(start..start + count) };
            for (column, (&dy, &row)) in dy[s * width..(s + 1) * width].iter().zip(&kept[s * width..(s + 1) * width]).enumerate() {
                if row >= 0 {
                    dx[(row as usize - start) * width + column] += dy;
                }
            }
        }
    });
}
