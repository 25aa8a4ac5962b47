//! The cost map around a moved ego: shifted, turned, cut to the middle.
//!
//! Interpolation is that of OpenCV before version 5, bit for bit: source coordinates are rounded to 1/32 of a pixel, and taps
//! outside of the image count as the border each for itself.

use crate::error::{Error, Result};
use crate::features::{CostMap, cost_map::RESOLUTION};
use std::cell::RefCell;

/// Rows and columns of the cost maps of a triplet: those that a moved ego's map still fills.
pub const CROPPED_SIZE: usize = 500;
/// Signed distance, metres, beyond the map: far off the drivable area.
const BORDER: f32 = -200.0;
/// Bits of a source coordinate: rounded to 1/1024 of a pixel first, then to 1/32.
const STEP_BITS: u32 = 5;
const STEPS: i32 = 1 << STEP_BITS;
const FINE: f64 = (STEPS * STEPS) as f64;
/// Pixels from the middle to what is farthest from it in the cut-out, and a tap beyond: CROPPED_SIZE / sqrt(2) and some more.
const REACH: usize = CROPPED_SIZE * 708 / 1000 + 3;
/// Pixels that are interpolated side by side.
const LANES: usize = 20;
const _: () = assert!(CROPPED_SIZE.is_multiple_of(LANES));

/// The middle of a cost map.
///
/// # Errors
/// [`Error::Data`] if the map is smaller than [`CROPPED_SIZE`], or not square.
pub fn cropped(map: &CostMap) -> Result<CostMap> {
    let first = margin(map)?;
    let mut values = Vec::with_capacity(CROPPED_SIZE * CROPPED_SIZE);
    for row in map.values.chunks_exact(map.size).skip(first).take(CROPPED_SIZE) {
        values.extend_from_slice(&row[first..first + CROPPED_SIZE]);
    }
    Ok(CostMap { size: CROPPED_SIZE, values })
}

/// The middle of the cost map of an ego that stands at `position` (metres) and `heading` in the frame of the map's.
///
/// # Errors
/// As [`cropped`].
pub fn warped(map: &CostMap, position: [f64; 2], heading: f64) -> Result<CostMap> {
    let first = margin(map)?;
    thread_local! {
        static SHIFTED: RefCell<Shifted> = RefCell::default();
    }
    let values = SHIFTED.with_borrow_mut(|shifted| {
        shifted.fill(map, [position[0] / RESOLUTION, -position[1] / RESOLUTION]);
        shifted.turned(-heading, first)
    });
    Ok(CostMap { size: CROPPED_SIZE, values })
}

/// Rows above, and columns left of, the middle.
fn margin(map: &CostMap) -> Result<usize> {
    if map.size < CROPPED_SIZE || map.values.len() != map.size * map.size {
        let (size, pixels) = (map.size, map.values.len());
        return Err(Error::Data(format!("a cost map of {size} rows and {pixels} pixels is not square or below {CROPPED_SIZE} rows")));
    }
    Ok((map.size - CROPPED_SIZE) / 2)
}

/// A coordinate in 1/32 of a pixel.
fn quantised(coordinate: f64) -> i32 {
    (fine(coordinate) + STEPS / 2) >> STEP_BITS
}

/// A coordinate in 1/1024 of a pixel; far outside of any map it does not matter how far.
fn fine(coordinate: f64) -> i32 {
    (coordinate * FINE).round_ties_even().clamp(-5e8, 5e8) as i32
}

/// Whole pixels, and the rest as a part of one.
fn split(steps: i32) -> (i32, f32) {
    (steps >> STEP_BITS, (steps & (STEPS - 1)) as f32 * (1.0 / STEPS as f32))
}

/// A shifted map within a border; its memory is used again.
#[derive(Debug, Default)]
struct Shifted {
    /// Rows and columns of the map.
    size: usize,
    /// Rows and columns of border on each side.
    around: usize,
    /// Row-major.
    values: Vec<f32>,
}

impl Shifted {
    fn stride(&self) -> usize {
        self.size + 2 * self.around
    }

    /// The pixel at column x and row y becomes the map's at (x, y) + `offset`.
    fn fill(&mut self, map: &CostMap, offset: [f64; 2]) {
        let size = map.size;
        if self.size != size {
            let around = (2 * REACH).saturating_sub(size).div_ceil(2);
            *self = Self { size, around, values: vec![BORDER; (size + 2 * around).pow(2)] };
        }
        // the published matrix is in single precision
        let [(dx, fx), (dy, fy)] = offset.map(|o| split(quantised(f64::from(o as f32))));
        let (gx, gy) = (1.0 - fx, 1.0 - fy);
        let [w00, w01, w10, w11] = [gy * gx, gy * fx, fy * gx, fy * fx];
        let (mut upper, mut lower) = (vec![0.0; size + 1], vec![0.0; size + 1]);
        source_row(&mut lower, map, dx, dy);
        let (stride, around) = (self.stride(), self.around);
        for (y, row) in self.values.chunks_exact_mut(stride).skip(around).take(size).enumerate() {
            std::mem::swap(&mut upper, &mut lower);
            source_row(&mut lower, map, dx, dy + y as i32 + 1);
            let row = &mut row[around..][..size];
            let (a, b, c, d) = (&upper[..size], &upper[1..], &lower[..size], &lower[1..]);
            for x in 0..size {
                row[x] = a[x] * w00 + b[x] * w01 + c[x] * w10 + d[x] * w11;
            }
        }
    }

    /// The map turned about its middle, the part of it from row and column `first`.
    fn turned(&self, angle: f64, first: usize) -> Vec<f32> {
        let stride = self.stride();
        let [[ax, bx, cx], [ay, by, cy]] = inverse_rotation(angle, (self.size / 2) as f64);
        let kept = first..first + CROPPED_SIZE;
        let [columns_x, columns_y] = [ax, ay].map(|a| kept.clone().map(|x| fine(a * x as f64)).collect::<Vec<i32>>());
        let columns = || columns_x.as_chunks::<LANES>().0.iter().zip(columns_y.as_chunks::<LANES>().0);
        let around = (self.around as i32) << (2 * STEP_BITS);
        let mut turned = vec![0.0; CROPPED_SIZE * CROPPED_SIZE];
        for (row, y) in turned.chunks_exact_mut(CROPPED_SIZE).zip(kept) {
            let [x, y] = [fine(bx * y as f64 + cx), fine(by * y as f64 + cy)].map(|c| c + STEPS / 2 + around);
            for (values, (columns_x, columns_y)) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(columns()) {
                // separate loops: all but the loads work on several pixels at a time
                let (mut at, mut fx, mut fy) = ([0_u32; LANES], [0.0; LANES], [0.0; LANES]);
                for i in 0..LANES {
                    let (column, part_x) = split((x + columns_x[i]) >> STEP_BITS);
                    let (row, part_y) = split((y + columns_y[i]) >> STEP_BITS);
                    (at[i], fx[i], fy[i]) = (row as u32 * stride as u32 + column as u32, part_x, part_y);
                }
                let (mut upper, mut lower) = ([[0.0; 2]; LANES], [[0.0; 2]; LANES]);
                for i in 0..LANES {
                    let taps = &self.values[at[i] as usize..][..stride + 2];
                    (upper[i], lower[i]) = ([taps[0], taps[1]], [taps[stride], taps[stride + 1]]);
                }
                for i in 0..LANES {
                    let ([a, b], [c, d], fx, fy) = (upper[i], lower[i], fx[i], fy[i]);
                    let (gx, gy) = (1.0 - fx, 1.0 - fy);
                    values[i] = a * (gy * gx) + b * (gy * fx) + c * (fy * gx) + d * (fy * fx);
                }
            }
        }
        turned
    }
}

/// Pixels of row `y` from column `x` on, border where the map has none.
fn source_row(line: &mut [f32], map: &CostMap, x: i32, y: i32) {
    let (x, y, size) = (i64::from(x), i64::from(y), map.size as i64);
    let (first, last) = (x.max(0), (x + line.len() as i64).min(size));
    if !(0..size).contains(&y) || first >= last {
        line.fill(BORDER);
        return;
    }
    let source = &map.values[(y * size + first) as usize..(y * size + last) as usize];
    let (left, rest) = line.split_at_mut((first - x) as usize);
    let (middle, right) = rest.split_at_mut(source.len());
    left.fill(BORDER);
    middle.copy_from_slice(source);
    right.fill(BORDER);
}

/// From turned columns and rows to those before, for a rotation by `angle` about (middle, middle); rows are (a, b, c) of
/// a x + b y + c. Sums and products stand in OpenCV's order.
fn inverse_rotation(angle: f64, middle: f64) -> [[f64; 3]; 2] {
    let angle = angle.to_degrees() * std::f64::consts::PI / 180.0;
    let (sin, cos) = (angle.sin(), angle.cos());
    let forward = [[cos, sin, (1.0 - cos) * middle - sin * middle], [-sin, cos, sin * middle + (1.0 - cos) * middle]];
    let scale = 1.0 / (forward[0][0] * forward[1][1] - forward[0][1] * forward[1][0]);
    let (a, b) = (forward[1][1] * scale, forward[0][1] * -scale);
    let (d, e) = (forward[1][0] * -scale, forward[0][0] * scale);
    let [c, f] = [forward[0][2], forward[1][2]];
    [[a, b, -a * c - b * f], [d, e, -d * c - e * f]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenCV's warp as a plain restatement of its rules: every pixel for itself. Rows of `matrix` are (a, b, c).
    fn warp(image: &[f32], size: usize, matrix: [[f64; 3]; 2]) -> Vec<f32> {
        let [[m0, m1, m2], [m3, m4, m5]] = matrix;
        let scale = 1.0 / (m0 * m4 - m1 * m3);
        let (a, b, d, e) = (m4 * scale, m1 * -scale, m3 * -scale, m0 * scale);
        let (c, f) = (-a * m2 - b * m5, -d * m2 - e * m5);
        let round = |v: f64| v.round_ties_even() as i64;
        let tap = |x: i64, y: i64| {
            let inside = |v: i64| (0..size as i64).contains(&v);
            if inside(x) && inside(y) { image[y as usize * size + x as usize] } else { -200.0 }
        };
        let pixel = |i: usize| {
            let (x, y) = ((i % size) as f64, (i / size) as f64);
            let sx = (round((b * y + c) * 1024.0) + 16 + round(a * x * 1024.0)) >> 5;
            let sy = (round((e * y + f) * 1024.0) + 16 + round(d * x * 1024.0)) >> 5;
            let part = |v: i64| (v & 31) as f32 / 32.0;
            let ((x, y), (fx, fy)) = ((sx >> 5, sy >> 5), (part(sx), part(sy)));
            tap(x, y) * ((1.0 - fy) * (1.0 - fx))
                + tap(x + 1, y) * ((1.0 - fy) * fx)
                + tap(x, y + 1) * (fy * (1.0 - fx))
                + tap(x + 1, y + 1) * (fy * fx)
        };
        (0..size * size).map(pixel).collect()
    }

    #[test]
    fn equals_two_plain_warps_bit_for_bit() {
        let size = 520;
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let map = CostMap { size, values: (0..size * size).map(|_| 60.0 * random() - 30.0).collect() };
        let poses = [
            [0.0; 3],
            [1.0, -0.75, 0.35],
            [-0.613, 0.377, -0.291],
            [0.4, -0.2, 0.0],
            [0.003, 0.0, 1.5],
            [70.0, -30.0, 3.0],
            [1e9, 0.0, 0.1],
        ];
        for [x, y, heading] in poses {
            let [tx, ty] = [-x / 0.2, y / 0.2].map(|v: f64| f64::from(v as f32));
            let shifted = warp(&map.values, size, [[1.0, 0.0, tx], [0.0, 1.0, ty]]);
            let angle = (-heading).to_degrees() * std::f64::consts::PI / 180.0;
            let (c, s, m) = (angle.cos(), angle.sin(), (size / 2) as f64);
            let turned = warp(&shifted, size, [[c, s, (1.0 - c) * m - s * m], [-s, c, s * m + (1.0 - c) * m]]);
            let expected = cropped(&CostMap { size, values: turned }).unwrap();
            let ours = warped(&map, [x, y], heading).unwrap();
            assert_eq!(ours.size, CROPPED_SIZE);
            let differing = ours.values.iter().zip(&expected.values).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!(differing, 0, "{x} {y} {heading}");
        }
    }

    #[test]
    fn the_middle_moves_with_the_ego() {
        // a peak 10 m ahead of the ego and 4 m to its left: column 300 + 50, row 300 - 20
        let mut map = CostMap { size: 600, values: vec![0.0; 600 * 600] };
        map.values[280 * 600 + 350] = 1.0;
        let at = |map: &CostMap, column: usize, row: usize| map.values[row * map.size + column];
        assert_eq!(at(&cropped(&map).unwrap(), 300, 230), 1.0);
        // 2 m forward: 8 m ahead
        let forward = warped(&map, [2.0, 0.0], 0.0).unwrap();
        assert_eq!(at(&forward, 290, 230), 1.0);
        // a quarter turn to the left: 4 m ahead and 10 m to the right
        let turned = warped(&map, [0.0, 0.0], std::f64::consts::FRAC_PI_2).unwrap();
        assert_eq!(at(&turned, 270, 300), 1.0);
    }

    #[test]
    fn only_large_square_maps_have_a_middle() {
        for (size, pixels) in [(499, 499 * 499), (600, 600 * 599), (600, 0)] {
            let map = CostMap { size, values: vec![0.0; pixels] };
            assert!(cropped(&map).is_err() && warped(&map, [0.0; 2], 0.0).is_err());
        }
    }
}
