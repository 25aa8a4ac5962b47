//! The order of scenarios in an epoch, from seed and epoch alone.

use crate::graph::{Step, random};

/// Stream of random numbers that no node of a graph has.
const STREAM: u32 = u32::MAX;

/// A permutation (Fisher and Yates) of `indices` for an epoch.
pub fn shuffled(indices: &[usize], seed: u64, epoch: usize) -> Vec<usize> {
    let step = Step { seed, step: epoch as u64 };
    let mut order = indices.to_vec();
    for i in (1..order.len()).rev() {
        let words = random::words(&step, STREAM, i as u32, 0);
        let random = u128::from(words[0]) << 32 | u128::from(words[1]);
        // The high half of a product of 64-bit numbers: uniform on 0..=i up to 2^-64.
        order.swap(i, ((random * (i as u128 + 1)) >> 64) as usize);
    }
    order
}

/// Cuts an order into batches. With `drop_last` a last batch that is not full is left out, unless it is the only one.
pub fn batches(order: &[usize], size: usize, drop_last: bool) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    if drop_last && batches.len() > 1 && batches.last().is_some_and(|last| last.len() < size) {
        batches.pop();
    }
    batches
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
    fn last_batches() {
        assert_eq!(batches(&[1, 2, 3, 4, 5], 2, true), [vec![1, 2], vec![3, 4]]);
        assert_eq!(batches(&[1, 2, 3, 4, 5], 2, false), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(batches(&[1], 2, true), [vec![1]]);
        assert!(batches(&[], 2, true).is_empty());
    }
}
