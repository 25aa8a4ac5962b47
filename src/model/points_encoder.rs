//! Two-stage PointNet over the valid points of each polygon or line; a missing point counts as a row of zeros in both maxima.

use crate::{
    error::Result,
    graph::{Activation, Builder, Rows, Scope, TensorId},
};

/// Where the points of each group lie.
pub struct Groups {
    /// Index slot: first point, number of points, whether one is missing.
    pub segments: usize,
    /// Index slot: group of each point.
    pub of_point: usize,
    /// Number of groups.
    pub rows: Rows,
}

/// points `[n, C]` -> `[groups, D]`.
pub fn record(b: &mut Builder, p: &Scope, points: TensorId, groups: &Groups) -> Result<TensorId> {
    b.enter(p.name());
    let q = p.at("first_mlp");
    let h = b.linear_norm(points, &q.at(0), &q.at(1), Activation::Relu)?; // [n, 128]
    let inner = q.at(3);
    let pooled = b.linear_max(h, &inner, groups.segments, groups.rows)?; // [groups, 256]

    // The layer behind reads (point, pooled). The pooled half is the same for all points of a group: it is done once a group. The
    // other follows the layer before it with nothing between: the two are one.
    let q = p.at("second_mlp");
    let weight = q.at(0).matrix("weight")?; // [256, 512]
    let half = weight.columns / 2;
    let shared = b.linear_part(pooled, weight.column_range(half..2 * half), None, Activation::None)?; // [groups, 256]
    let inner = (inner.matrix("weight")?, inner.vector("bias")?);
    let outer = (weight.column_range(0..half), q.at(0).vector("bias")?);
    let h = b.linear_pair(h, inner, outer, shared, groups.of_point)?; // [n, 256]
    let y = b.norm_linear_max(h, &q.at(1), &q.at(3), groups.segments, groups.rows)?; // [groups, D]
    b.leave();
    Ok(y)
}
