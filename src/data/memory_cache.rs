//! Built features that stay in memory, so that later epochs need not build them again.

use crate::features::{CostMap, Features};
use half::{f16, slice::HalfFloatSliceExt};
use std::{
    collections::HashMap,
    mem::size_of,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Features by position in the source, up to a number of bytes; what comes first stays. Epochs visit all scenarios in a new
/// order, so throwing out the least recently used would throw out what is needed next.
#[derive(Debug)]
pub struct MemoryCache {
    entries: RwLock<HashMap<usize, Arc<Entry>>>,
    used: AtomicUsize,
    limit: usize,
}

/// Features with the cost map apart, in half precision.
#[derive(Debug)]
struct Entry {
    features: Features,
    cost_map: Option<(usize, Vec<f16>)>,
}

impl MemoryCache {
    /// A cache of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { entries: RwLock::default(), used: AtomicUsize::new(0), limit }
    }

    /// True if the features of a scenario are there.
    pub fn contains(&self, index: usize) -> bool {
        self.read(|entries| entries.contains_key(&index))
    }

    /// Features of a scenario.
    pub fn get(&self, index: usize) -> Option<Features> {
        let entry = self.read(|entries| entries.get(&index).cloned())?;
        let mut features = entry.features.clone();
        features.cost_map = entry.cost_map.as_ref().map(|(size, values)| {
            let mut single = vec![0.0; values.len()];
            values.convert_to_f32_slice(&mut single);
            CostMap { size: *size, values: single }
        });
        Some(features)
    }

    /// Keeps a copy, unless the cache is full or the cost map has values that half precision does not (a cost map that
    /// [`crate::features::FeatureBuilder`] made has none): a cached scenario never differs from one that is built anew.
    pub fn put(&self, index: usize, features: &Features) {
        if self.limit == 0 || self.used.load(Ordering::Relaxed) + bytes(features) > self.limit {
            return;
        }
        let cost_map = match &features.cost_map {
            Some(map) => {
                let mut values = vec![f16::ZERO; map.values.len()];
                values.convert_from_f32_slice(&map.values);
                if values.iter().zip(&map.values).any(|(half, single)| half.to_f32() != *single) {
                    return;
                }
                Some((map.size, values))
            }
            None => None,
        };
        let features = features.without_cost_map();
        let size = bytes(&features) + cost_map.as_ref().map_or(0, |(_, values)| 2 * values.len());
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if entries.insert(index, Arc::new(Entry { features, cost_map })).is_none() {
            self.used.fetch_add(size, Ordering::Relaxed);
        }
    }

    fn read<T>(&self, f: impl FnOnce(&HashMap<usize, Arc<Entry>>) -> T) -> T {
        f(&self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Bytes of the large arrays; a cost map counts in half precision.
fn bytes(features: &Features) -> usize {
    let (agents, map, lines) = (&features.agents, &features.map, &features.reference_lines);
    let doubles = agents.position.len()
        + agents.heading.len()
        + agents.velocity.len()
        + agents.shape.len()
        + agents.target.len()
        + map.point_position.len()
        + map.point_vector.len()
        + map.point_orientation.len()
        + lines.position.len()
        + lines.vector.len()
        + lines.orientation.len();
    let flags = agents.valid.len() + map.valid.len() + lines.valid.len();
    doubles * size_of::<f64>() + flags + features.cost_map.as_ref().map_or(0, |map| 2 * map.values.len()) + 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(value: f32) -> Features {
        Features { token: "t".into(), cost_map: Some(CostMap { size: 10, values: vec![value; 100] }), ..Default::default() }
    }

    #[test]
    fn gives_back_what_was_put_until_it_is_full() {
        let cache = MemoryCache::new(2 * bytes(&features(0.0)));
        cache.put(5, &features(-1.5));
        let back = cache.get(5).unwrap();
        assert_eq!((back.token.as_str(), &back.cost_map.unwrap().values), ("t", &vec![-1.5; 100]));
        cache.put(6, &features(0.1));
        assert!(!cache.contains(6), "0.1 has no half");
        cache.put(7, &features(1.0));
        cache.put(8, &features(2.0));
        assert!(cache.contains(7) && !cache.contains(8));
    }
}
