//! Exact Euclidean distance of every pixel to the nearest pixel of the other kind, its site.
//!
//! Crates (imageproc among them) give the distance of one kind at a time; both together need no more work than one, because the
//! pixels between two of the other kind depend on nothing outside.
//!
//! Pixel x of a run of equal pixels in a row has the squared distance min over s of (x - s)^2 + vertical(s)^2, and the column s
//! where the minimum lies ascends with x. So between two pixels whose sites are known only the columns between these sites come
//! into question: few enough to try each of them on a whole block of pixels at once. To this end the sites of every
//! [`BLOCK`]th column are found first, along the column, by a lower envelope of parabolas.

/// Pixels along a side at most: 4 size^2 is exact in single precision.
pub(crate) const MAX_SIZE: usize = 1 << 11;
/// Farther than any pixel of the image.
const FAR: f32 = 16_384.0;
/// Pixels from one column whose sites are found first to the next.
const BLOCK: usize = 16;

/// Calls `write` for every row of a row-major square image of zeros and ones, from the first, with the row and its squared
/// distances in pixels. False, and nothing is written, if all pixels are equal. `size` is at most [`MAX_SIZE`].
pub(crate) fn squared_distances(pixels: &[u8], size: usize, mut write: impl FnMut(&[u8], &[f32])) -> bool {
    let runs = Runs::new(pixels, size);
    let mut vertical = VerticalDistances::new(pixels, size);
    if runs.starts.len() == size && vertical.changes.is_empty() {
        return false;
    }
    let sites = sites_of_columns(pixels, &runs, size);
    let mut heights = vec![0.0; size];
    // a row's last block may reach beyond it
    let mut squared = vec![0.0; size + BLOCK];
    for (y, (row, sites)) in pixels.chunks_exact(size).zip(sites.chunks_exact(size.div_ceil(BLOCK))).enumerate() {
        vertical.heights(y, &mut heights);
        for [start, end] in runs.of(y) {
            transform(&mut squared, &mut heights, sites, start, end);
        }
        write(row, &squared[..size]);
    }
    true
}

/// Calls `found` with the positions at which two byte strings of equal length differ.
fn differences(a: &[u8], b: &[u8], mut found: impl FnMut(usize)) {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (i, (a, b)) in a_words.iter().zip(b_words).enumerate() {
        let mut bits = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        while bits != 0 {
            let byte = bits.trailing_zeros() / 8;
            found(8 * i + byte as usize);
            bits &= !(0xff << (8 * byte));
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        if a != b {
            found(8 * a_words.len() + i);
        }
    }
}

/// The runs of equal pixels in each row.
struct Runs {
    /// First column of each run, row after row.
    starts: Vec<usize>,
    /// Position in `starts` of each row's first run, and one more.
    rows: Vec<usize>,
    size: usize,
}

impl Runs {
    fn new(pixels: &[u8], size: usize) -> Self {
        let mut runs = Self { starts: Vec::with_capacity(8 * size), rows: Vec::with_capacity(size + 1), size };
        for row in pixels.chunks_exact(size.max(1)) {
            runs.rows.push(runs.starts.len());
            runs.starts.push(0);
            differences(&row[..size - 1], &row[1..], |x| runs.starts.push(x + 1));
        }
        runs.rows.push(runs.starts.len());
        runs
    }

    /// Start and end of each run of row `y`.
    fn of(&self, y: usize) -> impl Iterator<Item = [usize; 2]> {
        let starts = &self.starts[self.rows[y]..self.rows[y + 1]];
        let ends = starts[1..].iter().copied().chain([self.size]);
        starts.iter().copied().zip(ends).map(|(start, end)| [start, end])
    }
}

/// A pixel that differs from the one above it.
struct Change {
    row: usize,
    column: usize,
    /// Pixels from here to the next change in the column, or [`FAR`].
    run: f32,
}

/// Distances to the nearest pixel of the other kind in the same column, row after row.
struct VerticalDistances {
    /// Of a row, [`FAR`] or more if there is none.
    above: Vec<f32>,
    below: Vec<f32>,
    /// Those not yet passed, the next one last.
    changes: Vec<Change>,
    /// x^2 of all columns.
    squares: Vec<f32>,
}

impl VerticalDistances {
    fn new(pixels: &[u8], size: usize) -> Self {
        let mut changes = Vec::with_capacity(8 * size);
        let mut below = vec![FAR; size];
        for y in (1..size).rev() {
            let (above, here) = pixels[(y - 1) * size..(y + 1) * size].split_at(size);
            below.iter_mut().for_each(|below| *below += 1.0);
            differences(above, here, |column| {
                changes.push(Change { row: y, column, run: below[column] });
                below[column] = 0.0;
            });
        }
        // one for row 0, and one that its `heights` will take
        below.iter_mut().for_each(|below| *below += 2.0);
        Self { above: vec![FAR; size], below, changes, squares: (0..size).map(|x| (x * x) as f32).collect() }
    }

    /// For each column x the squared distance from row `y`, and x^2 more; rows are asked for one after the other.
    fn heights(&mut self, y: usize, heights: &mut [f32]) {
        while let Some(change) = self.changes.pop_if(|change| change.row == y) {
            self.above[change.column] = 0.0;
            self.below[change.column] = change.run + 1.0;
        }
        let columns = self.above.iter_mut().zip(&mut self.below).zip(&self.squares);
        for (height, ((above, below), square)) in heights.iter_mut().zip(columns) {
            *above += 1.0;
            *below -= 1.0;
            let distance = if *above < *below { *above } else { *below };
            *height = distance * distance + square;
        }
    }
}

/// For each row the columns of the sites of its pixels 0, [`BLOCK`], 2 [`BLOCK`], ... The image holds both kinds.
fn sites_of_columns(pixels: &[u8], runs: &Runs, size: usize) -> Vec<u16> {
    const NONE: u16 = u16::MAX;
    let columns = size.div_ceil(BLOCK);
    // of each pixel of these columns the nearest of the other kind in its row
    let mut beside = vec![NONE; size * columns];
    for y in 0..size {
        for [start, end] in runs.of(y) {
            for column in start.div_ceil(BLOCK)..end.div_ceil(BLOCK) {
                let x = column * BLOCK;
                let is_left = start > 0 && (end == size || x - start < end - x);
                beside[column * size + y] = if is_left {
                    start as u16 - 1
                } else if end < size {
                    end as u16
                } else {
                    NONE
                };
            }
        }
    }
    let mut sites = vec![0; size * columns];
    let mut lower = LowerEnvelope::default();
    for (column, beside) in beside.chunks_exact(size).enumerate() {
        let x = column * BLOCK;
        let kind = |y: usize| pixels[y * size + x];
        let mut start = 0;
        while start < size {
            let end = (start + 1..size).find(|&y| kind(y) != kind(start)).unwrap_or(size);
            lower.clear();
            if start > 0 {
                lower.push(start - 1, 0);
            }
            for (y, &beside) in (start..).zip(&beside[start..end]) {
                if beside != NONE {
                    lower.push(y, usize::from(beside).abs_diff(x).pow(2));
                }
            }
            if end < size {
                lower.push(end, 0);
            }
            let mut nearest = lower.sites();
            for y in start..end {
                let row = nearest(y);
                sites[y * columns + column] = if (start..end).contains(&row) { beside[row] } else { x as u16 };
            }
            start = end;
        }
    }
    sites
}

/// The lower envelope of parabolas (y - site)^2 + height; sites ascend.
#[derive(Default)]
struct LowerEnvelope(Vec<(i64, i64)>);

impl LowerEnvelope {
    fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a parabola and drops those that it hides together with the one before them (Maurer's test, without a division).
    fn push(&mut self, site: usize, height: usize) {
        let (site, height) = (site as i64, height as i64);
        while let [.., (before, height_before), (last, height_last)] = self.0[..] {
            let (a, b) = (last - before, site - last);
            let c = a + b;
            if c * height_last - b * height_before - a * height <= a * b * c {
                break;
            }
            self.0.pop();
        }
        self.0.push((site, height));
    }

    /// The site of the lowest parabola at y, for ascending y. There is a parabola.
    fn sites(&self) -> impl FnMut(usize) -> usize {
        let mut k = 0;
        move |y| {
            let value = |(site, height): (i64, i64)| (y as i64 - site).pow(2) + height;
            while k + 1 < self.0.len() && value(self.0[k + 1]) <= value(self.0[k]) {
                k += 1;
            }
            self.0[k].0 as usize
        }
    }
}

/// Squared distances of the run `start..end` of a row. `sites` are those of every [`BLOCK`]th pixel.
fn transform(squared: &mut [f32], heights: &mut [f32], sites: &[u16], start: usize, end: usize) {
    // the run's neighbours in the row are of the other kind: their vertical distance is 0
    let (left, right) = (start.saturating_sub(1), end.min(heights.len() - 1));
    let saved = [heights[left], heights[right]];
    for neighbour in [(start > 0).then_some(left), (end < heights.len()).then_some(right)].into_iter().flatten() {
        heights[neighbour] = single(neighbour) * single(neighbour);
    }
    let mut from = start;
    while from < end {
        let to = ((from / BLOCK + 1) * BLOCK).min(end);
        let first = if from.is_multiple_of(BLOCK) { sites[from / BLOCK].into() } else { left };
        let last = if to < end { sites[to / BLOCK].into() } else { right };
        transform_block(&mut squared[from..from + BLOCK], from, first, heights.get(first..=last).unwrap_or_default());
        from = to;
    }
    [heights[left], heights[right]] = saved;
}

/// A number of pixels, exact.
fn single(pixels: usize) -> f32 {
    pixels as i32 as f32
}

/// Squared distances of the pixels from column `from` on, to the candidates, whose columns begin with `first`.
///
/// (x - s)^2 + vertical(s)^2 = x^2 - 2 x s + height(s). The least -2 x s + height(s) so far is kept with 2 x s added, s being
/// the candidate at hand: so a candidate costs an addition and a comparison. The candidates are gone through from both ends to
/// the middle, because one way would wait for itself.
fn transform_block(squared: &mut [f32], from: usize, first: usize, candidates: &[f32]) {
    let least = |a: f32, b: f32| if a < b { a } else { b };
    let x: [f32; BLOCK] = std::array::from_fn(|i| single(from + i));
    let step = x.map(|x| 2.0 * x);
    let (mut best_left, mut best_right) = ([f32::INFINITY; BLOCK], [f32::INFINITY; BLOCK]);
    let half = candidates.len() / 2;
    let (left, right) = candidates.split_at(half);
    for (&left, &right) in left.iter().zip(right[right.len() - half..].iter().rev()) {
        for i in 0..BLOCK {
            best_left[i] = least(best_left[i], left) + step[i];
            best_right[i] = least(best_right[i] - step[i], right);
        }
    }
    if let Some(&middle) = right.first().filter(|_| right.len() > half) {
        for i in 0..BLOCK {
            best_right[i] = least(best_right[i] - step[i], middle);
        }
    }
    let middle = single(first + half);
    for i in 0..BLOCK {
        squared[i] = least(best_left[i], best_right[i]) + x[i] * (x[i] - 2.0 * middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(pixels: &[u8], size: usize) -> Vec<f32> {
        let mut all = Vec::new();
        if !squared_distances(pixels, size, |_, row| all.extend_from_slice(row)) {
            all.resize(pixels.len(), f32::INFINITY);
        }
        all
    }

    fn brute_force(pixels: &[u8], size: usize) -> Vec<f32> {
        (0..size * size)
            .map(|i| {
                let squared = |j: usize| {
                    let (dx, dy) = ((i % size).abs_diff(j % size), (i / size).abs_diff(j / size));
                    (dx * dx + dy * dy) as f32
                };
                (0..size * size).filter(|&j| pixels[j] != pixels[i]).map(squared).fold(f32::INFINITY, f32::min)
            })
            .collect()
    }

    #[test]
    fn equals_brute_force() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for size in [1, 2, 3, 7, 16, 31, 40, 65] {
            for density in [0, 1, 2, 10, 50, 90, 99, 100] {
                let pixels: Vec<u8> = (0..size * size).map(|_| u8::from(random() % 100 < density)).collect();
                assert_eq!(distances(&pixels, size), brute_force(&pixels, size), "size {size}, density {density}");
            }
            // large areas: rectangles
            for _ in 0..20 {
                let (x0, y0) = (random() % size, random() % size);
                let (w, h) = (random() % size + 1, random() % size + 1);
                let inside = |v: usize, low: usize, extent: usize| (low..low + extent).contains(&v);
                let pixels: Vec<u8> = (0..size * size).map(|i| u8::from(inside(i % size, x0, w) && inside(i / size, y0, h))).collect();
                assert_eq!(distances(&pixels, size), brute_force(&pixels, size));
            }
        }
        assert!(distances(&[], 0).is_empty());
    }
}
