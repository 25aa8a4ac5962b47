//! The drivable area around the ego as an image, and the signed distance to its edge.

use super::CostMap;
use super::distance_transform::{MAX_SIZE, squared_distances};
use super::ego::{EgoTrack, PRESENT};
use super::normalise::EgoFrame;
use super::raster::{Bitmap, Pixel};
use super::static_objects;
use crate::error::{Error, Result};
use crate::scenario::Scenario;
use crate::scenario::geometry::{self, Point, distance};

/// Pixels along a side.
pub const SIZE: usize = 600;
/// Metres along a pixel, for distances.
pub const RESOLUTION: f64 = 0.2;
/// Metres along a pixel, for positions: the published builder divides by the single-precision number.
const POSITION_RESOLUTION: f64 = 0.2_f32 as f64;
/// Half the side of the image, metres.
const HALF: f64 = 60.0;
/// Signed distance, metres, where the whole image is of one kind.
const ONE_KIND: f32 = 60.0;
/// Pixels whose distances are rounded together.
const CHUNK: usize = 64;
/// An agent seen in this many steps or more that moved less than [`PARKED_DISTANCE`] is parked.
const PARKED_STEPS: usize = 50;
/// Metres between the first and last position of a parked agent.
const PARKED_DISTANCE: f64 = 1.0;

/// Row-major, 1 where the ego may drive: lanes less static objects and parked agents.
pub(crate) fn drivable_mask(scenario: &Scenario, ego: &EgoTrack, selected: &[usize], frame: &EgoFrame) -> Vec<u8> {
    let origin = ego.rear_axle[PRESENT];
    let pixel = |point: Point| -> Pixel {
        let [x, y] = frame.position(point);
        let middle = (SIZE / 2) as f64;
        let round = |v: f64| i64::from(v.round_ties_even() as i32);
        [round(x / POSITION_RESOLUTION + middle), round(y / -POSITION_RESOLUTION + middle)]
    };
    let closed = |corners: [Point; 4]| [corners[0], corners[1], corners[2], corners[3], corners[0]].map(pixel);

    let mut bitmap = Bitmap::new(SIZE);
    let mut outline = Vec::new();
    for lane in scenario.map.lanes_in_square(origin, HALF) {
        outline.clear();
        outline.extend(scenario.map.lanes[lane].polygon.exterior().coords().map(|c| pixel([c.x, c.y])));
        bitmap.fill_polygon(&outline, 1);
    }
    for object in scenario.static_objects.iter().filter(|object| distance([object.x, object.y], origin) <= HALF) {
        bitmap.fill_convex(&closed(static_objects::outline(object)), 0);
    }
    for &agent in selected {
        let states = &scenario.agents[agent].states;
        let mut valid = states.iter().filter(|state| state.valid).map(|state| [state.x, state.y]);
        let seen = valid.clone().count();
        if seen >= PARKED_STEPS
            && let (Some(first), Some(last)) = (valid.next(), valid.next_back())
            && distance(last, first) < PARKED_DISTANCE
        {
            let now = &states[PRESENT];
            bitmap.fill_convex(&closed(geometry::box_corners([now.x, now.y], now.heading, now.width, now.length)), 0);
        }
    }
    bitmap.pixels
}

impl CostMap {
    /// Signed distances to the edge of the drivable area, rounded to half precision, from a row-major mask of 0 and 1. An
    /// image of one kind alone has no edge and gets +-60 m everywhere.
    ///
    /// # Errors
    /// [`Error::Data`] unless the mask holds `size` x `size` zeros and ones.
    pub fn from_mask(mask: &[u8], size: usize) -> Result<Self> {
        // without an early exit the usual case takes several pixels at a time
        if size > MAX_SIZE || size * size != mask.len() || mask.iter().fold(0, |all, &p| all | p) > 1 {
            return Err(Error::Data(format!("a mask of {} pixels is not {size} x {size} zeros and ones", mask.len())));
        }
        let mut values = Vec::with_capacity(mask.len());
        let has_edge = squared_distances(mask, size, |inside, squared| {
            let chunks = squared.chunks(CHUNK).zip(inside.chunks(CHUNK));
            chunks.for_each(|(squared, inside)| append_signed_distances(&mut values, squared, inside));
        });
        if !has_edge {
            values.resize(mask.len(), if mask.first() == Some(&1) { ONE_KIND } else { -ONE_KIND });
        }
        Ok(Self { size, values })
    }
}

/// Appends distances in metres, in half precision, from the squared ones in pixels; negative where `inside` is 0.
fn append_signed_distances(values: &mut Vec<f32>, squared: &[f32], inside: &[u8]) {
    let start = values.len();
    values.extend(squared.iter().map(|squared| squared.sqrt() * RESOLUTION as f32));
    let values = &mut values[start..];
    // Single precision is off by two of its steps at most: only beside the middle between two halves the nearer one is in doubt.
    let is_doubtful = |v: f32| (v.to_bits() & 0x1fff).wrapping_sub(0x1000 - 3) < 6;
    if values.iter().fold(false, |any, &v| any | is_doubtful(v)) {
        let doubtful = values.iter_mut().zip(squared).filter(|(v, _)| is_doubtful(**v));
        doubtful.for_each(|(v, &squared)| *v = round_to_half(f64::from(squared).sqrt() * RESOLUTION) as f32);
    }
    for (v, &inside) in values.iter_mut().zip(inside) {
        *v = f32::from_bits((v.to_bits() + 0x1000) & !0x1fff | u32::from(inside ^ 1) << 31);
    }
}

/// Nearest double that half precision holds, ties to even, for values in its normal range (as all distances on the image are).
/// `half::f16::from_f64` goes through single precision where the processor has only that conversion, and then rounds twice:
/// 0.2 sqrt(1185) comes out one step low.
fn round_to_half(value: f64) -> f64 {
    const DROPPED: u32 = 52 - 10;
    let bits = value.to_bits();
    let rounded = bits + (1 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1);
    f64::from_bits(rounded & !((1 << DROPPED) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half_precision() {
        for squared in 1..200_000 {
            let value = f64::from(squared).sqrt() * RESOLUTION;
            let rounded = round_to_half(value);
            let half = half::f16::from_f64(rounded);
            assert_eq!(half.to_f64(), rounded);
            let error = (rounded - value).abs();
            for neighbour in [half.to_bits() - 1, half.to_bits() + 1] {
                assert!(error < (half::f16::from_bits(neighbour).to_f64() - value).abs());
            }
        }
        // halfway between two: to even
        assert_eq!(round_to_half(1.0 + 1.0 / 2048.0), 1.0);
        assert_eq!(round_to_half(1.0 + 3.0 / 2048.0), 1.0 + 2.0 / 1024.0);
    }

    /// All distances of images of the usual size.
    #[test]
    fn single_precision_rounds_as_double_does() {
        let squared: Vec<f32> = (1..=2 * SIZE * SIZE).map(|squared| squared as f32).collect();
        let mut values = Vec::new();
        squared.chunks(CHUNK).for_each(|squared| append_signed_distances(&mut values, squared, &[1; CHUNK][..squared.len()]));
        for (&value, &squared) in values.iter().zip(&squared) {
            assert_eq!(f64::from(value), round_to_half(f64::from(squared).sqrt() * RESOLUTION), "{squared}");
        }
    }

    #[test]
    fn one_kind_alone_is_constant() {
        assert_eq!(CostMap::from_mask(&[1; 9], 3).unwrap().values, [60.0; 9]);
        assert_eq!(CostMap::from_mask(&[0; 9], 3).unwrap().values, [-60.0; 9]);
        let step = half::f16::from_f64(0.2).to_f32();
        assert_eq!(CostMap::from_mask(&[0, 1, 0, 1], 2).unwrap().values, [-step, step, -step, step]);
        assert!(CostMap::from_mask(&[0; 8], 3).is_err());
        assert!(CostMap::from_mask(&[2; 9], 3).is_err());
    }
}
