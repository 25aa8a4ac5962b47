//! Random numbers of one scenario in one epoch.

use crate::graph::random::philox;

/// A stream of Philox numbers that depends on (seed, epoch, token, place) alone, whoever draws it and when.
#[derive(Debug, Clone)]
pub struct AugmentRandom {
    key: [u32; 2],
    /// Block, epoch, two words of the hash of token and place.
    counter: [u32; 4],
    words: [u32; 4],
    /// Of `words`.
    used: usize,
}

impl AugmentRandom {
    /// The stream from its beginning. `place` in the epoch's order tells the draws of a scenario apart that is drawn several times.
    pub fn new(seed: u64, epoch: u64, token: &str, place: usize) -> Self {
        let hash = fnv1a(token.bytes().chain((place as u64).to_le_bytes()));
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, epoch as u32, hash as u32, (hash >> 32) as u32],
            words: [0; 4],
            used: 4,
        }
    }

    /// A number of `[0, 1)`, a multiple of 2^-53.
    fn unit(&mut self) -> f64 {
        if self.used == self.words.len() {
            self.words = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        let [high, low] = [self.words[self.used], self.words[self.used + 1]].map(u64::from);
        self.used += 2;
        ((high << 32 | low) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly distributed from `low` to `high`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True in half of the cases.
    pub fn coin(&mut self) -> bool {
        self.unit() < 0.5
    }

    /// One of `0..count`; 0 if there is none.
    pub fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count.saturating_sub(1))
    }
}

/// The 64-bit hash of Fowler, Noll and Vo (version 1a), the same on every machine.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, epoch: u64, token: &str, place: usize) -> [u64; 5] {
        let mut random = AugmentRandom::new(seed, epoch, token, place);
        std::array::from_fn(|_| random.uniform(0.0, 1.0).to_bits())
    }

    #[test]
    fn depends_on_seed_epoch_token_and_place() {
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_F739_67E8); // published with the hash
        let first = drawn(1, 2, "token", 0);
        assert_eq!(first, drawn(1, 2, "token", 0));
        let others =
            [(2, 2, "token", 0), (1 << 32 | 1, 2, "token", 0), (1, 3, "token", 0), (1, 2, "tokem", 0), (1, 2, "", 0), (1, 2, "token", 1)];
        for (seed, epoch, token, place) in others {
            let other = drawn(seed, epoch, token, place);
            assert!(first.iter().all(|number| !other.contains(number)));
        }
    }

    #[test]
    fn covers_its_range_evenly() {
        let mut random = AugmentRandom::new(7, 0, "t", 0);
        let mut tenths = [0; 10];
        for _ in 0..100_000 {
            let number = random.uniform(-0.5, 0.5);
            assert!((-0.5..0.5).contains(&number));
            tenths[((number + 0.5) * 10.0) as usize] += 1;
        }
        // nine standard deviations of a binomial distribution
        assert!(tenths.iter().all(|&n: &i32| (n - 10_000).abs() < 860), "{tenths:?}");
        let mut seen = [false; 3];
        (0..100).for_each(|_| seen[random.below(3)] = true);
        assert_eq!((seen, random.below(0)), ([true; 3], 0));
        let heads = (0..10_000).filter(|_| random.coin()).count();
        assert!(heads.abs_diff(5000) < 450);
    }
}
