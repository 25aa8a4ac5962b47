//! Training on several devices: the place of a trait for all-reduce and of what implements it. Nothing is here yet.
