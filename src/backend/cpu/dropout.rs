//! Dropout of elements, and the residual sum with dropout and drop path.

use super::{
    call::{Call, block},
    math::{Real, simd},
};
use crate::graph::{
    Step,
    random::{threshold, word, words},
};

/// Set in the stream of the numbers that drop whole groups of rows.
const PATH: u32 = 0x4000_0000;

/// Numbers that are made side by side.
const LANES: usize = 8;

simd! {
    /// Factors of a row: `LANES` blocks of four columns at a time.
    fn fill<T: Real>(factors: &mut [T], step: &Step, stream: u32, row: u32, below: u32, scale: T) {
        let wide = factors.len() / (4 * LANES);
        let (head, tail) = factors.split_at_mut(wide * 4 * LANES);
        for (i, factors) in head.chunks_exact_mut(4 * LANES).enumerate() {
            let mut counter = [[0; LANES], [row; LANES], [stream; LANES], [step.step as u32; LANES]];
            for (lane, block) in counter[0].iter_mut().enumerate() {
                *block = (i * LANES + lane) as u32;
            }
            let words = philox_lanes(counter, [step.seed as u32, (step.seed >> 32) as u32]);
            for (lane, factors) in factors.chunks_exact_mut(4).enumerate() {
                for (factor, words) in factors.iter_mut().zip(&words) {
                    *factor = if words[lane] < below { T::ZERO } else { scale };
                }
            }
        }
        for (i, factors) in tail.chunks_mut(4).enumerate() {
            for (factor, word) in factors.iter_mut().zip(words(step, stream, row, (wide * LANES + i) as u32)) {
                *factor = if word < below { T::ZERO } else { scale };
            }
        }
    }
    /// y = x f, or y += x f.
    fn scaled<T: Real>(y: &mut [T], x: &[T], f: &[T], accumulate: bool) {
        for ((y, &x), &f) in y.iter_mut().zip(x).zip(f) {
            *y = if accumulate { *y + x * f } else { x * f };
        }
    }
    /// y = x + z f.
    fn joined<T: Real>(y: &mut [T], x: &[T], z: &[T], f: &[T]) {
        for (((y, &x), &z), &f) in y.iter_mut().zip(x).zip(z).zip(f) {
            *y = x + z * f;
        }
    }
}

/// [`crate::graph::random::philox`] of several counters.
#[inline(always)]
fn philox_lanes(mut c: [[u32; LANES]; 4], mut key: [u32; 2]) -> [[u32; LANES]; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        #[allow(clippy::needless_range_loop, reason = "one lane of four arrays")]
        for lane in 0..LANES {
            let a = u64::from(c[0][lane]) * 0xD251_1F53;
            let b = u64::from(c[2][lane]) * 0xCD9E_8D57;
            (c[0][lane], c[2][lane]) = ((b >> 32) as u32 ^ c[1][lane] ^ key[0], (a >> 32) as u32 ^ c[3][lane] ^ key[1]);
            (c[1][lane], c[3][lane]) = (b as u32, a as u32);
        }
    }
    c
}

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
        fill(factors, self.step, self.stream, row as u32, self.below, self.scale);
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
            scaled(y, &x[row * width..][..width], factors, false);
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
            scaled(dx, &dy[row * width..][..width], factors, accumulate);
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
            joined(y, x, z, factors);
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
            scaled(dz, &dy[row * width..][..width], factors, accumulate);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_factors_follow_the_numbers_of_single_elements() {
        let step = Step { seed: 77 << 33 | 5, step: 9 };
        let mask = Mask::<f32>::new(&step, 3, 0.4);
        for width in [1, 7, 32, 33, 131] {
            let mut factors = vec![9.0; width];
            mask.row(12, &mut factors);
            assert!(factors.iter().enumerate().all(|(column, &f)| f == mask.one(12, column)));
        }
    }
}
