//! Exact Euclidean distance of every pixel to the nearest pixel of the other kind.
//!
//! Crates (imageproc among them) give the distance of one kind at a time; both together need no more work than one, because the
//! pixels between two of the other kind depend on nothing outside.

/// A squared distance that stands for "there is no other kind".
pub(crate) const NONE: i32 = i32::MAX;
/// Pixels along a side at most.
pub(crate) const MAX_SIZE: usize = 1 << 14;

/// Calls `write` for every row of a row-major square image of zeros and ones, from the first, with the row and its squared
/// distances in pixels; these are [`NONE`] everywhere if all pixels are equal. `size` is at most [`MAX_SIZE`].
pub(crate) fn squared_distances(pixels: &[u8], size: usize, mut write: impl FnMut(&[u8], &[i32])) {
    let vertical = vertical_distances(pixels, size);
    let mut lower = LowerEnvelope::new(size);
    let mut squared = vec![NONE; size];
    for (kinds, vertical) in pixels.chunks_exact(size.max(1)).zip(vertical.chunks_exact(size.max(1))) {
        let mut start = 0;
        while start < size {
            let kind = kinds[start];
            let end = start + kinds[start..].iter().take_while(|&&k| k == kind).count();
            lower.transform(vertical, &mut squared, start, end);
            start = end;
        }
        write(kinds, &squared);
    }
}

/// Distance to the nearest pixel of the other kind in the same column; `size` or more if there is none.
fn vertical_distances(pixels: &[u8], size: usize) -> Vec<u16> {
    let far = size as u16;
    let rows = |y: usize| pixels[y * size..(y + 2) * size].split_at(size);
    let mut distances = vec![far; size * size];
    for y in 1..size {
        let (above, here) = distances[(y - 1) * size..(y + 1) * size].split_at_mut(size);
        let (kinds_above, kinds) = rows(y - 1);
        for (((here, above), kind_above), kind) in here.iter_mut().zip(above).zip(kinds_above).zip(kinds) {
            *here = if kind_above == kind { *above + 1 } else { 1 };
        }
    }
    let mut upward = vec![far; size];
    for y in (0..size.saturating_sub(1)).rev() {
        let (kinds, kinds_below) = rows(y);
        let here = &mut distances[y * size..(y + 1) * size];
        for (((here, upward), kind), kind_below) in here.iter_mut().zip(&mut upward).zip(kinds).zip(kinds_below) {
            *upward = if kind == kind_below { *upward + 1 } else { 1 };
            *here = (*here).min(*upward);
        }
    }
    distances
}

/// The lower envelope of parabolas (x - site)^2 + height; sites ascend.
struct LowerEnvelope {
    sites: Vec<i64>,
    heights: Vec<i64>,
    count: usize,
}

impl LowerEnvelope {
    /// With room for the pixels of a row and their two neighbours.
    fn new(size: usize) -> Self {
        Self { sites: vec![0; size + 2], heights: vec![0; size + 2], count: 0 }
    }

    /// Squared distances of the run `start..end` of a row from its vertical ones. The run's neighbours in the row are of the
    /// other kind.
    fn transform(&mut self, vertical: &[u16], squared: &mut [i32], start: usize, end: usize) {
        let far = vertical.len() as u16;
        self.count = 0;
        if start > 0 {
            self.push(start as i64 - 1, 0);
        }
        for (x, &distance) in (start..).zip(&vertical[start..end]) {
            if distance < far {
                self.push(x as i64, i64::from(distance) * i64::from(distance));
            }
        }
        if end < vertical.len() {
            self.push(end as i64, 0);
        }
        if self.count == 0 {
            squared[start..end].fill(NONE);
            return;
        }
        let (sites, heights) = (&self.sites[..self.count], &self.heights[..self.count]);
        let (mut k, mut site, mut height) = (0, sites[0], heights[0]);
        for (x, result) in (start as i64..).zip(&mut squared[start..end]) {
            let mut least = (x - site) * (x - site) + height;
            while k + 1 < sites.len() {
                let (next, next_height) = (sites[k + 1], heights[k + 1]);
                let following = (x - next) * (x - next) + next_height;
                if following > least {
                    break;
                }
                (least, k, site, height) = (following, k + 1, next, next_height);
            }
            *result = least as i32;
        }
    }

    /// Adds a parabola and drops those that it hides together with the one before them (Maurer's test, without a division).
    fn push(&mut self, site: i64, height: i64) {
        let (sites, heights) = (&mut self.sites[..], &mut self.heights[..]);
        let mut count = self.count;
        while count >= 2 {
            let (a, b) = (sites[count - 1] - sites[count - 2], site - sites[count - 1]);
            let c = a + b;
            if c * heights[count - 1] - b * heights[count - 2] - a * height <= a * b * c {
                break;
            }
            count -= 1;
        }
        (sites[count], heights[count]) = (site, height);
        self.count = count + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(pixels: &[u8], size: usize) -> Vec<i32> {
        let mut all = Vec::new();
        squared_distances(pixels, size, |_, row| all.extend_from_slice(row));
        all
    }

    fn brute_force(pixels: &[u8], size: usize) -> Vec<i32> {
        (0..size * size)
            .map(|i| {
                let squared = |j: usize| {
                    let (dx, dy) = ((i % size).abs_diff(j % size), (i / size).abs_diff(j / size));
                    (dx * dx + dy * dy) as i32
                };
                (0..size * size).filter(|&j| pixels[j] != pixels[i]).map(squared).min().unwrap_or(NONE)
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
        for size in [1, 2, 3, 7, 16, 31, 40] {
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
