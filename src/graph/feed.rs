//! What changes from batch to batch and from step to step.

use std::ops::Range;

/// Precision of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scalar {
    /// `f32`.
    #[default]
    F32,
    /// `f64`.
    F64,
}

/// Owned numbers in the precision of the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Reals {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// Borrowed numbers in the precision of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RealsRef<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl Reals {
    /// Nothing, of a precision.
    pub fn new(scalar: Scalar) -> Self {
        match scalar {
            Scalar::F32 => Self::F32(Vec::new()),
            Scalar::F64 => Self::F64(Vec::new()),
        }
    }
    /// Its precision.
    pub fn scalar(&self) -> Scalar {
        match self {
            Self::F32(_) => Scalar::F32,
            Self::F64(_) => Scalar::F64,
        }
    }
    /// Appends a number, rounded to the precision.
    pub fn push(&mut self, value: f64) {
        match self {
            Self::F32(v) => v.push(value as f32),
            Self::F64(v) => v.push(value),
        }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }
    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Empties it; memory is kept.
    pub fn clear(&mut self) {
        match self {
            Self::F32(v) => v.clear(),
            Self::F64(v) => v.clear(),
        }
    }
    /// Borrows all.
    pub fn view(&self) -> RealsRef<'_> {
        match self {
            Self::F32(v) => RealsRef::F32(v),
            Self::F64(v) => RealsRef::F64(v),
        }
    }
}

impl RealsRef<'_> {
    /// Element `i` as double.
    pub fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(v) => f64::from(v[i]),
            Self::F64(v) => v[i],
        }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }
    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// All elements as double.
    pub fn to_vec(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }
}

/// A batch as the graph sees it: counts by [`super::Symbol`], one block of reals and one of indexes, cut into slots.
/// Slot numbers are given by the room that makes the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// By symbol.
    pub counts: Vec<usize>,
    /// All inputs, one after the other.
    pub reals: Reals,
    /// Place of each input slot in `reals`.
    pub real_slots: Vec<Range<usize>>,
    /// All index lists, one after the other.
    pub indexes: Vec<i32>,
    /// Place of each index slot in `indexes`.
    pub index_slots: Vec<Range<usize>>,
}

impl Feed {
    /// The index list of a slot.
    #[allow(clippy::should_implement_trait, reason = "it gives a list, not an element")]
    pub fn index(&self, slot: usize) -> &[i32] {
        &self.indexes[self.index_slots[slot].clone()]
    }
}

/// Everything that changes from step to step and is read by kernels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Step {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step, for random numbers.
    pub step: u64,
}
