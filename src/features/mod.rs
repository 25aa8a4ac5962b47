//! Scenario to model features and targets, in the ego frame of the present step.
//!
//! One file per group of features; [`FeatureBuilder`] puts them together. Positions of lanes, road-blocks and agents in their
//! lists stand for them throughout.

mod agents;
mod arrays;
pub(crate) mod blueprint;
mod builder;
mod causal;
pub mod cost_map;
mod distance_transform;
mod ego;
mod map_polygons;
pub mod normalise;
mod path;
mod raster;
mod reference_lines;
mod route;
mod static_objects;
pub mod validity;

pub(crate) use agents::{QUANTITIES, Tracks, target as agent_target};
pub use arrays::Array;
pub use builder::FeatureBuilder;
pub(crate) use ego::PRESENT;
pub(crate) use map_polygons::Polygon;

/// Rises whenever the features of a scenario change: what was cached by another version is not used.
pub const VERSION: u32 = 1;

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
    /// Metres from the ego's rear axle to the centre of its box.
    pub rear_axle_to_center: f64,
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
    /// What the ego's behaviour depends on.
    pub causal: CausalFeatures,
}

impl Features {
    /// A copy of everything but the cost map, which is larger than all the rest.
    pub fn without_cost_map(&self) -> Self {
        Self {
            token: self.token.clone(),
            scenario_type: self.scenario_type.clone(),
            origin: self.origin,
            angle: self.angle,
            current_state: self.current_state,
            rear_axle_to_center: self.rear_axle_to_center,
            agents: self.agents.clone(),
            map: self.map.clone(),
            static_objects: self.static_objects.clone(),
            reference_lines: self.reference_lines.clone(),
            cost_map: None,
            causal: self.causal.clone(),
        }
    }
}

/// Ego and agents; invalid steps hold 0.
#[derive(Debug, Clone, Default)]
pub struct AgentFeatures {
    /// A.
    pub count: usize,
    /// N: 21, or 101 with the future.
    pub steps: usize,
    /// `[A, N, 2]`; row 0 is the rear axle, others box centres.
    pub position: Vec<f64>,
    /// `[A, N]`.
    pub heading: Vec<f64>,
    /// `[A, N, 2]`.
    pub velocity: Vec<f64>,
    /// `[A, N, 2]`: width, length.
    pub shape: Vec<f64>,
    /// `[A]`: 0 ego, 1 vehicle, 2 pedestrian, 3 bicycle.
    pub category: Vec<i8>,
    /// `[A, N]`.
    pub valid: Vec<bool>,
    /// `[A, 80, 3]`: x, y, heading less those of the present step; empty without a future.
    pub target: Vec<f64>,
}

/// Map polygons; 20 points each.
#[derive(Debug, Clone, Default)]
pub struct MapFeatures {
    /// L.
    pub count: usize,
    /// `[L, 3, 20, 2]`: centre, left, right.
    pub point_position: Vec<f64>,
    /// `[L, 3, 20, 2]`.
    pub point_vector: Vec<f64>,
    /// `[L, 3, 20]`.
    pub point_orientation: Vec<f64>,
    /// `[L, 3]`: x, y, orientation.
    pub polygon_center: Vec<f64>,
    /// `[L, 2]`.
    pub polygon_position: Vec<f64>,
    /// `[L]`.
    pub polygon_orientation: Vec<f64>,
    /// `[L]`: 0 lane, 1 connector, 2 crosswalk.
    pub polygon_type: Vec<i8>,
    /// `[L]`.
    pub polygon_on_route: Vec<bool>,
    /// `[L]`: see [`crate::scenario::LightState`].
    pub polygon_light: Vec<i8>,
    /// `[L]`.
    pub polygon_has_speed_limit: Vec<bool>,
    /// `[L]`, metres a second; 0 without a limit.
    pub polygon_speed_limit: Vec<f64>,
    /// `[L]`: number of the road-block in the map, 0 for crosswalks.
    pub polygon_road_block: Vec<i32>,
    /// `[L, 20]`.
    pub valid: Vec<bool>,
}

/// Static objects at the present step.
#[derive(Debug, Clone, Default)]
pub struct StaticFeatures {
    /// S.
    pub count: usize,
    /// `[S, 2]`.
    pub position: Vec<f64>,
    /// `[S]`.
    pub heading: Vec<f64>,
    /// `[S, 2]`: width, length.
    pub shape: Vec<f64>,
    /// `[S]`.
    pub category: Vec<i8>,
    /// `[S]`.
    pub valid: Vec<bool>,
}

/// Reference lines, Q points each (120: one a metre).
#[derive(Debug, Clone, Default)]
pub struct ReferenceLineFeatures {
    /// R.
    pub count: usize,
    /// Q.
    pub points: usize,
    /// `[R, Q, 2]`.
    pub position: Vec<f64>,
    /// `[R, Q, 2]`.
    pub vector: Vec<f64>,
    /// `[R, Q]`.
    pub orientation: Vec<f64>,
    /// `[R, Q]`.
    pub valid: Vec<bool>,
    /// `[R, 8, 2]`: arc length along the line and distance to it, of the ego at each future second; empty without a future.
    pub future_projection: Vec<f64>,
}

/// Signed distance to the edge of the drivable area in metres, positive on it. Pixels of 0.2 m, the ego's rear axle at the middle:
/// the column grows with x (forward), the row falls with y (left). The values are those of half precision.
#[derive(Debug, Clone, Default)]
pub struct CostMap {
    /// Rows and columns.
    pub size: usize,
    /// `[size, size]`.
    pub values: Vec<f32>,
}

/// What the ego's behaviour depends on.
#[derive(Debug, Clone, Default)]
pub struct CausalFeatures {
    /// The first thing ahead on the path is a red light (at whatever speed).
    pub waiting_for_red_light: bool,
    /// `[A]`: the agent is ahead on the ego's path.
    pub leading_agent: Vec<bool>,
    /// `[A]`: metres from the ego's box to that of a leading agent, else 0.
    pub leading_distance: Vec<f64>,
    /// `[L]`: the lane's red light is ahead on the ego's path.
    pub red_light: Vec<bool>,
    /// `[80]`: false from where the ego drives through the nearest red light; empty without a future.
    pub ego_future_valid: Vec<bool>,
    /// `[F, 3]`: poses on the path between the ego and what is ahead of it.
    pub free_path: Vec<f64>,
    /// `[A]`: steps that lie between the agent and the ego where their futures cross, positive if the agent passes first, 0 where
    /// they do not; empty without a future.
    pub interaction_label: Vec<f64>,
}
