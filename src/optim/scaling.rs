//! Learning rate and AdamW's decay rates for training on several ranks, as nuPlan scales them.

use crate::config::DistributedConfig;

/// Factor of the learning rate for so many ranks: their number (Goyal et al., "Accurate, large minibatch SGD", 2017), or its root,
/// which keeps the variance of an update (Krizhevsky, "One weird trick", 2014); 1 if nothing is to be scaled.
pub fn factor(config: &DistributedConfig, ranks: usize) -> f64 {
    match (config.scale_lr, config.equal_variance_scaling_strategy) {
        (false, _) => 1.0,
        (true, true) => (ranks as f64).sqrt(),
        (true, false) => ranks as f64,
    }
}

/// Decay rates for a factor: one update stands for so many.
pub fn decay_rates(beta: [f64; 2], factor: f64) -> [f64; 2] {
    beta.map(|beta| beta.powf(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_number_of_ranks() {
        let config = |scale_lr, equal_variance_scaling_strategy| DistributedConfig { scale_lr, equal_variance_scaling_strategy };
        assert_eq!([1, 4].map(|ranks| factor(&config(false, true), ranks)), [1.0, 1.0]);
        assert_eq!([1, 4].map(|ranks| factor(&config(true, true), ranks)), [1.0, 2.0]);
        assert_eq!([1, 4].map(|ranks| factor(&config(true, false), ranks)), [1.0, 4.0]);
        let [first, second] = decay_rates([0.9, 0.999], 2.0);
        assert!((first - 0.81).abs() < 1e-15 && (second - 0.998_001).abs() < 1e-15, "{first} {second}");
        assert_eq!(decay_rates([0.9, 0.999], 1.0), [0.9, 0.999]);
    }
}
