//! Dropout of elements, and the residual sum with dropout and drop path.

use super::{
    call::{Call, block},
    math::Real,
};
use crate::graph::{
    Step,
    random::{threshold, word, words},
};

/// Set in the stream of the numbers that drop whole groups of rows.
const PATH: u32 = 0x4000_0000;

/// Factors of elements: 0 where dropped, `scale` where kept.
#[derive(Clone, Copy)]
pub struct Mask<'a, T> {
    step: &'a Step,
    stream: u32,
    below: u32,
    scale: T,
}

impl<'a, T: Real> Mask<'a, T> {
    pub fn new(step: &'a Step, stream: u32, rate: f64) -> Self {
        Self { step, stream, below: threshold(rate), scale: T::of(1.0 / (1.0 - rate)) }
    }
    /// True if nothing is dropped.
    pub fn keeps_all(&self) -> bool {
        self.below == 0
    }
    /// Writes the factors of a row's first columns.
    pub fn row(&self, row: usize, factors: &mut [T]) {
        for (block, factors) in factors.chunks_mut(4).enumerate() {
            for (factor, word) in factors.iter_mut().zip(words(self.step, self.stream, row as u32, block as u32)) {
                *factor = if word < self.below { T::ZERO } else { self.scale };
            }
        }
    }
    /// Factor of one element.
    pub fn one(&self, row: usize, column: usize) -> T {
        if word(self.step, self.stream, row as u32, column as u32) < self.below { T::ZERO } else { self.scale }
    }
}

pub fn forward<T: Real>(call: &mut Call<T>, rate: f64) {
    let (x, width) = call.input(0);
    let mask = Mask::new(call.step, call.node.stream, rate);
    let y = call.output(0);
    call.for_rows(call.input_rows(0), block(4 * width), [y], width, |rows, [y], factors| {
        for (row, y) in rows.zip(y.chunks_exact_mut(width)) {
            mask.row(row, factors);
            y.iter_mut().zip(&x[row * width..][..width]).zip(&*factors).for_each(|((y, &x), &f)| *y = x * f);
        }
    });
}

pub fn backward<T: Real>(call: &mut Call<T>, rate: f64) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let (dy, width) = call.dy();
    let mask = Mask::new(call.step, call.node.stream, rate);
    call.for_rows(call.dy_rows(), block(4 * width), [dx], width, |rows, [dx], factors| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(width)) {
            mask.row(row, factors);
            for ((dx, &dy), &f) in dx.iter_mut().zip(&dy[row * width..][..width]).zip(&*factors) {
                *dx = if accumulate { *dx + dy * f } else { dy * f };
            }
        }
    });
}

/// Factors of rows of the second operand of a residual sum.
struct Branch<'a, T> {
    elements: Mask<'a, T>,
    paths: Mask<'a, T>,
    group: usize,
    list: Option<&'a [i32]>,
}

impl<'a, T: Real> Branch<'a, T> {
    fn new(call: &Call<'a, T>, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) -> Self {
        Self {
            elements: Mask::new(call.step, call.node.stream, dropout),
            paths: Mask::new(call.step, call.node.stream | PATH, drop_path),
            group: group.max(1),
            list: group_index.map(|slot| call.index(slot)),
        }
    }
    fn row(&self, row: usize, factors: &mut [T]) {
        let group = self.list.map_or(row / self.group, |list| list[row] as usize);
        let path = if self.paths.keeps_all() { T::ONE } else { self.paths.one(group, 0) };
        if self.elements.keeps_all() {
            factors.fill(path);
        } else {
            self.elements.row(row, factors);
            factors.iter_mut().for_each(|f| *f *= path);
        }
    }
}

pub fn residual_forward<T: Real>(call: &mut Call<T>, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) {
    let ((x, width), (z, _)) = (call.input(0), call.input(1));
    let branch = Branch::new(call, dropout, drop_path, group, group_index);
    let y = call.output(0);
    call.for_rows(call.input_rows(0), block(4 * width), [y], width, |rows, [y], factors| {
        for (row, y) in rows.zip(y.chunks_exact_mut(width)) {
            branch.row(row, factors);
            let (x, z) = (&x[row * width..][..width], &z[row * width..][..width]);
            y.iter_mut().zip(x).zip(z.iter().zip(&*factors)).for_each(|((y, &x), (&z, &f))| *y = x + z * f);
        }
    });
}

pub fn residual_backward<T: Real>(call: &mut Call<T>, dropout: f64, drop_path: f64, group: usize, group_index: Option<usize>) {
    let (dy, width) = call.dy();
    let rows = call.dy_rows();
    if let Some((dx, accumulate)) = call.dx(0) {
        call.for_rows(rows, block(3 * width), [dx], 0, |rows, [dx], _| {
            super::math::put(dx, &dy[rows.start * width..rows.end * width], accumulate);
        });
    }
    let Some((dz, accumulate)) = call.dx(1) else { return };
    let branch = Branch::new(call, dropout, drop_path, group, group_index);
    call.for_rows(rows, block(4 * width), [dz], width, |rows, [dz], factors| {
        for (row, dz) in rows.zip(dz.chunks_exact_mut(width)) {
            branch.row(row, factors);
            for ((dz, &dy), &f) in dz.iter_mut().zip(&dy[row * width..][..width]).zip(&*factors) {
                *dz = if accumulate { *dz + dy * f } else { dy * f };
            }
        }
    });
}
