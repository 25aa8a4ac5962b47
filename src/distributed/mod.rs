//! Training on several devices: the place of a trait for all-reduce and of what implements it. There is one rank until it is there.

/// Processes that train together.
pub const RANKS: usize = 1;
