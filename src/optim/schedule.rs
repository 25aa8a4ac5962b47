//! Learning rate of an epoch: linear warm-up, then a cosine (Loshchilov and Hutter, "SGDR", 2017).

/// Where the cosine ends.
pub const LOWEST: f64 = 1e-6;

/// Learning rate of `epoch`, from 0. Behind the last of `epochs` it stays at [`LOWEST`].
pub fn warmup_cosine(epoch: usize, learning_rate: f64, epochs: usize, warmup_epochs: usize) -> f64 {
    if epoch < warmup_epochs {
        return learning_rate * (epoch + 1) as f64 / warmup_epochs as f64;
    }
    // Without an epoch behind the warm-up there is nothing to divide by: the cosine has ended.
    let length = epochs.saturating_sub(warmup_epochs);
    let part = if length == 0 { 1.0 } else { ((epoch - warmup_epochs) as f64 / length as f64).min(1.0) };
    LOWEST + 0.5 * (learning_rate - LOWEST) * (1.0 + (std::f64::consts::PI * part).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_falls() {
        let rate = |epoch| warmup_cosine(epoch, 1e-3, 25, 3);
        assert!((rate(0) - 1e-3 / 3.0).abs() < 1e-15);
        assert_eq!(rate(2), 1e-3);
        assert_eq!(rate(3), 1e-3);
        assert!((rate(14) - (LOWEST + 0.5 * (1e-3 - LOWEST))).abs() < 1e-15, "half way");
        assert!(rate(24) > LOWEST && rate(24) < rate(23));
        assert_eq!(rate(40), LOWEST);
    }

    #[test]
    fn warm_up_to_the_end() {
        for epoch in 0..6 {
            assert!(warmup_cosine(epoch, 1e-3, 3, 3).is_finite());
        }
        assert_eq!(warmup_cosine(2, 1e-3, 3, 3), 1e-3);
    }
}
