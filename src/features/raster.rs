//! Filling of polygons on a pixel grid by the rules of OpenCV 4.5.5 (`fillPoly`, `fillConvexPoly`, 8-connected lines), bit for
//! bit: the published cost maps were drawn with it. No Rust crate follows these rules.

/// Fixed-point fraction bits of an edge's column.
const SHIFT: u32 = 16;
const ONE: i64 = 1 << SHIFT;

/// Column and row.
pub(crate) type Pixel = [i64; 2];

/// A square image of bytes, row-major.
#[derive(Debug, Clone)]
pub(crate) struct Bitmap {
    size: i64,
    pub(crate) pixels: Vec<u8>,
    scan: Scan,
}

/// Where a polygon's edges cross the rows; kept to be filled again.
#[derive(Debug, Clone, Default)]
struct Scan {
    edges: Vec<Edge>,
    /// Of each row the place of its first crossing among `columns`; while these are filled in, of its next.
    places: Vec<usize>,
    /// In fixed point, row after row.
    columns: Vec<i64>,
}

/// An edge that crosses the rows `top..bottom` of the image.
#[derive(Debug, Clone, Copy)]
struct Edge {
    top: usize,
    bottom: usize,
    /// In the top row, in fixed point.
    column: i64,
    /// From row to row.
    slope: i64,
}

impl Bitmap {
    /// All zero.
    pub(crate) fn new(size: usize) -> Self {
        Self { size: size as i64, pixels: vec![0; size * size], scan: Scan::default() }
    }

    /// Fills a polygon by the even-odd rule, outline included.
    pub(crate) fn fill_polygon(&mut self, points: &[Pixel], value: u8) {
        if self.misses(points) {
            return;
        }
        let mut scan = std::mem::take(&mut self.scan);
        scan.edges.clear();
        let mut edges = 0;
        let Some(&(mut previous)) = points.last() else { return };
        for &point in points {
            self.line(previous, point, value);
            if previous[1] != point[1] {
                edges += 1;
                let slope = ((point[0] - previous[0]) << SHIFT) / (point[1] - previous[1]);
                let (upper, lower) = if previous[1] < point[1] { (previous, point) } else { (point, previous) };
                let (top, bottom) = (upper[1].max(0), lower[1].min(self.size));
                if top < bottom {
                    let column = (upper[0] << SHIFT) + slope * (top - upper[1]);
                    scan.edges.push(Edge { top: top as usize, bottom: bottom as usize, column, slope });
                }
            }
            previous = point;
        }
        if edges >= 2 {
            scan.rows(|row, from, to| self.span(row as i64, (from + ONE - 1) >> SHIFT, to >> SHIFT, value));
        }
        self.scan = scan;
    }

    /// Fills a convex polygon, outline included: two chains run down from the first of the highest vertices.
    pub(crate) fn fill_convex(&mut self, points: &[Pixel], value: u8) {
        if self.misses(points) {
            return;
        }
        let count = points.len();
        let mut previous = points[count - 1];
        for &point in points {
            self.line(previous, point, value);
            previous = point;
        }
        if count < 3 {
            return;
        }
        let first = (0..count).min_by_key(|&i| points[i][1]).unwrap_or(0);
        let bottom = points.iter().map(|p| p[1]).max().unwrap_or(0).min(self.size - 1);
        let mut chains = [1, count - 1].map(|step| Chain { vertex: first, step, end: points[first][1], column: -ONE, slope: 0 });
        let mut budget = count as i64;
        let mut y = points[first][1];
        while y <= bottom {
            for chain in &mut chains {
                if y >= chain.end && !chain.advance(points, y, &mut budget) {
                    budget -= 1;
                }
            }
            if budget < 0 {
                break;
            }
            if y >= 0 {
                let (left, right) = (chains[0].column.min(chains[1].column), chains[0].column.max(chains[1].column));
                self.span(y, (left + ONE / 2) >> SHIFT, (right + ONE / 2) >> SHIFT, value);
            }
            chains.iter_mut().for_each(|chain| chain.column += chain.slope);
            y += 1;
        }
    }

    /// True if the points' bounding box lies outside the image.
    fn misses(&self, points: &[Pixel]) -> bool {
        (0..2).any(|k| points.iter().all(|p| p[k] < 0) || points.iter().all(|p| p[k] >= self.size))
    }

    /// Columns `from..=to` of a row.
    fn span(&mut self, y: i64, from: i64, to: i64, value: u8) {
        let (from, to) = (from.max(0), to.min(self.size - 1));
        if from <= to {
            let row = y * self.size;
            self.pixels[(row + from) as usize..=(row + to) as usize].fill(value);
        }
    }

    /// 8-connected line, walked from its left end.
    fn line(&mut self, a: Pixel, b: Pixel, value: u8) {
        let Some((mut a, mut b)) = self.clip(a, b) else { return };
        if b[0] < a[0] {
            std::mem::swap(&mut a, &mut b);
        }
        let down = if b[1] < a[1] { -self.size } else { self.size };
        let (dx, dy) = (b[0] - a[0], (b[1] - a[1]).abs());
        let (major, minor, along, across) = if dy > dx { (dy, dx, down, 1) } else { (dx, dy, 1, down) };
        let mut error = major - 2 * minor;
        let mut at = a[1] * self.size + a[0];
        for _ in 0..=major {
            self.pixels[at as usize] = value;
            let step = error < 0;
            error += if step { 2 * (major - minor) } else { -2 * minor };
            at += if step { along + across } else { along };
        }
    }

    /// Cohen-Sutherland: rows first, then columns; offsets are truncated. `None` if nothing remains.
    fn clip(&self, a: Pixel, b: Pixel) -> Option<(Pixel, Pixel)> {
        let limit = self.size - 1;
        let column_code = |x: i64| u8::from(x < 0) + 2 * u8::from(x > limit);
        let code = |p: Pixel| column_code(p[0]) + 4 * u8::from(p[1] < 0) + 8 * u8::from(p[1] > limit);
        let ([mut x1, mut y1], [mut x2, mut y2]) = (a, b);
        let (mut c1, mut c2) = (code(a), code(b));
        if c1 & c2 == 0 && c1 | c2 != 0 {
            if c1 & 12 != 0 {
                let y = if c1 < 8 { 0 } else { limit };
                x1 += ((y - y1) as f64 * (x2 - x1) as f64 / (y2 - y1) as f64) as i64;
                y1 = y;
                c1 = column_code(x1);
            }
            if c2 & 12 != 0 {
                let y = if c2 < 8 { 0 } else { limit };
                x2 += ((y - y2) as f64 * (x2 - x1) as f64 / (y2 - y1) as f64) as i64;
                y2 = y;
                c2 = column_code(x2);
            }
            if c1 & c2 == 0 && c1 | c2 != 0 {
                if c1 != 0 {
                    let x = if c1 == 1 { 0 } else { limit };
                    y1 += ((x - x1) as f64 * (y2 - y1) as f64 / (x2 - x1) as f64) as i64;
                    x1 = x;
                    c1 = 0;
                }
                if c2 != 0 {
                    let x = if c2 == 1 { 0 } else { limit };
                    y2 += ((x - x2) as f64 * (y2 - y1) as f64 / (x2 - x1) as f64) as i64;
                    x2 = x;
                    c2 = 0;
                }
            }
        }
        let inside = |v: i64| (0..=limit).contains(&v);
        (c1 | c2 == 0 && [x1, y1, x2, y2].into_iter().all(inside)).then_some(([x1, y1], [x2, y2]))
    }
}

impl Scan {
    /// Calls `span` with a row and the columns between which it lies inside, for all of them.
    fn rows(&mut self, mut span: impl FnMut(usize, i64, i64)) {
        let Self { edges, places, columns } = self;
        let first = edges.iter().map(|edge| edge.top).min().unwrap_or(0);
        let last = edges.iter().map(|edge| edge.bottom).max().unwrap_or(0);
        // crossings are counted by where they begin and end, then summed up twice
        let mut changes = vec![0_isize; last - first + 1];
        for edge in &*edges {
            changes[edge.top - first] += 1;
            changes[edge.bottom - first] -= 1;
        }
        places.clear();
        let (mut count, mut place) = (0, 0);
        for change in changes {
            places.push(place as usize);
            count += change;
            place += count;
        }
        columns.clear();
        columns.resize(place as usize, 0);
        for edge in &*edges {
            let mut column = edge.column;
            for place in &mut places[edge.top - first..edge.bottom - first] {
                columns[*place] = column;
                *place += 1;
                column += edge.slope;
            }
        }
        // each place has moved on to where the next row begins
        let mut start = 0;
        for (row, &end) in (first..last).zip(&*places) {
            let columns = &mut columns[start..end];
            columns.sort_unstable();
            columns.chunks_exact(2).for_each(|pair| span(row, pair[0], pair[1]));
            start = end;
        }
    }
}

/// One side of a convex polygon, from vertex to vertex.
struct Chain {
    vertex: usize,
    step: usize,
    /// Row at which the current edge ends.
    end: i64,
    column: i64,
    slope: i64,
}

impl Chain {
    /// Goes on to the next edge that leads below row `y`; false when the polygon's edges are used up.
    fn advance(&mut self, points: &[Pixel], y: i64, budget: &mut i64) -> bool {
        let mut from = self.vertex;
        let mut to = (from + self.step) % points.len();
        while *budget > 0 {
            *budget -= 1;
            let rows = points[to][1] - y;
            if rows > 0 {
                let (start, end) = (points[from][0] << SHIFT, points[to][0] << SHIFT);
                self.end = points[to][1];
                self.slope = ((end - start) * 2 + rows) / (2 * rows);
                self.column = start;
                self.vertex = to;
                return true;
            }
            from = to;
            to = (to + self.step) % points.len();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(size: usize, draw: impl Fn(&mut Bitmap)) -> Vec<String> {
        let mut bitmap = Bitmap::new(size);
        draw(&mut bitmap);
        bitmap.pixels.chunks(size).map(|row| row.iter().map(|&p| if p == 0 { '.' } else { '#' }).collect()).collect()
    }

    #[test]
    fn outlines_belong_to_the_polygon() {
        let square = [[1, 1], [3, 1], [3, 3], [1, 3]];
        let want = [".....", ".###.", ".###.", ".###.", "....."];
        assert_eq!(drawn(5, |b| b.fill_polygon(&square, 1)), want);
        assert_eq!(drawn(5, |b| b.fill_convex(&square, 1)), want);
    }

    #[test]
    fn even_odd_leaves_a_hole() {
        // two squares, the inner one reached through a slit
        let outline = [[0, 0], [8, 0], [8, 8], [0, 8], [0, 0], [2, 2], [6, 2], [6, 6], [2, 6], [2, 2]];
        let rows = drawn(9, |b| b.fill_polygon(&outline, 1));
        assert_eq!(rows[4], "###...###");
        assert_eq!(rows[0], "#########");
    }

    #[test]
    fn lines_are_walked_from_the_left() {
        assert_eq!(drawn(4, |b| b.line([0, 0], [3, 1], 1)), ["##..", "..##", "....", "...."]);
        assert_eq!(drawn(4, |b| b.line([3, 0], [0, 1], 1)), ["..##", "##..", "....", "...."]);
        assert_eq!(drawn(4, |b| b.line([1, 3], [0, 0], 1)), ["#...", "#...", ".#..", ".#.."]);
    }

    #[test]
    fn shapes_partly_and_wholly_outside() {
        assert_eq!(drawn(3, |b| b.fill_polygon(&[[-5, -5], [9, -5], [9, 9], [-5, 9]], 1)), ["###", "###", "###"]);
        assert_eq!(drawn(3, |b| b.fill_convex(&[[-5, -5], [9, -5], [9, 9], [-5, 9]], 1)), ["###", "###", "###"]);
        assert_eq!(drawn(3, |b| b.fill_polygon(&[[5, 5], [9, 5], [9, 9]], 1)), ["...", "...", "..."]);
        assert_eq!(drawn(3, |b| b.line([-3, 1], [9, 1], 1)), ["...", "###", "..."]);
        let far = i64::from(i32::MAX);
        drawn(3, |b| b.fill_polygon(&[[-far, -far], [far, -far], [far, far], [0, -far]], 1));
        drawn(3, |b| b.fill_polygon(&[], 1));
        drawn(3, |b| b.fill_convex(&[], 1));
        assert_eq!(drawn(3, |b| b.fill_convex(&[[1, 1]], 1)), ["...", ".#.", "..."]);
    }

    /// Random polygons, partly outside, as a plain restatement of OpenCV's rules fills them.
    #[test]
    fn equals_the_reference_bit_for_bit() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/raster_cases.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 120);
        for case in cases {
            let points: Vec<Pixel> =
                case["points"].as_array().unwrap().iter().map(|p| [p[0].as_i64().unwrap(), p[1].as_i64().unwrap()]).collect();
            let convex = case["convex"] == true;
            let rows = drawn(32, |b| if convex { b.fill_convex(&points, 1) } else { b.fill_polygon(&points, 1) });
            let rows: String =
                rows.iter().map(|row| format!("{:08x}", row.chars().fold(0_u32, |bits, c| bits << 1 | u32::from(c == '#')))).collect();
            assert_eq!(case["rows"], rows, "{points:?}");
        }
    }
}
