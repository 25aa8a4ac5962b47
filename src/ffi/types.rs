//! Everything that crosses the border by pointer. Layouts are locked at the end of the file: fields are only added at the end
//! of structures that start with `struct_size`; the others never change.

use super::map::TeMap;
use std::ffi::{c_char, c_void};

/// Version of this interface; goes into `TeBuildOptions.abi_version`. It rises when something incompatible changes.
pub const TE_ABI_VERSION: u32 = 1;
/// Steps of history in a scenario; the last one is the present.
pub const TE_HISTORY_STEPS: usize = 21;
/// Steps of future in a scenario.
pub const TE_FUTURE_STEPS: usize = 80;
/// Steps of a scenario with its future.
pub const TE_TOTAL_STEPS: usize = 101;
/// Seconds between two steps.
pub const TE_STEP_SECONDS: f64 = 0.1;

/// Cars, lorries, buses.
pub const TE_AGENT_VEHICLE: i32 = 1;
/// People on foot.
pub const TE_AGENT_PEDESTRIAN: i32 = 2;
/// Bicycles and motorcycles.
pub const TE_AGENT_BICYCLE: i32 = 3;

/// Sign of a construction zone.
pub const TE_STATIC_CONSTRUCTION_SIGN: i32 = 0;
/// Barrier.
pub const TE_STATIC_BARRIER: i32 = 1;
/// Traffic cone.
pub const TE_STATIC_TRAFFIC_CONE: i32 = 2;
/// Any other object.
pub const TE_STATIC_GENERIC: i32 = 3;

/// Go.
pub const TE_LIGHT_GREEN: i32 = 0;
/// Prepare to stop.
pub const TE_LIGHT_YELLOW: i32 = 1;
/// Stop.
pub const TE_LIGHT_RED: i32 = 2;
/// Not known.
pub const TE_LIGHT_UNKNOWN: i32 = 3;

/// Lane between junctions.
pub const TE_LANE: i32 = 0;
/// Lane through a junction.
pub const TE_LANE_CONNECTOR: i32 = 1;

/// The configuration decides.
pub const TE_SPLIT_UNSPECIFIED: i32 = 0;
/// For fitting.
pub const TE_SPLIT_TRAIN: i32 = 1;
/// For choosing the best checkpoint.
pub const TE_SPLIT_VALIDATION: i32 = 2;
/// For the final figures.
pub const TE_SPLIT_TEST: i32 = 3;

/// The run cannot go on, or a result is lost.
pub const TE_LOG_ERROR: i32 = 1;
/// Something was skipped or replaced.
pub const TE_LOG_WARNING: i32 = 2;
/// Progress.
pub const TE_LOG_INFO: i32 = 3;
/// Details.
pub const TE_LOG_DEBUG: i32 = 4;

/// A training step was applied: `epoch`, `step`, `total_steps` (0 if training has no end), `loss`, `learning_rate`, and every loss of
/// its batch in `metrics`.
pub const TE_EVENT_STEP: i32 = 1;
/// A training step was not applied since its loss or gradient was not finite: `epoch`, `step`, `tokens`.
pub const TE_EVENT_STEP_SKIPPED: i32 = 2;
/// A scenario was left out: `text` is its token, or `scenario INDEX` if its description has none; `reason` says why.
pub const TE_EVENT_SCENARIO_SKIPPED: i32 = 3;
/// An epoch ended, its validation included: `epoch`, `step`, `metrics`.
pub const TE_EVENT_EPOCH: i32 = 4;
/// A checkpoint was written: `text` is its path.
pub const TE_EVENT_CHECKPOINT: i32 = 5;
/// A validation within training ended: `epoch`, `step`, `metrics`.
pub const TE_EVENT_VALIDATION: i32 = 6;

/// For `te_self_test`: panic inside the library, as a fault of its own would.
pub const TE_SELF_TEST_PANIC: i32 = 1;

/// Position in the global frame, metres.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TePoint {
    /// Metres.
    pub x: f64,
    /// Metres.
    pub y: f64,
}

/// Ego at one step, global frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeEgoState {
    /// Rear axle, metres.
    pub x: f64,
    /// Rear axle, metres.
    pub y: f64,
    /// Radians, counter-clockwise from +x.
    pub heading: f64,
    /// Velocity, metres a second.
    pub vx: f64,
    /// Velocity, metres a second.
    pub vy: f64,
    /// Acceleration, metres a second squared.
    pub ax: f64,
    /// Acceleration, metres a second squared.
    pub ay: f64,
}

/// Agent at one step, global frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeAgentState {
    /// Box centre, metres.
    pub x: f64,
    /// Box centre, metres.
    pub y: f64,
    /// Radians, counter-clockwise from +x.
    pub heading: f64,
    /// Velocity, metres a second.
    pub vx: f64,
    /// Velocity, metres a second.
    pub vy: f64,
    /// Metres.
    pub width: f64,
    /// Metres.
    pub length: f64,
    /// 0 where the agent was not observed; the other fields are then ignored.
    pub valid: i32,
    /// Ignored.
    pub reserved: i32,
}

/// An object that does not move, at the present step, global frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeStaticObject {
    /// One of `TE_STATIC_...`.
    pub kind: i32,
    /// Ignored.
    pub reserved: i32,
    /// Box centre, metres.
    pub x: f64,
    /// Box centre, metres.
    pub y: f64,
    /// Radians, counter-clockwise from +x.
    pub heading: f64,
    /// Metres.
    pub width: f64,
    /// Metres.
    pub length: f64,
}

/// The light that a lane obeys at the present step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeTrafficLight {
    /// Id of a lane of the map.
    pub lane_id: *const c_char,
    /// One of `TE_LIGHT_...`.
    pub state: i32,
    /// Ignored.
    pub reserved: i32,
}

/// Dimensions of the ego, metres. All zero stands for the vehicle of the published data set, a Chrysler Pacifica.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeVehicle {
    /// Across.
    pub width: f64,
    /// Rear axle to front bumper.
    pub front_length: f64,
    /// Rear axle to rear bumper.
    pub rear_length: f64,
    /// Between the axles.
    pub wheel_base: f64,
}

/// A predicted step, global frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeTrajectoryState {
    /// Metres; rear axle for the ego, box centre for agents.
    pub x: f64,
    /// Metres.
    pub y: f64,
    /// Radians, counter-clockwise from +x.
    pub heading: f64,
    /// Velocity, metres a second.
    pub vx: f64,
    /// Velocity, metres a second.
    pub vy: f64,
}

/// A named figure.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeMetric {
    /// Name as logged, for instance `val/minFDE`.
    pub name: *const c_char,
    /// Its value.
    pub value: f64,
}

/// A lane. Polylines run in driving direction, two points or more; their numbers of points may differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeLane {
    /// `sizeof(TeLane)`.
    pub struct_size: usize,
    /// Unique among lanes and crosswalks.
    pub id: *const c_char,
    /// Names the group of lanes that lie side by side in one direction.
    pub roadblock_id: *const c_char,
    /// `TE_LANE` or `TE_LANE_CONNECTOR`.
    pub kind: i32,
    /// 0 if there is no speed limit.
    pub has_speed_limit: i32,
    /// Metres a second.
    pub speed_limit: f64,
    /// Centre line.
    pub centerline: *const TePoint,
    /// Number of points.
    pub centerline_count: usize,
    /// Left boundary.
    pub left: *const TePoint,
    /// Number of points.
    pub left_count: usize,
    /// Right boundary.
    pub right: *const TePoint,
    /// Number of points.
    pub right_count: usize,
    /// Ids of the lanes that follow.
    pub successors: *const *const c_char,
    /// Number of ids.
    pub successor_count: usize,
}

/// A pedestrian crossing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeCrosswalk {
    /// `sizeof(TeCrosswalk)`.
    pub struct_size: usize,
    /// Unique among lanes and crosswalks.
    pub id: *const c_char,
    /// Outline, not closed, three points or more.
    pub polygon: *const TePoint,
    /// Number of points.
    pub polygon_count: usize,
}

/// What `te_map_new` makes a map of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeMapDescription {
    /// `sizeof(TeMapDescription)`.
    pub struct_size: usize,
    /// Appears in errors.
    pub name: *const c_char,
    /// Lanes and lane connectors.
    pub lanes: *const TeLane,
    /// Number of lanes.
    pub lane_count: usize,
    /// Crosswalks.
    pub crosswalks: *const TeCrosswalk,
    /// Number of crosswalks.
    pub crosswalk_count: usize,
}

/// A tracked agent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeAgent {
    /// `sizeof(TeAgent)`.
    pub struct_size: usize,
    /// The host's name for it.
    pub id: *const c_char,
    /// One state a step, as many as the ego has.
    pub states: *const TeAgentState,
    /// Number of states.
    pub state_count: usize,
    /// One of `TE_AGENT_...`.
    pub kind: i32,
    /// Ignored.
    pub reserved: i32,
}

/// A driving scenario: 2 s of history, the present and 8 s of future at 10 Hz.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeScenario {
    /// `sizeof(TeScenario)`.
    pub struct_size: usize,
    /// Names the scenario, unique in its source.
    pub token: *const c_char,
    /// Recording that it was cut from.
    pub log_name: *const c_char,
    /// Label such as `left_turn`.
    pub scenario_type: *const c_char,
    /// The map. A scenario keeps the map alive by itself: `te_map_free` may be called once the scenario has been read.
    pub map: *const TeMap,
    /// `TE_TOTAL_STEPS` states, or `TE_HISTORY_STEPS` where only the past is known (for `te_predict`).
    pub ego: *const TeEgoState,
    /// Number of states.
    pub ego_count: usize,
    /// Dimensions of the ego.
    pub vehicle: TeVehicle,
    /// Tracked agents.
    pub agents: *const TeAgent,
    /// Number of agents.
    pub agent_count: usize,
    /// Static objects at the present step.
    pub static_objects: *const TeStaticObject,
    /// Number of static objects.
    pub static_object_count: usize,
    /// Ids of the route's road-blocks in driving order.
    pub route: *const *const c_char,
    /// Number of ids.
    pub route_count: usize,
    /// Traffic lights at the present step.
    pub lights: *const TeTrafficLight,
    /// Number of lights.
    pub light_count: usize,
    /// For the host: what `unload` needs to give the arrays back.
    pub host_data: *mut c_void,
}

/// Enough of a scenario to split, filter and name it. The strings are read before the next callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeScenarioInfo {
    /// `sizeof(TeScenarioInfo)`.
    pub struct_size: usize,
    /// Names the scenario, unique in its source.
    pub token: *const c_char,
    /// Recording that it was cut from.
    pub log_name: *const c_char,
    /// Label such as `left_turn`.
    pub scenario_type: *const c_char,
    /// One of `TE_SPLIT_...`.
    pub split: i32,
    /// Ignored.
    pub reserved: i32,
    /// Name of the map; null if not known. Read by `scenario_filter.map_names` alone.
    pub map_name: *const c_char,
    /// When it starts, microseconds of a clock that all logs share; 0 if not known. Read by
    /// `scenario_filter.timestamp_threshold_s` alone.
    pub start_us: i64,
}

/// A table of callbacks that supplies scenarios.
///
/// `info` and `load` return 0 for success, a positive number to leave this scenario out (it is counted and named in the log), a
/// negative number to end the call in progress with `TE_HOST_ERROR`; `te_callback_error` adds a text to either. `out` arrives
/// zeroed but for `struct_size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeSource {
    /// `sizeof(TeSource)`.
    pub struct_size: usize,
    /// Handed to every callback.
    pub user_data: *mut c_void,
    /// Not 0 if `info`, `load` and `unload` may be called from several threads at once, the library's own among them. If 0, they
    /// are called only on the thread that is in `te_build`, `te_fit`, `te_cache`, `te_validate`, `te_test` or `te_evaluate`.
    pub thread_safe: i32,
    /// Ignored.
    pub reserved: i32,
    /// Number of scenarios; asked once, by `te_build`. Required.
    pub size: Option<unsafe extern "C" fn(user_data: *mut c_void) -> usize>,
    /// Describes scenario `index` without loading it. Required.
    pub info: Option<unsafe extern "C" fn(user_data: *mut c_void, index: usize, out: *mut TeScenarioInfo) -> i32>,
    /// Loads scenario `index`. What `out` points to must stay alive until `unload` is called for it, or, without `unload`,
    /// until the same thread's next callback. Required.
    pub load: Option<unsafe extern "C" fn(user_data: *mut c_void, index: usize, out: *mut TeScenario) -> i32>,
    /// Called once after each `load` that returned 0, on the same thread, when the library has copied the scenario. Optional.
    pub unload: Option<unsafe extern "C" fn(user_data: *mut c_void, index: usize, scenario: *mut TeScenario)>,
    /// Called exactly once, after the last other callback: by `te_engine_free`, or by `te_build` if it fails. Optional.
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// What happened in a run; its strings and arrays live until the callback returns. Fields that `kind` does not name are 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeEvent {
    /// `sizeof(TeEvent)` of the library.
    pub struct_size: usize,
    /// One of `TE_EVENT_...`.
    pub kind: i32,
    /// Ignored.
    pub reserved: i32,
    /// 0-based epoch.
    pub epoch: u64,
    /// Optimiser steps so far.
    pub step: u64,
    /// Steps of the whole run, as far as known.
    pub total_steps: u64,
    /// Total loss of the step's batch; no number of a step whose batches were all in an earlier call.
    pub loss: f64,
    /// Learning rate that was used.
    pub learning_rate: f64,
    /// Token of a skipped scenario, path of a checkpoint; never null.
    pub text: *const c_char,
    /// Why; never null.
    pub reason: *const c_char,
    /// Tokens of the batch of a step that was not applied.
    pub tokens: *const *const c_char,
    /// Number of tokens.
    pub token_count: usize,
    /// Losses of a step; losses and metrics of an epoch or a validation.
    pub metrics: *const TeMetric,
    /// Number of metrics.
    pub metric_count: usize,
}

/// Receives log records: from any thread, one call at a time. It must not call into the engine except for `te_engine_stop`.
pub type TeLogCallback = Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, message: *const c_char)>;

/// Receives events of `te_fit`, `te_cache`, `te_validate`, `te_test` and `te_evaluate`, on the thread that called. 0 goes on, a positive
/// number ends the run after this step, on a GPU after up to two more that have begun (`te_fit` succeeds and its report says `stopped`), a
/// negative number ends it with `TE_HOST_ERROR`; `te_callback_error` adds a text.
pub type TeEventCallback = Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const TeEvent) -> i32>;

/// What `te_build` builds an engine of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeBuildOptions {
    /// `sizeof(TeBuildOptions)`.
    pub struct_size: usize,
    /// `TE_ABI_VERSION`.
    pub abi_version: u32,
    /// Ignored.
    pub reserved: u32,
    /// YAML or JSON; null or empty for the defaults.
    pub config: *const c_char,
    /// Texts of the form `key=value`, applied in order.
    pub overrides: *const *const c_char,
    /// Number of overrides.
    pub override_count: usize,
    /// Where scenarios come from; copied. Null for an engine that only predicts, or has its data from the cache alone
    /// (`cache.use_cache_without_dataset`).
    pub source: *const TeSource,
    /// Optional.
    pub log: TeLogCallback,
    /// Handed to `log`.
    pub log_user_data: *mut c_void,
    /// Optional.
    pub event: TeEventCallback,
    /// Handed to `event`.
    pub event_user_data: *mut c_void,
    /// Folder of the files that `defaults` lists of the configuration name; null for none.
    pub config_folder: *const c_char,
}

/// What a run did; its strings and arrays live until `te_report_free`. Fields that do not belong to the run are 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeReportView {
    /// `sizeof(TeReportView)`, set by the host.
    pub struct_size: usize,
    /// Fit: epochs completed, resumed ones included.
    pub epochs: u64,
    /// Fit: optimiser steps applied, resumed ones included; in `16-mixed` those that were skipped too, as in Lightning.
    pub steps: u64,
    /// Fit: steps of this run that were not applied since their loss or gradient was not finite.
    pub skipped_steps: u64,
    /// Validate, test, evaluate: scenarios evaluated. Cache: scenarios that this call was to cache.
    pub scenarios: u64,
    /// Scenarios that were left out in this run.
    pub skipped_scenarios: u64,
    /// Fit, cache: not 0 if the run was ended before it was done: by the host, or, in fit, by `max_time`.
    pub stopped: i32,
    /// Fit: 0 if the monitored metric was never seen.
    pub has_best_score: i32,
    /// Fit: best value of the monitored metric.
    pub best_score: f64,
    /// Fit: path of the best checkpoint, empty if there is none.
    pub best_checkpoint: *const c_char,
    /// Fit: path of the last checkpoint, empty if there is none.
    pub last_checkpoint: *const c_char,
    /// Losses and metrics (fit: of the last epoch).
    pub metrics: *const TeMetric,
    /// Number of metrics.
    pub metric_count: usize,
    /// The whole report as JSON.
    pub json: *const c_char,
    /// Cache: scenarios whose features were computed and written.
    pub computed: u64,
    /// Cache: scenarios whose features were there.
    pub present: u64,
    /// Cache: scenarios without features; `json` counts them by reason.
    pub failed: u64,
    /// Cache: entries that were damaged.
    pub damaged: u64,
}

/// One proposed trajectory of the ego; `states` lives until `te_prediction_free`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeCandidate {
    /// `sizeof(TeCandidate)`, set by the host.
    pub struct_size: usize,
    /// Over all candidates the probabilities sum to 1.
    pub probability: f64,
    /// Reference line that it follows.
    pub reference_line: u64,
    /// Mode on that line.
    pub mode: u64,
    /// One state every `TE_STEP_SECONDS`, beginning one step after the present.
    pub states: *const TeTrajectoryState,
    /// Number of states.
    pub state_count: usize,
}

/// Predicted future of one agent; `id` and `states` live until `te_prediction_free`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeAgentPrediction {
    /// `sizeof(TeAgentPrediction)`, set by the host.
    pub struct_size: usize,
    /// The host's id.
    pub id: *const c_char,
    /// One state every `TE_STEP_SECONDS`, beginning one step after the present.
    pub states: *const TeTrajectoryState,
    /// Number of states.
    pub state_count: usize,
}

/// What a prediction holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TePredictionView {
    /// `sizeof(TePredictionView)`, set by the host.
    pub struct_size: usize,
    /// Index of the most probable candidate.
    pub best: usize,
    /// Number of candidates: reference lines times modes.
    pub candidate_count: usize,
    /// Number of agents.
    pub agent_count: usize,
}

/// How weights are written; all zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeSaveWeightsOptions {
    /// `sizeof(TeSaveWeightsOptions)`.
    pub struct_size: usize,
    /// Put in front of every name. Null puts `model.` there in a `.ckpt`, as the published model has it, and nothing elsewhere.
    pub prefix: *const c_char,
    /// Not 0 to write the optimiser's state to a `.ckpt` as well, so that Lightning goes on with it.
    pub optimizer: i32,
    /// Ignored.
    pub reserved: i32,
}

/// How weights are read; all zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeLoadWeightsOptions {
    /// `sizeof(TeLoadWeightsOptions)`.
    pub struct_size: usize,
    /// Taken off the file's names that begin so. Null takes off `model.`, the published module's name of its network.
    pub strip_prefix: *const c_char,
    /// Put in front of names afterwards. Null for nothing.
    pub add_prefix: *const c_char,
    /// Not 0 to tolerate tensors that are missing or extra: what is missing stays as it was. A misshapen one remains an error.
    pub partial: i32,
    /// Ignored.
    pub reserved: i32,
}

/// How a file of weights and the model differ; its strings and arrays live until `te_weights_report_free`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TeWeightsReportView {
    /// `sizeof(TeWeightsReportView)`, set by the host.
    pub struct_size: usize,
    /// Names of the model that the file does not have.
    pub missing: *const *const c_char,
    /// Number of them.
    pub missing_count: usize,
    /// Names of the file that the model does not have.
    pub extra: *const *const c_char,
    /// Number of them.
    pub extra_count: usize,
}

const _: () = {
    use crate::{engine::LogLevel, scenario};
    assert!(TE_HISTORY_STEPS == scenario::HISTORY_STEPS && TE_FUTURE_STEPS == scenario::FUTURE_STEPS);
    assert!(TE_TOTAL_STEPS == scenario::TOTAL_STEPS && TE_STEP_SECONDS == scenario::STEP_SECONDS);
    assert!(TE_LOG_ERROR == LogLevel::Error as i32 && TE_LOG_WARNING == LogLevel::Warning as i32);
    assert!(TE_LOG_INFO == LogLevel::Info as i32 && TE_LOG_DEBUG == LogLevel::Debug as i32);
};

/// Size and offset of the last field: a change that is not an addition at the end does not compile.
macro_rules! layout {
    ($($name:ident: $size:literal, $last:ident at $offset:literal;)*) => {
        $(const _: () = assert!(size_of::<$name>() == $size && std::mem::offset_of!($name, $last) == $offset);)*
    };
}
layout! {
    TePoint: 16, y at 8;
    TeEgoState: 56, ay at 48;
    TeAgentState: 64, reserved at 60;
    TeStaticObject: 48, length at 40;
    TeTrafficLight: 16, reserved at 12;
    TeVehicle: 32, wheel_base at 24;
    TeTrajectoryState: 40, vy at 32;
    TeMetric: 16, value at 8;
    TeLane: 104, successor_count at 96;
    TeCrosswalk: 32, polygon_count at 24;
    TeMapDescription: 48, crosswalk_count at 40;
    TeAgent: 40, reserved at 36;
    TeScenario: 160, host_data at 152;
    TeScenarioInfo: 56, start_us at 48;
    TeSource: 64, release at 56;
    TeEvent: 104, metric_count at 96;
    TeBuildOptions: 88, config_folder at 80;
    TeReportView: 136, damaged at 128;
    TeCandidate: 48, state_count at 40;
    TeAgentPrediction: 32, state_count at 24;
    TePredictionView: 32, agent_count at 24;
    TeSaveWeightsOptions: 24, reserved at 20;
    TeLoadWeightsOptions: 32, reserved at 28;
    TeWeightsReportView: 40, extra_count at 32;
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the C interface is laid out for 64-bit targets");
