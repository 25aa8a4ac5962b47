//! The order of scenarios in an epoch, from seed and epoch alone, and how it is cut into batches.

use crate::graph::{Step, random};
use std::ops::Range;

/// Streams of random numbers that no node of a graph has.
const SHUFFLE: u32 = u32::MAX;
const DRAW: u32 = u32::MAX - 1;
const SAMPLE: u32 = u32::MAX - 2;

/// The `i`-th random number of an epoch or a purpose, uniform on all of 64 bits.
fn draw(seed: u64, epoch: u64, stream: u32, i: usize) -> u64 {
    let words = random::words(&Step { seed, step: epoch }, stream, i as u32, 0);
    u64::from(words[0]) << 32 | u64::from(words[1])
}

/// Fisher and Yates.
fn permute(order: &mut [usize], seed: u64, epoch: u64, stream: u32) {
    for i in (1..order.len()).rev() {
        // The high half of a product of 64-bit numbers: uniform on 0..=i up to 2^-64.
        order.swap(i, ((u128::from(draw(seed, epoch, stream, i)) * (i as u128 + 1)) >> 64) as usize);
    }
}

/// A permutation of `indices` for an epoch.
pub fn shuffled(indices: &[usize], seed: u64, epoch: usize) -> Vec<usize> {
    let mut order = indices.to_vec();
    permute(&mut order, seed, epoch as u64, SHUFFLE);
    order
}

/// As many of `indices` as there are, each drawn from all of them in proportion to its weight, for an epoch. Nothing if no
/// weight is above 0.
pub fn weighted(indices: &[usize], weight: impl Fn(usize) -> f64, seed: u64, epoch: usize) -> Vec<usize> {
    let mut total = 0.0;
    let mut sum = |index: &usize| {
        total += weight(*index);
        total
    };
    let sums: Vec<f64> = indices.iter().map(&mut sum).collect();
    if total <= 0.0 {
        return Vec::new();
    }
    let unit = |i| (draw(seed, epoch as u64, DRAW, i) >> 11) as f64 / (1_u64 << 53) as f64;
    let drawn = |i| sums.partition_point(|sum| *sum <= (unit(i) * total).min(total.next_down()));
    (0..indices.len()).map(|i| indices[drawn(i)]).collect()
}

/// `count` of `indices`, drawn without replacement for a purpose with a name, in their order. Fewer are always among more.
pub fn sampled(indices: &[usize], count: usize, seed: u64, name: &str) -> Vec<usize> {
    let mut places: Vec<usize> = (0..indices.len()).collect();
    permute(&mut places, seed, hash(name, 0), SAMPLE);
    places.truncate(count);
    places.sort_unstable();
    places.into_iter().map(|place| indices[place]).collect()
}

/// FNV-1a, with the bits mixed at the end (the finaliser of SplitMix64): the same in every version and on every machine.
pub fn hash(text: &str, seed: u64) -> u64 {
    let mut h = text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// The part of one of several ranks: every `ranks`-th element from `rank` on. All parts have the same length: where the order
/// is too short, it goes on from its start.
pub fn shard(order: Vec<usize>, rank: usize, ranks: usize) -> Vec<usize> {
    if ranks <= 1 {
        return order;
    }
    (0..shard_len(order.len(), ranks)).map(|i| order[(i * ranks + rank) % order.len()]).collect()
}

/// Length of every part.
pub fn shard_len(len: usize, ranks: usize) -> usize {
    len.div_ceil(ranks)
}

/// An order cut into batches, and which of them are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    order: Vec<usize>,
    size: usize,
    wanted: Range<usize>,
}

impl Plan {
    /// The `wanted` ones of the batches of `size` that an order makes.
    pub fn new(order: Vec<usize>, size: usize, wanted: Range<usize>) -> Self {
        let end = wanted.end.min(order.len().div_ceil(size.max(1)));
        Self { order, size: size.max(1), wanted: wanted.start.min(end)..end }
    }

    /// Number of wanted batches.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Positions in the source of the scenarios of a wanted batch.
    pub fn batch(&self, position: usize) -> &[usize] {
        let start = self.place(position);
        &self.order[start..(start + self.size).min(self.order.len())]
    }

    /// Place in the order of the first scenario of a wanted batch.
    pub fn place(&self, position: usize) -> usize {
        (self.wanted.start + position) * self.size
    }
}

/// Number of batches that `len` scenarios make. With `drop_last` a last batch that is not full does not count, unless it is
/// the only one.
pub fn batches(len: usize, size: usize, drop_last: bool) -> usize {
    let whole = len / size;
    if drop_last && whole > 0 { whole } else { len.div_ceil(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_another_permutation_and_repeats() {
        let indices: Vec<usize> = (10..60).collect();
        let first = shuffled(&indices, 3, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, indices);
        assert_eq!(shuffled(&indices, 3, 0), first);
        assert_ne!(shuffled(&indices, 3, 1), first);
        assert_ne!(shuffled(&indices, 4, 0), first);
        assert!(shuffled(&[], 0, 0).is_empty());
    }

    #[test]
    fn places_are_uniform() {
        let mut counts = [[0_i32; 5]; 5];
        for epoch in 0..20_000 {
            for (place, &item) in shuffled(&[0, 1, 2, 3, 4], 1, epoch).iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // 4000 expected with a standard deviation of 57.
        assert!(counts.iter().flatten().all(|n| (n - 4000).abs() < 300), "{counts:?}");
    }

    #[test]
    fn samples_are_nested_and_in_order() {
        let indices: Vec<usize> = (0..100).map(|i| 3 * i).collect();
        let [few, more] = [10, 40].map(|count| sampled(&indices, count, 1, "left turn"));
        assert_eq!((few.len(), more.len()), (10, 40));
        assert!(more.is_sorted() && few.iter().all(|i| more.contains(i)));
        assert_ne!(sampled(&indices, 10, 2, "left turn"), few);
        assert_ne!(sampled(&indices, 10, 1, "right turn"), few);
        assert_eq!(sampled(&indices, 200, 1, ""), indices);
    }

    #[test]
    fn weights_are_kept_and_draws_repeat() {
        let indices: Vec<usize> = (0..40_000).collect();
        let weight = |i: usize| [0.0, 1.0, 3.0, 0.0][i % 4];
        let drawn = weighted(&indices, weight, 5, 2);
        assert_eq!(drawn.len(), indices.len());
        let count = |kind: usize| drawn.iter().filter(|&&i| i % 4 == kind).count() as i64;
        // 10000 and 30000 expected with a standard deviation of 87.
        assert_eq!((count(0), count(3)), (0, 0));
        assert!((count(1) - 10_000).abs() < 500, "{}", count(1));
        assert_eq!(weighted(&indices, weight, 5, 2), drawn);
        assert_ne!(weighted(&indices, weight, 5, 3), drawn);
        assert!(weighted(&indices, |_| 0.0, 5, 2).is_empty() && weighted(&[], |_| 1.0, 5, 2).is_empty());
    }

    #[test]
    fn ranks_share_an_order() {
        let order: Vec<usize> = (0..7).collect();
        assert_eq!(shard(order.clone(), 0, 1), order);
        assert_eq!([0, 1].map(|rank| shard(order.clone(), rank, 2)), [vec![0, 2, 4, 6], vec![1, 3, 5, 0]]);
        assert_eq!([0, 1, 2].map(|rank| shard(order.clone(), rank, 3)), [vec![0, 3, 6], vec![1, 4, 0], vec![2, 5, 1]]);
        assert_eq!(shard(vec![8], 2, 3), [8], "an order that is shorter than the ranks are many repeats more than once");
        assert!(shard(Vec::new(), 1, 3).is_empty());
    }

    #[test]
    fn plans() {
        let plan = |len: usize, drop_last: bool, skip: usize| {
            let plan = Plan::new((1..=len).collect(), 2, skip..batches(len, 2, drop_last));
            (0..plan.len()).map(|i| plan.batch(i).to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(plan(5, true, 0), [vec![1, 2], vec![3, 4]]);
        assert_eq!(plan(5, false, 0), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(plan(5, false, 1), [vec![3, 4], vec![5]]);
        assert_eq!(plan(1, true, 0), [vec![1]]);
        assert!(plan(0, true, 0).is_empty() && plan(5, false, 9).is_empty());
        assert_eq!(Plan::new(vec![1, 2, 3], 2, 0..usize::MAX).len(), 2);
    }
}
