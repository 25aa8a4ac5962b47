//! Which lanes and crosswalks lie near a point.

use super::geometry::Point;
use geo::{Intersects, Polygon, Rect, coord};
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

/// Bounding boxes of polygons, each with the polygon's number.
#[derive(Debug)]
pub(crate) struct PolygonIndex(RTree<GeomWithData<Rectangle<Point>, usize>>);

impl PolygonIndex {
    pub(crate) fn new<'a>(polygons: impl Iterator<Item = &'a Polygon<f64>>) -> Self {
        let boxes = polygons.enumerate().map(|(i, polygon)| {
            let corners = polygon.exterior().coords().map(|c| [c.x, c.y]).collect::<Vec<_>>();
            GeomWithData::new(Rectangle::from_aabb(AABB::from_points(&corners)), i)
        });
        Self(RTree::bulk_load(boxes.collect()))
    }

    /// Numbers, ascending, of the polygons whose bounding box meets the box between two corners.
    pub(crate) fn candidates(&self, low: Point, high: Point) -> Vec<usize> {
        let mut found: Vec<usize> = self.0.locate_in_envelope_intersecting(AABB::from_corners(low, high)).map(|entry| entry.data).collect();
        found.sort_unstable();
        found
    }

    /// Numbers, ascending, of the polygons that meet the closed square around `center`.
    pub(crate) fn in_square<'a>(&self, center: Point, half: f64, polygon: impl Fn(usize) -> &'a Polygon<f64>) -> Vec<usize> {
        let (low, high) = ([center[0] - half, center[1] - half], [center[0] + half, center[1] + half]);
        let square = Rect::new(coord! { x: low[0], y: low[1] }, coord! { x: high[0], y: high[1] });
        let mut found = self.candidates(low, high);
        found.retain(|&i| {
            let polygon = polygon(i);
            // most have a vertex inside, which is quicker to see than to intersect
            polygon.exterior().coords().any(|c| low[0] <= c.x && c.x <= high[0] && low[1] <= c.y && c.y <= high[1])
                || polygon.intersects(&square)
        });
        found
    }
}
