//! Scenario to model features and targets, in the ego frame of the present step.

/// Everything that one scenario contributes to a batch. Row-major arrays; lengths are given as shapes.
/// A agents (row 0 is the ego), N steps (21, or 101 with the future), L map polygons, S static objects, R reference lines.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// Token of the scenario.
    pub token: String,
    /// Label of the scenario.
    pub scenario_type: String,
    /// Rear axle at the present step, global frame.
    pub origin: [f64; 2],
    /// Heading at the present step, global frame.
    pub angle: f64,
    /// x, y, heading (all 0), velocity, acceleration, steering angle, yaw rate.
    pub current_state: [f64; 7],
    /// Ego and agents.
    pub agents: AgentFeatures,
    /// Lanes, connectors, crosswalks.
    pub map: MapFeatures,
    /// Static objects.
    pub static_objects: StaticFeatures,
    /// Reference lines.
    pub reference_lines: ReferenceLineFeatures,
    /// Signed distance to the edge of the drivable area; None without a future.
    pub cost_map: Option<CostMap>,
}

/// Ego and agents; invalid steps hold 0.
#[derive(Debug, Clone, Default)]
pub struct AgentFeatures {
    /// A.
    pub count: usize,
    /// N: 21, or 101 with the future.
    pub steps: usize,
    /// [A, N, 2]; row 0 is the rear axle, others box centres.
    pub position: Vec<f64>,
    /// [A, N].
    pub heading: Vec<f64>,
    /// [A, N, 2].
    pub velocity: Vec<f64>,
    /// [A, N, 2]: width, length.
    pub shape: Vec<f64>,
    /// [A]: 0 ego, 1 vehicle, 2 pedestrian, 3 bicycle.
    pub category: Vec<i8>,
    /// [A, N].
    pub valid: Vec<bool>,
    /// [A, 80, 3]: x, y, heading less those of the present step; empty without a future.
    pub target: Vec<f64>,
}

/// Map polygons; 20 points each.
#[derive(Debug, Clone, Default)]
pub struct MapFeatures {
    /// L.
    pub count: usize,
    /// [L, 3, 20, 2]: centre, left, right.
    pub point_position: Vec<f64>,
    /// [L, 3, 20, 2].
    pub point_vector: Vec<f64>,
    /// [L, 3, 20].
    pub point_orientation: Vec<f64>,
    /// [L, 3]: x, y, orientation.
    pub polygon_center: Vec<f64>,
    /// [L, 2].
    pub polygon_position: Vec<f64>,
    /// [L].
    pub polygon_orientation: Vec<f64>,
    /// [L]: 0 lane, 1 connector, 2 crosswalk.
    pub polygon_type: Vec<i8>,
    /// [L].
    pub polygon_on_route: Vec<bool>,
    /// [L]: see [`crate::scenario::LightState`].
    pub polygon_light: Vec<i8>,
    /// [L].
    pub polygon_has_speed_limit: Vec<bool>,
    /// [L], metres a second.
    pub polygon_speed_limit: Vec<f64>,
    /// [L, 20].
    pub valid: Vec<bool>,
}

/// Static objects at the present step.
#[derive(Debug, Clone, Default)]
pub struct StaticFeatures {
    /// S.
    pub count: usize,
    /// [S, 2].
    pub position: Vec<f64>,
    /// [S].
    pub heading: Vec<f64>,
    /// [S, 2]: width, length.
    pub shape: Vec<f64>,
    /// [S].
    pub category: Vec<i8>,
    /// [S].
    pub valid: Vec<bool>,
}

/// Reference lines, Q points each (120: one a metre).
#[derive(Debug, Clone, Default)]
pub struct ReferenceLineFeatures {
    /// R.
    pub count: usize,
    /// Q.
    pub points: usize,
    /// [R, Q, 2].
    pub position: Vec<f64>,
    /// [R, Q, 2].
    pub vector: Vec<f64>,
    /// [R, Q].
    pub orientation: Vec<f64>,
    /// [R, Q].
    pub valid: Vec<bool>,
    /// [R, 8, 2]: arc length along the line and distance to it, of the ego at each future second; empty without a future.
    pub future_projection: Vec<f64>,
}

/// Signed distance, metres: positive on the drivable area. Row 0 is the far left... see the specification of the raster:
/// column grows with x, row falls with y, the ego is in the middle.
#[derive(Debug, Clone, Default)]
pub struct CostMap {
    /// Rows and columns.
    pub size: usize,
    /// [size, size].
    pub values: Vec<f32>,
}
