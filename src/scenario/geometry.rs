//! Plane geometry of lanes and boxes, in double precision.
//!
//! Where the last bit decides what a feature becomes (which vertex a trimmed path starts with, which of several equal
//! rectangles a crosswalk gets) the order of the operations is part of the definition and is kept as written. For predicates
//! on polygons the `geo` crate is used.

use geo::{ConvexHull, LineString, MultiPoint, Polygon};
use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// x, y in metres.
pub type Point = [f64; 2];
/// x, y in metres and heading in radians.
pub type Pose = [f64; 3];

/// Points by which a map polygon is described to the network, one more than the vectors between them.
pub const EQUAL_ARC_POINTS: usize = 21;

/// Distance in metres below which two neighbouring vertices are one.
const SAME_VERTEX: f64 = 1e-6;

/// The angle in [-pi, pi).
pub fn wrap_angle(angle: f64) -> f64 {
    (angle + PI).rem_euclid(TAU) - PI
}

/// Distance between two points.
pub fn distance(a: Point, b: Point) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// A polyline with vertices `spacing` apart (nearly: the spacing divides the length evenly), first and last vertex kept.
/// Empty if the line has no length.
pub fn resample(line: &[Point], spacing: f64) -> Vec<Point> {
    let mut vertices: Vec<Point> = Vec::with_capacity(line.len());
    for &point in line {
        if vertices.last().is_none_or(|&last| distance(last, point) > SAME_VERTEX) {
            vertices.push(point);
        }
    }
    if vertices.len() < 2 {
        return Vec::new();
    }
    let lengths: Vec<f64> = vertices.windows(2).map(|w| distance(w[0], w[1])).collect();
    let mut measure = vec![0.0; vertices.len()];
    for (i, length) in lengths.iter().enumerate() {
        measure[i + 1] = measure[i] + length;
    }
    let total = measure[lengths.len()];
    let count = ((total / spacing + 0.5).floor() as usize).max(1);
    let mut result = Vec::with_capacity(count + 1);
    result.push(vertices[0]);
    let mut segment = 0;
    for i in 1..count {
        let at = total * i as f64 / count as f64;
        while segment + 1 < lengths.len() && measure[segment + 1] <= at {
            segment += 1;
        }
        let t = (at - measure[segment]) / lengths[segment];
        let (a, b) = (vertices[segment], vertices[segment + 1]);
        result.push([a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]);
    }
    result.push(vertices[vertices.len() - 1]);
    result
}

/// Adds to every vertex the direction of the segment that leaves it; the last vertex repeats the direction before it.
pub fn with_headings(line: &[Point]) -> Vec<Pose> {
    let mut heading = 0.0;
    (0..line.len())
        .map(|i| {
            if i + 1 < line.len() {
                heading = (line[i + 1][1] - line[i][1]).atan2(line[i + 1][0] - line[i][0]);
            }
            [line[i][0], line[i][1], heading]
        })
        .collect()
}

/// Length of a polyline.
pub fn length<const N: usize>(line: &[[f64; N]]) -> f64 {
    line.windows(2).map(|w| (w[1][0] - w[0][0]).hypot(w[1][1] - w[0][1])).sum()
}

/// Measure along the polyline of the point nearest to `point`, and the distance to it. Of equally near segments the first
/// counts. The arithmetic is that of GEOS' `LineString::project`.
pub fn project<const N: usize>(line: &[[f64; N]], point: Point) -> (f64, f64) {
    let (mut best, mut best_measure, mut start) = (f64::INFINITY, 0.0, 0.0);
    for w in line.windows(2) {
        let (a, b) = (&w[0], &w[1]);
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let (px, py) = (point[0] - a[0], point[1] - a[1]);
        let squared = dx * dx + dy * dy;
        let length = squared.sqrt();
        let t = if squared > 0.0 { (px * dx + py * dy) / squared } else { 0.0 };
        let distance = if t <= 0.0 {
            (px * px + py * py).sqrt()
        } else if t >= 1.0 {
            let (qx, qy) = (point[0] - b[0], point[1] - b[1]);
            (qx * qx + qy * qy).sqrt()
        } else {
            (((a[1] - point[1]) * dx - (a[0] - point[0]) * dy) / squared).abs() * length
        };
        if distance < best {
            best = distance;
            best_measure = if t <= 0.0 {
                start
            } else if t <= 1.0 {
                start + t * length
            } else {
                start + length
            };
        }
        start += length;
    }
    (best_measure, best)
}

/// Index of the vertex nearest to `point` among every `step`th, the first of equals, and its distance. The line has vertices.
pub fn nearest_vertex<const N: usize>(line: &[[f64; N]], step: usize, point: Point) -> (usize, f64) {
    let (mut best, mut index) = (f64::INFINITY, 0);
    for (i, vertex) in line.iter().enumerate().step_by(step) {
        let (dx, dy) = (vertex[0] - point[0], vertex[1] - point[1]);
        let squared = dx * dx + dy * dy;
        if squared < best {
            (best, index) = (squared, i);
        }
    }
    (index, best.sqrt())
}

/// Points at equal steps of arc length, ends included; `None` if the line has no length.
pub fn sample_equal_arc(line: &[Point]) -> Option<[Point; EQUAL_ARC_POINTS]> {
    if line.len() < 2 {
        return None;
    }
    let mut fractions: Vec<f64> = line
        .windows(2)
        .map(|w| {
            let (dx, dy) = (w[1][0] - w[0][0], w[1][1] - w[0][1]);
            (dx * dx + dy * dy).sqrt()
        })
        .collect();
    let total: f64 = fractions.iter().sum();
    if total.is_nan() || total <= SAME_VERTEX {
        return None;
    }
    fractions.iter_mut().for_each(|f| *f /= total);
    let mut measure = vec![0.0; line.len()];
    for (i, f) in fractions.iter().enumerate() {
        measure[i + 1] = measure[i] + f;
    }
    let last = line.len() - 1;
    let mut result = [[0.0; 2]; EQUAL_ARC_POINTS];
    for (j, point) in result.iter_mut().enumerate() {
        let q = j as f64 / (EQUAL_ARC_POINTS - 1) as f64;
        let bin = if q >= 1.0 { last } else { measure.partition_point(|&m| m <= q).clamp(1, last) };
        let f = fractions[bin - 1];
        let t = (q - measure[bin - 1]) / if f == 0.0 { 1e-6 } else { f };
        let (a, b) = (line[bin - 1], line[bin]);
        *point = [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])];
    }
    Some(result)
}

/// Corners of a box in the order front left, rear left, rear right, front right.
pub fn box_corners(center: Point, heading: f64, width: f64, length: f64) -> [Point; 4] {
    let (sin, cos) = heading.sin_cos();
    let (left_sin, left_cos) = (heading + FRAC_PI_2).sin_cos();
    [(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)].map(|(a, b)| {
        [center[0] + a * length / 2.0 * cos + b * width / 2.0 * left_cos, center[1] + a * length / 2.0 * sin + b * width / 2.0 * left_sin]
    })
}

/// A `geo` polygon of an outline; closes it.
pub fn polygon(outline: &[Point]) -> Polygon<f64> {
    Polygon::new(LineString::from(outline.to_vec()), Vec::new())
}

/// The smallest rectangle around the points that has a side along an edge of their convex hull: corners counter-clockwise,
/// the first two on that edge's line. Edges are tried clockwise from the lowest (then leftmost) vertex, and the first of equal
/// area wins, which makes the choice deterministic. `None` for points on a line.
pub fn minimum_rectangle(points: &[Point]) -> Option<[Point; 4]> {
    let hull = MultiPoint::from(points.to_vec()).convex_hull();
    // geo's ring is closed and counter-clockwise
    let mut ring: Vec<Point> = hull.exterior().coords().rev().skip(1).map(|c| [c.x, c.y]).collect();
    ring.dedup();
    if ring.len() < 3 {
        return None;
    }
    let first = (0..ring.len())
        .min_by(|&i, &j| (ring[i][1], ring[i][0]).partial_cmp(&(ring[j][1], ring[j][0])).unwrap_or(std::cmp::Ordering::Equal))?;
    ring.rotate_left(first);
    let mut best: Option<(f64, [Point; 4])> = None;
    for i in 0..ring.len() {
        let (a, b) = (ring[i], ring[(i + 1) % ring.len()]);
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = (dx * dx + dy * dy).sqrt();
        let (ux, uy) = (dx / length, dy / length);
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for p in &ring {
            let local = [ux * p[0] + uy * p[1], -uy * p[0] + ux * p[1]];
            for k in 0..2 {
                low[k] = low[k].min(local[k]);
                high[k] = high[k].max(local[k]);
            }
        }
        let area = (high[0] - low[0]) * (high[1] - low[1]);
        if best.as_ref().is_none_or(|(least, _)| area < *least) {
            let corners = [[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]];
            best = Some((area, corners.map(|[u, v]| [ux * u + -uy * v, uy * u + ux * v])));
        }
    }
    best.filter(|(area, corners)| *area > 0.0 && corners.iter().flatten().all(|c| c.is_finite())).map(|(_, corners)| corners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_wrap_into_the_half_open_interval() {
        assert_eq!(wrap_angle(PI), -PI);
        assert_eq!(wrap_angle(-PI), -PI);
        assert!((wrap_angle(7.0) - (7.0 - TAU)).abs() < 1e-15);
        assert!((wrap_angle(-4.0) - (TAU - 4.0)).abs() < 1e-15);
    }

    #[test]
    fn resampling_keeps_ends_and_spacing() {
        let line = resample(&[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], 0.25);
        assert_eq!(line.len(), 9);
        assert_eq!((line[0], line[4], line[8]), ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0]));
        assert!(line.windows(2).all(|w| (distance(w[0], w[1]) - 0.25).abs() < 1e-12));
        assert_eq!(resample(&[[0.0, 0.0], [0.1, 0.0]], 0.25).len(), 2);
        assert!(resample(&[[3.0, 3.0], [3.0, 3.0 + 1e-9]], 0.25).is_empty());
        let poses = with_headings(&line);
        assert_eq!((poses[0][2], poses[4][2], poses[8][2]), (0.0, FRAC_PI_2, FRAC_PI_2));
    }

    #[test]
    fn projection_clamps_and_prefers_the_first() {
        let line = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]];
        assert_eq!(project(&line, [3.0, 4.0]), (3.0, 4.0));
        assert_eq!(project(&line, [-3.0, 4.0]), (0.0, 5.0));
        assert_eq!(project(&line, [10.0, 13.0]), (20.0, 3.0));
        assert_eq!(project(&line, [7.0, 3.0]).0, 7.0); // 3 m from both segments
        assert_eq!(project(&[[1.0, 1.0], [1.0, 1.0]], [1.0, 2.0]), (0.0, 1.0));
    }

    #[test]
    fn equal_arc_points_divide_the_length() {
        let points = sample_equal_arc(&[[0.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 7.0]]).unwrap();
        assert_eq!((points[0], points[20]), ([0.0, 0.0], [3.0, 7.0]));
        assert!(points.windows(2).all(|w| (distance(w[0], w[1]) - 0.5).abs() < 1e-12));
        assert!(sample_equal_arc(&[[1.0, 1.0], [1.0, 1.0]]).is_none());
        assert!(sample_equal_arc(&[[1.0, 1.0]]).is_none());
    }

    #[test]
    fn boxes_and_smallest_rectangles() {
        let corners = box_corners([1.0, 2.0], FRAC_PI_2, 2.0, 4.0);
        for (corner, want) in corners.iter().zip([[0.0, 4.0], [0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]) {
            assert!(distance(*corner, want) < 1e-12);
        }
        // clockwise from the lowest left vertex: the first edge runs up the left side
        let rectangle = minimum_rectangle(&[[20.0, 3.0], [23.0, 3.0], [23.0, -6.0], [20.0, -6.0]]).unwrap();
        for (corner, want) in rectangle.iter().zip([[20.0, -6.0], [20.0, 3.0], [20.0, 3.0], [20.0, -6.0]]) {
            assert!((corner[1] - want[1]).abs() < 1e-12, "{rectangle:?}");
        }
        assert!(minimum_rectangle(&[[20.0, 0.0], [24.0, 0.0], [28.0, 0.0], [22.0, 0.0]]).is_none());
        assert!(minimum_rectangle(&[[1.0, 1.0]]).is_none());
        assert!(minimum_rectangle(&[]).is_none());
    }
}
