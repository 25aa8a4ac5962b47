//! Which parameters decay, how the learning rate and the momentum move, and how they are scaled. The update itself is one pass of the backend.

pub mod frozen;
pub mod groups;
pub mod scaling;
pub mod schedule;

/// Decay rates of AdamW's moments.
pub const BETA: [f64; 2] = [0.9, 0.999];
/// Added to the root of AdamW's second moment.
pub const EPSILON: f64 = 1e-8;
