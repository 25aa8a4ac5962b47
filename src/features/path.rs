//! Paths along lane centre lines, addressed by progress (metres from the start).

use crate::scenario::Map;
use crate::scenario::geometry::{Point, Pose, wrap_angle};
use std::f64::consts::{PI, TAU};

/// Two points nearer than this along the path are one.
const SAME_PROGRESS: f64 = 1e-8;

/// Progress, x, y, heading.
pub(crate) type PathPoint = [f64; 4];

/// Centre lines of lanes one after the other; a joint appears twice.
pub(crate) fn concatenate(map: &Map, lanes: &[usize]) -> Vec<Pose> {
    lanes.iter().flat_map(|&lane| map.lanes[lane].centerline.iter().copied()).collect()
}

/// A polyline with progress. Like the published one it lacks its last vertex, unless too few would remain.
#[derive(Debug)]
pub(crate) struct Path(Vec<PathPoint>);

impl Path {
    /// `None` for a line of no length.
    pub(crate) fn new(line: &[Pose]) -> Option<Self> {
        let mut points = Vec::with_capacity(line.len());
        let mut progress = 0.0;
        for w in line.windows(2) {
            let (dx, dy) = (w[1][0] - w[0][0], w[1][1] - w[0][1]);
            let next = progress + (dx * dx + dy * dy).sqrt();
            // of two coincident points the later stays: at a joint the next lane's first
            if next - progress > SAME_PROGRESS {
                points.push([progress, w[0][0], w[0][1], w[0][2]]);
            }
            progress = next;
        }
        if points.len() == 1
            && let Some(last) = line.last()
        {
            points.push([progress, last[0], last[1], last[2]]);
        }
        (points.len() > 1).then_some(Self(points))
    }

    /// Progress of the first point.
    pub(crate) fn start(&self) -> f64 {
        self.0[0][0]
    }

    /// Progress of the last point.
    pub(crate) fn end(&self) -> f64 {
        self.0[self.0.len() - 1][0]
    }

    /// The point at a progress, extrapolated outside.
    fn at(&self, progress: f64) -> PathPoint {
        let i = self.0.partition_point(|p| p[0] < progress).clamp(1, self.0.len() - 1);
        let (a, b) = (self.0[i - 1], self.0[i]);
        let t = (progress - a[0]) / (b[0] - a[0]);
        let mix = |k: usize| a[k] + t * (b[k] - a[k]);
        [mix(0), mix(1), mix(2), wrap_angle(a[3] + t * shortest_turn(b[3] - a[3]))]
    }

    /// The part between two progresses; two points or more.
    pub(crate) fn trim(&self, from: f64, to: f64) -> Vec<PathPoint> {
        let points = &self.0;
        let first = points.partition_point(|p| p[0] <= from);
        let end = points.partition_point(|p| p[0] < to);
        if first == points.len() {
            return points[points.len() - 2..].to_vec();
        }
        if end == 0 {
            return points[..2].to_vec();
        }
        let mut trimmed = Vec::with_capacity(end.saturating_sub(first) + 2);
        trimmed.push(self.at(from));
        trimmed.extend(points.get(first..end).unwrap_or_default());
        trimmed.push(self.at(to));
        trimmed
    }
}

/// The difference of two headings by the shorter way, as `numpy.unwrap` chooses it.
fn shortest_turn(difference: f64) -> f64 {
    if difference.abs() < PI {
        return difference;
    }
    let turn = (difference + PI).rem_euclid(TAU) - PI;
    if turn == -PI && difference > 0.0 { PI } else { turn }
}

/// x and y of path points.
pub(crate) fn positions(points: &[PathPoint]) -> Vec<Point> {
    points.iter().map(|p| [p[1], p[2]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn straight(n: usize) -> Path {
        Path::new(&(0..n).map(|i| [i as f64, 0.0, 0.0]).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_last_vertex_goes_unless_too_few_remain() {
        assert_eq!(straight(5).end(), 3.0);
        assert_eq!(straight(2).end(), 1.0);
        assert!(Path::new(&[[0.0; 3], [0.0; 3]]).is_none());
        assert!(Path::new(&[]).is_none());
        // a joint: the first copy goes
        let joint = Path::new(&[[0.0, 0.0, 0.1], [1.0, 0.0, 0.1], [1.0, 0.0, 0.2], [2.0, 0.0, 0.2], [3.0, 0.0, 0.2]]).unwrap();
        assert_eq!(joint.0, [[0.0, 0.0, 0.0, 0.1], [1.0, 1.0, 0.0, 0.2], [2.0, 2.0, 0.0, 0.2]]);
    }

    #[test]
    fn trimming_interpolates_the_ends() {
        let path = straight(6); // progress 0..=4
        let progress = |points: Vec<PathPoint>| points.iter().map(|p| p[0]).collect::<Vec<_>>();
        assert_eq!(progress(path.trim(0.5, 2.5)), [0.5, 1.0, 2.0, 2.5]);
        assert_eq!(progress(path.trim(1.0, 2.0)), [1.0, 2.0]);
        assert_eq!(progress(path.trim(4.0, 4.0)), [3.0, 4.0]);
        assert_eq!(progress(path.trim(-1.0, 0.0)), [0.0, 1.0]);
        assert_eq!(progress(path.trim(1.2, 1.4)), [1.2, 1.4]);
    }

    #[test]
    fn headings_take_the_short_way() {
        let path = Path::new(&[[0.0, 0.0, 3.0], [1.0, 0.0, -3.0], [2.0, 0.0, -3.0]]).unwrap();
        let heading = path.at(0.5)[3];
        assert!((heading.abs() - PI).abs() < 1e-12, "{heading}");
    }
}
