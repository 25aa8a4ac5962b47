//! All arrays of the features by their published names.

use super::Features;

/// Elements of an array, row-major.
#[derive(Debug, Clone, Copy)]
pub enum Array<'a> {
    /// Double precision.
    F64(&'a [f64]),
    /// Single precision.
    F32(&'a [f32]),
    /// 32-bit whole numbers.
    I32(&'a [i32]),
    /// 8-bit whole numbers.
    I8(&'a [i8]),
    /// Flags.
    Bool(&'a [bool]),
}

impl Array<'_> {
    /// The elements' bytes, little-endian: two arrays are the same if these and their kinds are.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().map(|&v| v as u8).collect(),
            Self::Bool(values) => values.iter().map(|&v| u8::from(v)).collect(),
        }
    }

    /// True if both hold the same bits.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| a.to_bits() == b.to_bits()),
            (Self::F32(a), Self::F32(b)) => a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| a.to_bits() == b.to_bits()),
            (Self::I32(a), Self::I32(b)) => a == b,
            (Self::I8(a), Self::I8(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => false,
        }
    }
}

impl Features {
    /// Every array: published name, shape, elements. Scalars have no dimension.
    pub fn arrays(&self) -> Vec<(&'static str, Vec<usize>, Array<'_>)> {
        use Array::{Bool, F32, F64, I8, I32};
        let one = |value| F64(std::slice::from_ref(value));
        let (agents, map, objects, lines, causal) = (&self.agents, &self.map, &self.static_objects, &self.reference_lines, &self.causal);
        let (a, n, m, s, r, q) = (agents.count, agents.steps, map.count, objects.count, lines.count, lines.points);
        let points = map.valid.len() / m.max(1);
        let future = agents.target.len() / (3 * a).max(1);
        let projections = lines.future_projection.len() / (2 * r).max(1);
        let mut arrays = vec![
            ("origin", vec![2], F64(&self.origin)),
            ("angle", vec![], one(&self.angle)),
            ("current_state", vec![7], F64(&self.current_state)),
            ("rear_axle_to_center", vec![], one(&self.rear_axle_to_center)),
            ("agent/position", vec![a, n, 2], F64(&agents.position)),
            ("agent/heading", vec![a, n], F64(&agents.heading)),
            ("agent/velocity", vec![a, n, 2], F64(&agents.velocity)),
            ("agent/shape", vec![a, n, 2], F64(&agents.shape)),
            ("agent/category", vec![a], I8(&agents.category)),
            ("agent/valid_mask", vec![a, n], Bool(&agents.valid)),
            ("agent/target", vec![a, future, 3], F64(&agents.target)),
            ("map/point_position", vec![m, 3, points, 2], F64(&map.point_position)),
            ("map/point_vector", vec![m, 3, points, 2], F64(&map.point_vector)),
            ("map/point_orientation", vec![m, 3, points], F64(&map.point_orientation)),
            ("map/polygon_center", vec![m, 3], F64(&map.polygon_center)),
            ("map/polygon_position", vec![m, 2], F64(&map.polygon_position)),
            ("map/polygon_orientation", vec![m], F64(&map.polygon_orientation)),
            ("map/polygon_type", vec![m], I8(&map.polygon_type)),
            ("map/polygon_on_route", vec![m], Bool(&map.polygon_on_route)),
            ("map/polygon_tl_status", vec![m], I8(&map.polygon_light)),
            ("map/polygon_has_speed_limit", vec![m], Bool(&map.polygon_has_speed_limit)),
            ("map/polygon_speed_limit", vec![m], F64(&map.polygon_speed_limit)),
            ("map/polygon_road_block_id", vec![m], I32(&map.polygon_road_block)),
            ("map/valid_mask", vec![m, points], Bool(&map.valid)),
            ("static_objects/position", vec![s, 2], F64(&objects.position)),
            ("static_objects/heading", vec![s], F64(&objects.heading)),
            ("static_objects/shape", vec![s, 2], F64(&objects.shape)),
            ("static_objects/category", vec![s], I8(&objects.category)),
            ("static_objects/valid_mask", vec![s], Bool(&objects.valid)),
            ("reference_line/position", vec![r, q, 2], F64(&lines.position)),
            ("reference_line/vector", vec![r, q, 2], F64(&lines.vector)),
            ("reference_line/orientation", vec![r, q], F64(&lines.orientation)),
            ("reference_line/valid_mask", vec![r, q], Bool(&lines.valid)),
            ("reference_line/future_projection", vec![r, projections, 2], F64(&lines.future_projection)),
            ("causal/is_waiting_for_red_light_without_lead", vec![], Bool(std::slice::from_ref(&causal.waiting_for_red_light))),
            ("causal/leading_agent_mask", vec![causal.leading_agent.len()], Bool(&causal.leading_agent)),
            ("causal/leading_distance", vec![causal.leading_distance.len()], F64(&causal.leading_distance)),
            ("causal/ego_care_red_light_mask", vec![causal.red_light.len()], Bool(&causal.red_light)),
            ("causal/fixed_ego_future_valid_mask", vec![causal.ego_future_valid.len()], Bool(&causal.ego_future_valid)),
            ("causal/free_path_points", vec![causal.free_path.len() / 3, 3], F64(&causal.free_path)),
            ("causal/interaction_label", vec![causal.interaction_label.len()], F64(&causal.interaction_label)),
        ];
        if let Some(map) = &self.cost_map {
            arrays.push(("cost_maps", vec![map.size, map.size, 1], F32(&map.values)));
        }
        arrays
    }

    /// The first array whose shape or bits differ from the other's; token and label count as arrays.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.token != other.token {
            return Some("token");
        }
        if self.scenario_type != other.scenario_type {
            return Some("scenario_type");
        }
        let (ours, others) = (self.arrays(), other.arrays());
        if ours.len() != others.len() {
            return Some("cost_maps");
        }
        let differing = ours.iter().zip(&others).find(|(a, b)| a.1 != b.1 || !a.2.same(&b.2));
        differing.map(|(a, _)| a.0)
    }
}
