//! From the global frame to that of the ego.

use crate::scenario::geometry::Point;

/// A frame with its origin at a pose, x forward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EgoFrame {
    /// Metres.
    pub origin: [f64; 2],
    /// Radians.
    pub angle: f64,
    sin: f64,
    cos: f64,
}

impl EgoFrame {
    /// The frame of a pose.
    pub fn new(origin: [f64; 2], angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { origin, angle, sin, cos }
    }

    /// A point seen from the frame.
    pub fn position(&self, point: [f64; 2]) -> [f64; 2] {
        self.vector([point[0] - self.origin[0], point[1] - self.origin[1]])
    }

    /// A direction with length (a velocity, a difference of points) seen from the frame.
    pub fn vector(&self, vector: Point) -> Point {
        [vector[0] * self.cos + vector[1] * self.sin, -vector[0] * self.sin + vector[1] * self.cos]
    }

    /// An angle seen from the frame; not wrapped.
    pub fn heading(&self, heading: f64) -> f64 {
        heading - self.angle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    #[test]
    fn forward_is_x_and_left_is_y() {
        let frame = EgoFrame::new([10.0, 20.0], FRAC_PI_2);
        let close = |a: Point, b: Point| (a[0] - b[0]).abs() < 1e-12 && (a[1] - b[1]).abs() < 1e-12;
        assert!(close(frame.position([10.0, 23.0]), [3.0, 0.0]));
        assert!(close(frame.position([8.0, 20.0]), [0.0, 2.0]));
        assert!(close(frame.vector([0.0, 1.0]), [1.0, 0.0]));
        assert_eq!(frame.heading(FRAC_PI_2 + 0.5), 0.5);
    }
}
