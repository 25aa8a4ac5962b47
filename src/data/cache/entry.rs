//! What is stored of one scenario, and of one map polygon.
//!
//! An entry is a [`Blueprint`]: tracks as the host gave them, what the builder found, and the drivable mask instead of the
//! distances that follow from it. Polygons, which scenarios of one road share, stand beside the entries, once a shard; an
//! entry has their numbers.

use super::column::{Damaged, Read, Reader, Writer};
use crate::data::catalogue::Name;
use crate::error::{Error, Result};
use crate::features::{
    CausalFeatures, FeatureBuilder, Features, Polygon, QUANTITIES, ReferenceLineFeatures, StaticFeatures, Tracks, blueprint::Blueprint,
};
use crate::scenario::{EQUAL_ARC_POINTS, HISTORY_STEPS, PolygonSamples, Scenario, Split, TOTAL_STEPS};
use std::sync::Arc;

/// Most agents, polygons, static objects, lines and points of an entry, against memory taken for damaged counts.
const MOST_AGENTS: usize = 1001;
const MOST_POLYGONS: usize = 1 << 15;
const MOST_OBJECTS: usize = 1 << 15;
const MOST_LINES: usize = 256;
const MOST_POINTS: usize = 1000;
/// Most pixels along a side of a mask.
const MOST_PIXELS: usize = 4096;

impl<'a> Name<'a> {
    pub(super) fn write(&self, writer: &mut Writer) {
        [self.token, self.log_name, self.scenario_type, self.map_name].iter().for_each(|text| writer.bytes(text.as_bytes()));
        writer.number(split_number(self.split).into());
        writer.flags(&[self.start_us.is_some()]);
        writer.small(self.start_us.into_iter());
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Read<Self> {
        let [token, log_name, scenario_type, map_name] = [reader.text()?, reader.text()?, reader.text()?, reader.text()?];
        let split = split_of(reader.count(3)? as u8);
        let known = reader.flags(1)?[0];
        let start_us = reader.small(known.into())?.pop();
        Ok(Self { token, log_name, scenario_type, split, map_name, start_us })
    }
}

/// A split as a number: 0 without.
pub(super) fn split_number(split: Option<Split>) -> u8 {
    match split {
        None => 0,
        Some(Split::Train) => 1,
        Some(Split::Validation) => 2,
        Some(Split::Test) => 3,
    }
}

/// The reverse of [`split_number`].
pub(super) fn split_of(number: u8) -> Option<Split> {
    [None, Some(Split::Train), Some(Split::Validation), Some(Split::Test)].get(usize::from(number)).copied().flatten()
}

/// An entry on its way into a shard, which has yet to number its polygons.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) polygons: Vec<Arc<PolygonSamples>>,
    pub(super) body: Vec<u8>,
}

/// What is to be stored of features that `builder` made of a scenario.
///
/// # Errors
/// [`Error::Data`] if they would not come back bit for bit: then they were not made of this scenario by this builder.
pub(super) fn encode(scenario: &Scenario, features: &Features, builder: &FeatureBuilder) -> Result<Encoded> {
    let blueprint = Blueprint::of(scenario, features, builder.radius);
    let polygons: Vec<_> = blueprint.polygons.iter().map(|polygon| Arc::clone(&polygon.samples)).collect();
    let body = write(&blueprint);
    let back = read(&body, polygons.iter().cloned()).map_err(|Damaged| Error::Data(lost(features, "its size")))?;
    if back.mask != blueprint.mask {
        return Err(Error::Data(lost(features, "the mask")));
    }
    let back = back.features(&features.token, &features.scenario_type, builder.radius, false)?;
    match back.difference(&features.without_cost_map()) {
        Some(field) => Err(Error::Data(lost(features, field))),
        None => Ok(Encoded { polygons, body }),
    }
}

fn lost(features: &Features, what: &str) -> String {
    format!("scenario '{}' is not cached: {what} would be lost", features.token)
}

/// Features from an entry's body and its polygons.
pub(super) fn decode(name: &Name, body: &[u8], polygons: &[Arc<PolygonSamples>], builder: &FeatureBuilder) -> Read<Features> {
    let blueprint = read(body, polygons.iter().cloned())?;
    blueprint.features(name.token, name.scenario_type, builder.radius, builder.cost_map).map_err(|_| Damaged)
}

/// Whether [`decode`] would read a body.
///
/// # Errors
/// [`Damaged`].
pub(super) fn check(body: &[u8], polygons: &[Arc<PolygonSamples>]) -> Read<()> {
    read(body, polygons.iter().cloned()).map(drop)
}

fn write(b: &Blueprint) -> Vec<u8> {
    let mut w = Writer::default();
    let (agents, steps) = (b.tracks.kinds.len() + 1, b.ego.len());
    [agents, steps, b.polygons.len(), b.static_objects.count, b.reference_lines.count, b.reference_lines.points]
        .iter()
        .for_each(|&count| w.number(count as u64));
    w.doubles(&b.vehicle);
    w.doubles(&b.current_state[3..]);
    (0..5).for_each(|k| w.doubles(&b.ego.iter().map(|state| state[k]).collect::<Vec<_>>()));

    w.small(b.tracks.kinds.iter().map(|&kind| kind.into()));
    w.flags(&b.tracks.valid);
    for (_, values) in b.tracks.rows(steps) {
        values.chunks((values.len() / QUANTITIES).max(1)).for_each(|column| w.doubles(column));
    }

    w.small(b.polygons.iter().map(|p| p.kind.into()));
    w.small(b.polygons.iter().map(|p| p.light.into()));
    w.small(b.polygons.iter().map(|p| p.road_block.into()));
    w.flags(&b.polygons.iter().map(|p| p.on_route).collect::<Vec<_>>());
    w.flags(&b.polygons.iter().map(|p| p.speed_limit.is_some()).collect::<Vec<_>>());
    w.doubles(&b.polygons.iter().filter_map(|p| p.speed_limit).collect::<Vec<_>>());

    let objects = &b.static_objects;
    w.doubles(&objects.position);
    w.doubles(&objects.heading);
    w.doubles(&objects.shape);
    w.small(objects.category.iter().map(|&kind| kind.into()));
    w.flags(&objects.valid);

    let lines = &b.reference_lines;
    w.flags(&lines.valid);
    for row in 0..lines.count {
        let valid = |i: &usize| lines.valid[*i];
        let points: Vec<usize> = (row * lines.points..(row + 1) * lines.points).filter(valid).collect();
        for values in [&lines.position, &lines.vector] {
            (0..2).for_each(|k| w.doubles(&points.iter().map(|&i| values[2 * i + k]).collect::<Vec<_>>()));
        }
        w.doubles(&points.iter().map(|&i| lines.orientation[i]).collect::<Vec<_>>());
    }
    w.number(lines.future_projection.len() as u64);
    w.doubles(&lines.future_projection);

    let causal = &b.causal;
    w.flags(&[causal.waiting_for_red_light]);
    w.flags(&causal.leading_agent);
    w.doubles(&causal.leading_distance);
    w.flags(&causal.red_light);
    w.flags(&causal.ego_future_valid);
    w.number(causal.free_path.len() as u64);
    (0..3).for_each(|k| w.doubles(&causal.free_path.iter().skip(k).step_by(3).copied().collect::<Vec<_>>()));
    w.doubles(&causal.interaction_label);

    w.number(b.mask.as_ref().map_or(0, |(size, _)| *size as u64));
    if let Some((size, mask)) = &b.mask {
        w.bytes(&lz4_flex::block::compress(&packed(mask, *size)));
    }
    w.finish()
}

fn read(body: &[u8], polygons: impl ExactSizeIterator<Item = Arc<PolygonSamples>>) -> Read<Blueprint> {
    let mut r = Reader::new(body);
    let (agents, steps, rows) = (r.count(MOST_AGENTS)?, r.count(TOTAL_STEPS)?, r.count(MOST_POLYGONS)?);
    let (objects, lines, points) = (r.count(MOST_OBJECTS)?, r.count(MOST_LINES)?, r.count(MOST_POINTS)?);
    if agents == 0 || steps < HISTORY_STEPS || rows != polygons.len() {
        return Err(Damaged);
    }
    let vehicle = array(&r.doubles(3)?)?;
    let mut current_state = [0.0; 7];
    r.doubles_into(&mut current_state[3..])?;
    let mut ego = vec![[0.0; 5]; steps];
    for k in 0..5 {
        let column = r.doubles(steps)?;
        ego.iter_mut().zip(column).for_each(|(state, value)| state[k] = value);
    }

    let kinds = r.small(agents - 1)?;
    let valid = r.flags((agents - 1) * steps)?;
    let values = tracks(&mut r, &valid, steps)?;

    let kinds_of_rows: Vec<i8> = r.small(rows)?;
    let lights: Vec<i8> = r.small(rows)?;
    let road_blocks: Vec<i32> = r.small(rows)?;
    let on_route = r.flags(rows)?;
    let limited = r.flags(rows)?;
    let mut limits = r.doubles(limited.iter().filter(|&&l| l).count())?.into_iter();
    let polygon = |(i, samples)| Polygon {
        samples,
        kind: kinds_of_rows[i],
        on_route: on_route[i],
        light: lights[i],
        speed_limit: if limited[i] { limits.next() } else { None },
        road_block: road_blocks[i],
    };
    let polygons = polygons.enumerate().map(polygon).collect();

    let static_objects = StaticFeatures {
        count: objects,
        position: r.doubles(2 * objects)?,
        heading: r.doubles(objects)?,
        shape: r.doubles(2 * objects)?,
        category: r.small(objects)?,
        valid: r.flags(objects)?,
    };
    let reference_lines = reference_lines(&mut r, lines, points)?;
    let future = steps - HISTORY_STEPS;
    let causal = CausalFeatures {
        waiting_for_red_light: r.flags(1)?[0],
        leading_agent: r.flags(agents)?,
        leading_distance: r.doubles(agents)?,
        red_light: r.flags(rows)?,
        ego_future_valid: r.flags(future)?,
        free_path: free_path(&mut r)?,
        interaction_label: r.doubles(if future > 0 { agents } else { 0 })?,
    };
    let mask = match r.count(MOST_PIXELS)? {
        0 => None,
        size => Some((size, unpacked(r.bytes()?, size)?)),
    };
    let tracks = Tracks { kinds, valid, values };
    Ok(Blueprint { vehicle, current_state, ego, tracks, polygons, static_objects, reference_lines, causal, mask })
}

fn array<const N: usize>(values: &[f64]) -> Read<[f64; N]> {
    values.try_into().map_err(|_| Damaged)
}

/// The tracks' numbers.
fn tracks(r: &mut Reader, valid: &[bool], steps: usize) -> Read<Vec<f64>> {
    let mut values = Vec::with_capacity(QUANTITIES * valid.len());
    for valid in valid.chunks(steps) {
        let seen = valid.iter().filter(|&&v| v).count();
        (0..QUANTITIES).try_for_each(|_| r.doubles_onto(&mut values, seen))?;
    }
    Ok(values)
}

fn reference_lines(r: &mut Reader, count: usize, points: usize) -> Read<ReferenceLineFeatures> {
    let all = count * points;
    let valid = r.flags(all)?;
    let (mut position, mut vector, mut orientation) = (vec![0.0; 2 * all], vec![0.0; 2 * all], vec![0.0; all]);
    for row in 0..count {
        let rows: Vec<usize> = (row * points..(row + 1) * points).filter(|&i| valid[i]).collect();
        for values in [&mut position, &mut vector] {
            for k in 0..2 {
                let column = r.doubles(rows.len())?;
                rows.iter().zip(column).for_each(|(&i, value)| values[2 * i + k] = value);
            }
        }
        let column = r.doubles(rows.len())?;
        rows.iter().zip(column).for_each(|(&i, value)| orientation[i] = value);
    }
    let projections = r.count(MOST_LINES * 16)?;
    Ok(ReferenceLineFeatures { count, points, position, vector, orientation, valid, future_projection: r.doubles(projections)? })
}

fn free_path(r: &mut Reader) -> Read<Vec<f64>> {
    let count = r.count(3 * MOST_POINTS)?;
    if !count.is_multiple_of(3) {
        return Err(Damaged);
    }
    let columns = [r.doubles(count / 3)?, r.doubles(count / 3)?, r.doubles(count / 3)?];
    Ok((0..count).map(|i| columns[i % 3][i / 3]).collect())
}

/// Eight pixels a byte, the first in the lowest bit, rows padded to bytes, each less the row above: edges run on, and so most
/// bytes are 0.
fn packed(mask: &[u8], size: usize) -> Vec<u8> {
    let stride = size.div_ceil(8);
    let mut bits = vec![0; stride * size];
    for (row, pixels) in bits.chunks_mut(stride).zip(mask.chunks(size)) {
        for (byte, pixels) in row.iter_mut().zip(pixels.chunks(8)) {
            *byte = pixels.iter().rev().fold(0, |byte, &pixel| byte << 1 | pixel & 1);
        }
    }
    (stride..bits.len()).rev().for_each(|i| bits[i] ^= bits[i - stride]);
    bits
}

/// Of every byte its bits, the lowest first, as bytes.
static BITS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte][bit] = (byte >> bit & 1) as u8;
            bit += 1;
        }
        byte += 1;
    }
    table
};

fn unpacked(compressed: &[u8], size: usize) -> Read<Vec<u8>> {
    let stride = size.div_ceil(8);
    let mut bits = vec![0; stride * size];
    if lz4_flex::block::decompress_into(compressed, &mut bits).ok() != Some(bits.len()) {
        return Err(Damaged);
    }
    let mut above = vec![0; stride];
    let mut mask = vec![0; size * size];
    for (pixels, row) in mask.chunks_mut(size).zip(bits.chunks(stride)) {
        above.iter_mut().zip(row).for_each(|(above, &byte)| *above ^= byte);
        let (whole, rest) = pixels.as_chunks_mut();
        whole.iter_mut().zip(&above).for_each(|(pixels, &byte)| *pixels = BITS[usize::from(byte)]);
        rest.iter_mut().zip(BITS[usize::from(above[stride - 1])]).for_each(|(pixel, bit)| *pixel = bit);
    }
    Ok(mask)
}

/// What is stored of a polygon: its points, of which the rest follows.
pub(super) fn write_polygon(writer: &mut Writer, polygon: &PolygonSamples) {
    for side in &polygon.points {
        (0..2).for_each(|k| writer.doubles(&side.map(|point| point[k])));
    }
}

/// The reverse of [`write_polygon`].
pub(super) fn read_polygon(reader: &mut Reader) -> Read<PolygonSamples> {
    let mut points = [[[0.0; 2]; EQUAL_ARC_POINTS]; 3];
    let mut column = [0.0; EQUAL_ARC_POINTS];
    for side in &mut points {
        for k in 0..2 {
            reader.doubles_into(&mut column)?;
            side.iter_mut().zip(column).for_each(|(point, value)| point[k] = value);
        }
    }
    Ok(PolygonSamples::new(&points))
}
