//! What a host supplies. SI units, radians, seconds; positions in the host's global metric frame.
//!
//! A scenario is 21 steps of history (the last one is the present) and 80 steps of future at 10 Hz. For prediction the
//! future may be left out.

pub(crate) mod geometry;
mod index;
mod map;
mod validate;

pub(crate) use geometry::EQUAL_ARC_POINTS;
pub(crate) use map::PolygonSamples;
pub use map::{Crosswalk, Lane, LaneKind, Map};

use crate::error::Result;
use std::sync::Arc;

/// Steps of history, the present included.
pub const HISTORY_STEPS: usize = 21;
/// Steps of future.
pub const FUTURE_STEPS: usize = 80;
/// All steps of a training scenario.
pub const TOTAL_STEPS: usize = HISTORY_STEPS + FUTURE_STEPS;
/// Seconds between two steps.
pub const STEP_SECONDS: f64 = 0.1;

/// Ego at one step. Position is the rear axle's; velocity and acceleration are vectors in the global frame.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EgoState {
    /// Rear axle, metres.
    pub x: f64,
    /// Rear axle, metres.
    pub y: f64,
    /// Radians, counter-clockwise from +x.
    pub heading: f64,
    /// Metres a second, global frame.
    pub vx: f64,
    /// Metres a second, global frame.
    pub vy: f64,
    /// Metres a second squared, global frame.
    pub ax: f64,
    /// Metres a second squared, global frame.
    pub ay: f64,
}

/// Dimensions of the ego vehicle, metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vehicle {
    /// Across.
    pub width: f64,
    /// Rear axle to front bumper.
    pub front_length: f64,
    /// Rear axle to rear bumper.
    pub rear_length: f64,
    /// Between the axles.
    pub wheel_base: f64,
}

impl Vehicle {
    /// The vehicle of the published data set, a Chrysler Pacifica; the default.
    pub const PACIFICA: Self = Self { width: 2.297, front_length: 4.049, rear_length: 1.127, wheel_base: 3.089 };

    /// Bumper to bumper.
    pub fn length(&self) -> f64 {
        self.front_length + self.rear_length
    }

    /// From the rear axle forward to the box centre.
    pub fn rear_axle_to_center(&self) -> f64 {
        self.length() / 2.0 - self.rear_length
    }
}

/// Kind of a tracked agent; the number is the model's category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum AgentKind {
    /// Cars, lorries, buses.
    Vehicle = 1,
    /// On foot.
    Pedestrian = 2,
    /// Bicycles and motorcycles.
    Bicycle = 3,
}

/// A tracked agent at one step. Position is the box centre's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AgentState {
    /// Box centre, metres.
    pub x: f64,
    /// Box centre, metres.
    pub y: f64,
    /// Radians.
    pub heading: f64,
    /// Metres a second, global frame.
    pub vx: f64,
    /// Metres a second, global frame.
    pub vy: f64,
    /// Metres.
    pub width: f64,
    /// Metres.
    pub length: f64,
    /// False where the agent was not observed; the other fields are then ignored.
    pub valid: bool,
}

/// A tracked agent: one state a step, as many as the ego has.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The host's name for it.
    pub id: String,
    /// What it is.
    pub kind: AgentKind,
    /// As many as the ego's.
    pub states: Vec<AgentState>,
}

/// Kind of a static object; the number is the model's category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum StaticKind {
    /// Construction-zone sign.
    ConstructionSign = 0,
    /// Barrier.
    Barrier = 1,
    /// Traffic cone.
    TrafficCone = 2,
    /// Anything else.
    Generic = 3,
}

/// An object that does not move, at the present step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StaticObject {
    /// What it is.
    pub kind: StaticKind,
    /// Box centre, metres.
    pub x: f64,
    /// Box centre, metres.
    pub y: f64,
    /// Radians.
    pub heading: f64,
    /// Metres.
    pub width: f64,
    /// Metres.
    pub length: f64,
}

/// State of a traffic light; the number is the model's category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(i8)]
pub enum LightState {
    /// Go.
    Green = 0,
    /// Prepare to stop.
    Yellow = 1,
    /// Stop.
    Red = 2,
    /// No light, or not known.
    #[default]
    Unknown = 3,
}

/// The light that a lane obeys at the present step.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficLight {
    /// Id of a lane of the map.
    pub lane_id: String,
    /// Its state.
    pub state: LightState,
}

/// Part of the data that a scenario belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// For fitting.
    Train,
    /// For choosing the best checkpoint.
    Validation,
    /// For the final figures.
    Test,
}

impl Split {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// One driving scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Names the scenario, unique in its source.
    pub token: String,
    /// Recording that it was cut from.
    pub log_name: String,
    /// Label such as `left_turn`.
    pub scenario_type: String,
    /// Map, shared by scenarios.
    pub map: Arc<Map>,
    /// [`HISTORY_STEPS`] states, or [`TOTAL_STEPS`] with the future.
    pub ego: Vec<EgoState>,
    /// Ego dimensions.
    pub vehicle: Vehicle,
    /// Tracked agents.
    pub agents: Vec<Agent>,
    /// Objects at the present step.
    pub static_objects: Vec<StaticObject>,
    /// Ids of the route's road-blocks in driving order.
    pub route: Vec<String>,
    /// Lights at the present step.
    pub lights: Vec<TrafficLight>,
}

impl Scenario {
    /// True if the future is there.
    pub fn has_future(&self) -> bool {
        self.ego.len() == TOTAL_STEPS
    }
}

/// What is known of a scenario before it is loaded: enough to split, filter and name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScenarioInfo {
    /// Names the scenario, unique in its source.
    pub token: String,
    /// Recording that it was cut from.
    pub log_name: String,
    /// Label such as `left_turn`.
    pub scenario_type: String,
    /// The split that the source assigns, if it does.
    pub split: Option<Split>,
    /// Name of the map, if known.
    pub map_name: Option<String>,
    /// When it starts, microseconds of a clock that all logs share, if known.
    pub start_us: Option<i64>,
}

/// Supplies scenarios by index. Called from several threads at once only if [`ScenarioSource::is_thread_safe`].
pub trait ScenarioSource: Send + Sync {
    /// Number of scenarios.
    fn len(&self) -> usize;
    /// True without any scenario.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Describes scenario `index` without loading it.
    fn info(&self, index: usize) -> Result<ScenarioInfo>;
    /// Loads scenario `index`.
    fn load(&self, index: usize) -> Result<Scenario>;
    /// True if `load` and `info` may be called from several threads at once.
    fn is_thread_safe(&self) -> bool {
        false
    }
}
