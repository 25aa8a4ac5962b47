//! Map polygons in memory: each once, however many shards hold it, and no more than fit into a number of bytes.

use super::{
    column::Read,
    writer::{equal, hash},
};
use crate::scenario::PolygonSamples;
use std::{
    collections::HashMap,
    mem::size_of,
    sync::{Arc, PoisonError, RwLock},
};

/// Most bytes that polygons take.
const BYTES: usize = 256 << 20;
/// What a polygon takes with its place in a table.
const POLYGON_BYTES: usize = size_of::<PolygonSamples>() + 64;
/// What a frame takes with its place in a table, without polygons.
const FRAME_BYTES: usize = 64;

/// The polygons of a frame with their hashes.
pub(super) type Frame = Arc<[(u64, Arc<PolygonSamples>)]>;

/// The polygons of frames that were used of late.
#[derive(Debug)]
pub(super) struct Pool {
    /// Most bytes; frames that are used at the moment come on top.
    most_bytes: usize,
    tables: RwLock<Tables>,
}

/// Once the recent polygons take half of the bytes they become the earlier ones, and those that were it are forgotten. What is used
/// again becomes recent again.
#[derive(Debug, Default)]
struct Tables {
    recent: Table,
    earlier: Table,
}

#[derive(Debug, Default)]
struct Table {
    /// By number of the shard and offset.
    frames: HashMap<(u64, u64), Frame>,
    /// Those of the frames, by hash.
    polygons: HashMap<u64, Arc<PolygonSamples>>,
    bytes: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(BYTES)
    }
}

impl Pool {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, tables: RwLock::default() }
    }

    /// The frame at an offset of a shard, which `read` reads if it is not in memory.
    ///
    /// # Errors
    /// What `read` fails with.
    pub(super) fn frame(&self, shard: u64, offset: u64, read: impl FnOnce() -> Read<Vec<PolygonSamples>>) -> Read<Frame> {
        let key = (shard, offset);
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = tables.recent.frames.get(&key) {
            return Ok(Arc::clone(frame));
        }
        let earlier = tables.earlier.frames.get(&key).cloned();
        drop(tables);
        let frame = match earlier {
            Some(frame) => frame,
            None => read()?.into_iter().map(|polygon| (hash(&polygon), Arc::new(polygon))).collect(),
        };
        Ok(self.tables.write().unwrap_or_else(PoisonError::into_inner).keep(key, &frame, self.most_bytes))
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.read().unwrap();
        tables.recent.bytes + tables.earlier.bytes
    }
}

impl Tables {
    fn keep(&mut self, key: (u64, u64), frame: &Frame, most_bytes: usize) -> Frame {
        // Another thread may have been faster.
        if let Some(frame) = self.recent.frames.get(&key) {
            return Arc::clone(frame);
        }
        if self.recent.bytes > most_bytes / 2 {
            self.earlier = std::mem::take(&mut self.recent);
        }
        let frame: Frame = frame.iter().map(|(hash, polygon)| (*hash, self.once(*hash, polygon))).collect();
        self.recent.bytes += FRAME_BYTES + size_of_val(&*frame);
        self.recent.frames.insert(key, Arc::clone(&frame));
        frame
    }

    /// The polygon, or an equal one that is there already.
    fn once(&mut self, hash: u64, polygon: &Arc<PolygonSamples>) -> Arc<PolygonSamples> {
        let same = |other: &&Arc<PolygonSamples>| equal(other, polygon);
        if let Some(recent) = self.recent.polygons.get(&hash).filter(same) {
            return Arc::clone(recent);
        }
        let polygon = Arc::clone(self.earlier.polygons.get(&hash).filter(same).unwrap_or(polygon));
        self.recent.bytes += POLYGON_BYTES;
        self.recent.polygons.insert(hash, Arc::clone(&polygon));
        polygon
    }
}
