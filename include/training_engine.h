/*
 * training_engine: trains the PLUTO motion planner inside the program that has the data.
 *
 * Conventions
 *
 * Calls      Every function that can fail returns a TeStatus, 0 for success. Outputs come last and are written only on success.
 *            te_last_error() then tells the whole story of the last failure on this thread: key, scenario, field, tensor, file.
 * Structures A structure that starts with struct_size is only ever added to at its end. Whoever fills it sets struct_size to its
 *            sizeof; start from all zero, which is the default everywhere. In an array of them all state the same size. A callback
 *            that is handed one to fill finds struct_size set, writes nothing beyond so many bytes, and leaves it, or sets it to its own
 *            smaller sizeof. Structures without struct_size never change. Nothing may be packed.
 * Texts      NUL-terminated UTF-8. Texts in are copied. Texts out belong to the library; each says how long it lives. A name is
 *            at most 4096 bytes long.
 * Arrays     A pointer and a count; null with a count of 0 is allowed.
 * Handles    Whatever a function creates is given back to the function that ends in _free, once. Null may be freed.
 * Threads    Any thread may call. One call at a time uses an engine; a second one gets TE_BUSY, and so does a callback that calls
 *            into its own engine. te_engine_stop, te_engine_config and te_engine_summary may be called at any time between
 *            te_build and te_engine_free. Maps, reports and predictions may be read from several threads at once.
 * Callbacks  They must not throw, longjmp or end the thread (training_engine.hpp takes care of C++ exceptions). What they supply
 *            is checked, as far as a pointer and a count can be.
 * Panics     A fault of the library does not cross: the call returns TE_PANIC. If the engine may have been left half changed, later
 *            calls return TE_POISONED and it can only be freed; else, as after a fault in a worker thread, it can be used on. The
 *            library prints nothing; for this it puts a panic hook before Rust's own that is silent for panics which it catches.
 * Fork       An engine does not survive fork(): in the child its calls return TE_FORKED, but for te_engine_stop, te_engine_config,
 *            te_engine_summary and te_engine_free.
 * Units      SI units, radians, seconds. Positions in the host's own metric frame ("global"), right-handed; headings are
 *            counter-clockwise from +x.
 */


#ifndef TRAINING_ENGINE_H
#define TRAINING_ENGINE_H

// Generated from src/ffi by cbindgen; BLESS=1 cargo test --test header rewrites it.

#include <stddef.h>
#include <stdint.h>

// Version of the library that this header belongs to.
#define TE_VERSION "0.1.0"

// Version of this interface; goes into `TeBuildOptions.abi_version`. It rises when something incompatible changes.
#define TE_ABI_VERSION 1

// Steps of history in a scenario; the last one is the present.
#define TE_HISTORY_STEPS 21

// Steps of future in a scenario.
#define TE_FUTURE_STEPS 80

// Steps of a scenario with its future.
#define TE_TOTAL_STEPS 101

// Seconds between two steps.
#define TE_STEP_SECONDS 0.1

// Cars, lorries, buses.
#define TE_AGENT_VEHICLE 1

// People on foot.
#define TE_AGENT_PEDESTRIAN 2

// Bicycles and motorcycles.
#define TE_AGENT_BICYCLE 3

// Sign of a construction zone.
#define TE_STATIC_CONSTRUCTION_SIGN 0

// Barrier.
#define TE_STATIC_BARRIER 1

// Traffic cone.
#define TE_STATIC_TRAFFIC_CONE 2

// Any other object.
#define TE_STATIC_GENERIC 3

// Go.
#define TE_LIGHT_GREEN 0

// Prepare to stop.
#define TE_LIGHT_YELLOW 1

// Stop.
#define TE_LIGHT_RED 2

// Not known.
#define TE_LIGHT_UNKNOWN 3

// Lane between junctions.
#define TE_LANE 0

// Lane through a junction.
#define TE_LANE_CONNECTOR 1

// The configuration decides.
#define TE_SPLIT_UNSPECIFIED 0

// For fitting.
#define TE_SPLIT_TRAIN 1

// For choosing the best checkpoint.
#define TE_SPLIT_VALIDATION 2

// For the final figures.
#define TE_SPLIT_TEST 3

// The run cannot go on, or a result is lost.
#define TE_LOG_ERROR 1

// Something was skipped or replaced.
#define TE_LOG_WARNING 2

// Progress.
#define TE_LOG_INFO 3

// Details.
#define TE_LOG_DEBUG 4

// A training step was applied: `epoch`, `step`, `total_steps` (0 if training has no end), `loss`, `learning_rate`, and every loss of
// its batch in `metrics`.
#define TE_EVENT_STEP 1

// A training step was not applied since its loss or gradient was not finite: `epoch`, `step`, `tokens`.
#define TE_EVENT_STEP_SKIPPED 2

// A scenario was left out: `text` is its token, or `scenario INDEX` if its description has none; `reason` says why.
#define TE_EVENT_SCENARIO_SKIPPED 3

// An epoch ended, its validation included: `epoch`, `step`, `metrics`.
#define TE_EVENT_EPOCH 4

// A checkpoint was written: `text` is its path.
#define TE_EVENT_CHECKPOINT 5

// A validation within training ended: `epoch`, `step`, `metrics`.
#define TE_EVENT_VALIDATION 6

// For `te_self_test`: panic inside the library, as a fault of its own would.
#define TE_SELF_TEST_PANIC 1

// A built engine: trainer, model and data. One call at a time uses it, from any thread; `te_engine_stop`, `te_engine_config`
// and `te_engine_summary` may be called at any time.
typedef struct TeEngine TeEngine;

// A checked and indexed map, shared by the scenarios that name it and safe to use from any thread.
typedef struct TeMap TeMap;

// A plan: candidates of the ego and futures of the agents. It may be read from any thread and outlives its engine.
typedef struct TePrediction TePrediction;

// What a run did; see `te_report_view`. It may be read from any thread and outlives its engine.
typedef struct TeReport TeReport;

// How a file of weights and the model differ; see `te_weights_report_view`. It may be read from any thread and outlives its engine.
typedef struct TeWeightsReport TeWeightsReport;

// What every fallible function returns: `TE_OK` or one of the other codes. `te_last_error` then tells the whole story.
typedef int32_t TeStatus;

// Position in the global frame, metres.
typedef struct TePoint {
    // Metres.
    double x;
    // Metres.
    double y;
} TePoint;

// A lane. Polylines run in driving direction, two points or more; their numbers of points may differ.
typedef struct TeLane {
    // `sizeof(TeLane)`.
    size_t struct_size;
    // Unique among lanes and crosswalks.
    const char *id;
    // Names the group of lanes that lie side by side in one direction.
    const char *roadblock_id;
    // `TE_LANE` or `TE_LANE_CONNECTOR`.
    int32_t kind;
    // 0 if there is no speed limit.
    int32_t has_speed_limit;
    // Metres a second.
    double speed_limit;
    // Centre line.
    const struct TePoint *centerline;
    // Number of points.
    size_t centerline_count;
    // Left boundary.
    const struct TePoint *left;
    // Number of points.
    size_t left_count;
    // Right boundary.
    const struct TePoint *right;
    // Number of points.
    size_t right_count;
    // Ids of the lanes that follow.
    const char *const *successors;
    // Number of ids.
    size_t successor_count;
} TeLane;

// A pedestrian crossing.
typedef struct TeCrosswalk {
    // `sizeof(TeCrosswalk)`.
    size_t struct_size;
    // Unique among lanes and crosswalks.
    const char *id;
    // Outline, not closed, three points or more.
    const struct TePoint *polygon;
    // Number of points.
    size_t polygon_count;
} TeCrosswalk;

// What `te_map_new` makes a map of.
typedef struct TeMapDescription {
    // `sizeof(TeMapDescription)`.
    size_t struct_size;
    // Appears in errors.
    const char *name;
    // Lanes and lane connectors.
    const struct TeLane *lanes;
    // Number of lanes.
    size_t lane_count;
    // Crosswalks.
    const struct TeCrosswalk *crosswalks;
    // Number of crosswalks.
    size_t crosswalk_count;
} TeMapDescription;

// Enough of a scenario to split, filter and name it. The strings are read before the next callback.
typedef struct TeScenarioInfo {
    // `sizeof(TeScenarioInfo)`.
    size_t struct_size;
    // Names the scenario, unique in its source.
    const char *token;
    // Recording that it was cut from.
    const char *log_name;
    // Label such as `left_turn`.
    const char *scenario_type;
    // One of `TE_SPLIT_...`.
    int32_t split;
    // Ignored.
    int32_t reserved;
    // Name of the map; null if not known. Read by `scenario_filter.map_names` alone.
    const char *map_name;
    // When it starts, microseconds of a clock that all logs share; 0 if not known. Read by
    // `scenario_filter.timestamp_threshold_s` alone.
    int64_t start_us;
} TeScenarioInfo;

// Ego at one step, global frame.
typedef struct TeEgoState {
    // Rear axle, metres.
    double x;
    // Rear axle, metres.
    double y;
    // Radians, counter-clockwise from +x.
    double heading;
    // Velocity, metres a second.
    double vx;
    // Velocity, metres a second.
    double vy;
    // Acceleration, metres a second squared.
    double ax;
    // Acceleration, metres a second squared.
    double ay;
} TeEgoState;

// Dimensions of the ego, metres. All zero stands for the vehicle of the published data set, a Chrysler Pacifica.
typedef struct TeVehicle {
    // Across.
    double width;
    // Rear axle to front bumper.
    double front_length;
    // Rear axle to rear bumper.
    double rear_length;
    // Between the axles.
    double wheel_base;
} TeVehicle;

// Agent at one step, global frame.
typedef struct TeAgentState {
    // Box centre, metres.
    double x;
    // Box centre, metres.
    double y;
    // Radians, counter-clockwise from +x.
    double heading;
    // Velocity, metres a second.
    double vx;
    // Velocity, metres a second.
    double vy;
    // Metres.
    double width;
    // Metres.
    double length;
    // 0 where the agent was not observed; the other fields are then ignored.
    int32_t valid;
    // Ignored.
    int32_t reserved;
} TeAgentState;

// A tracked agent.
typedef struct TeAgent {
    // `sizeof(TeAgent)`.
    size_t struct_size;
    // The host's name for it.
    const char *id;
    // One state a step, as many as the ego has.
    const struct TeAgentState *states;
    // Number of states.
    size_t state_count;
    // One of `TE_AGENT_...`.
    int32_t kind;
    // Ignored.
    int32_t reserved;
} TeAgent;

// An object that does not move, at the present step, global frame.
typedef struct TeStaticObject {
    // One of `TE_STATIC_...`.
    int32_t kind;
    // Ignored.
    int32_t reserved;
    // Box centre, metres.
    double x;
    // Box centre, metres.
    double y;
    // Radians, counter-clockwise from +x.
    double heading;
    // Metres.
    double width;
    // Metres.
    double length;
} TeStaticObject;

// The light that a lane obeys at the present step.
typedef struct TeTrafficLight {
    // Id of a lane of the map.
    const char *lane_id;
    // One of `TE_LIGHT_...`.
    int32_t state;
    // Ignored.
    int32_t reserved;
} TeTrafficLight;

// A driving scenario: 2 s of history, the present and 8 s of future at 10 Hz.
typedef struct TeScenario {
    // `sizeof(TeScenario)`.
    size_t struct_size;
    // Names the scenario, unique in its source.
    const char *token;
    // Recording that it was cut from.
    const char *log_name;
    // Label such as `left_turn`.
    const char *scenario_type;
    // The map. A scenario keeps the map alive by itself: `te_map_free` may be called once the scenario has been read.
    const struct TeMap *map;
    // `TE_TOTAL_STEPS` states, or `TE_HISTORY_STEPS` where only the past is known (for `te_predict`).
    const struct TeEgoState *ego;
    // Number of states.
    size_t ego_count;
    // Dimensions of the ego.
    struct TeVehicle vehicle;
    // Tracked agents.
    const struct TeAgent *agents;
    // Number of agents.
    size_t agent_count;
    // Static objects at the present step.
    const struct TeStaticObject *static_objects;
    // Number of static objects.
    size_t static_object_count;
    // Ids of the route's road-blocks in driving order.
    const char *const *route;
    // Number of ids.
    size_t route_count;
    // Traffic lights at the present step.
    const struct TeTrafficLight *lights;
    // Number of lights.
    size_t light_count;
    // For the host: what `unload` needs to give the arrays back.
    void *host_data;
} TeScenario;

// A table of callbacks that supplies scenarios.
//
// `info` and `load` return 0 for success, a positive number to leave this scenario out (it is counted and named in the log), a
// negative number to end the call in progress with `TE_HOST_ERROR`; `te_callback_error` adds a text to either. `out` arrives
// zeroed but for `struct_size`.
typedef struct TeSource {
    // `sizeof(TeSource)`.
    size_t struct_size;
    // Handed to every callback.
    void *user_data;
    // Not 0 if `info`, `load` and `unload` may be called from several threads at once, the library's own among them. If 0, they
    // are called only on the thread that is in `te_build`, `te_fit`, `te_cache`, `te_validate`, `te_test` or `te_evaluate`.
    int32_t thread_safe;
    // Ignored.
    int32_t reserved;
    // Number of scenarios; asked once, by `te_build`. Required.
    size_t (*size)(void *user_data);
    // Describes scenario `index` without loading it. Required.
    int32_t (*info)(void *user_data, size_t index, struct TeScenarioInfo *out);
    // Loads scenario `index`. What `out` points to must stay alive until `unload` is called for it, or, without `unload`,
    // until the same thread's next callback. Required.
    int32_t (*load)(void *user_data, size_t index, struct TeScenario *out);
    // Called once after each `load` that returned 0, on the same thread, when the library has copied the scenario. Optional.
    void (*unload)(void *user_data, size_t index, struct TeScenario *scenario);
    // Called exactly once, after the last other callback: by `te_engine_free`, or by `te_build` if it fails. Optional.
    void (*release)(void *user_data);
} TeSource;

// Receives log records: from any thread, one call at a time. It must not call into the engine except for `te_engine_stop`.
typedef void (*TeLogCallback)(void *user_data, int32_t level, const char *message);

// A named figure.
typedef struct TeMetric {
    // Name as logged, for instance `val/minFDE`.
    const char *name;
    // Its value.
    double value;
} TeMetric;

// What happened in a run; its strings and arrays live until the callback returns. Fields that `kind` does not name are 0.
typedef struct TeEvent {
    // `sizeof(TeEvent)` of the library.
    size_t struct_size;
    // One of `TE_EVENT_...`.
    int32_t kind;
    // Ignored.
    int32_t reserved;
    // 0-based epoch.
    uint64_t epoch;
    // Optimiser steps so far.
    uint64_t step;
    // Steps of the whole run, as far as known.
    uint64_t total_steps;
    // Total loss of the step's batch; no number of a step whose batches were all in an earlier call.
    double loss;
    // Learning rate that was used.
    double learning_rate;
    // Token of a skipped scenario, path of a checkpoint; never null.
    const char *text;
    // Why; never null.
    const char *reason;
    // Tokens of the batch of a step that was not applied.
    const char *const *tokens;
    // Number of tokens.
    size_t token_count;
    // Losses of a step; losses and metrics of an epoch or a validation.
    const struct TeMetric *metrics;
    // Number of metrics.
    size_t metric_count;
} TeEvent;

// Receives events of `te_fit`, `te_cache`, `te_validate`, `te_test` and `te_evaluate`, on the thread that called. 0 goes on, a positive
// number ends the run after this step, on a GPU after up to two more that have begun (`te_fit` succeeds and its report says `stopped`), a
// negative number ends it with `TE_HOST_ERROR`; `te_callback_error` adds a text.
typedef int32_t (*TeEventCallback)(void *user_data, const struct TeEvent *event);

// What `te_build` builds an engine of.
typedef struct TeBuildOptions {
    // `sizeof(TeBuildOptions)`.
    size_t struct_size;
    // `TE_ABI_VERSION`.
    uint32_t abi_version;
    // Ignored.
    uint32_t reserved;
    // YAML or JSON; null or empty for the defaults.
    const char *config;
    // Texts of the form `key=value`, applied in order.
    const char *const *overrides;
    // Number of overrides.
    size_t override_count;
    // Where scenarios come from; copied. Null for an engine that only predicts, or has its data from the cache alone
    // (`cache.use_cache_without_dataset`).
    const struct TeSource *source;
    // Optional.
    TeLogCallback log;
    // Handed to `log`.
    void *log_user_data;
    // Optional.
    TeEventCallback event;
    // Handed to `event`.
    void *event_user_data;
    // Folder of the files that `defaults` lists of the configuration name; null for none.
    const char *config_folder;
} TeBuildOptions;

// How weights are written; all zero is the default.
typedef struct TeSaveWeightsOptions {
    // `sizeof(TeSaveWeightsOptions)`.
    size_t struct_size;
    // Put in front of every name. Null puts `model.` there in a `.ckpt`, as the published model has it, and nothing elsewhere.
    const char *prefix;
    // Not 0 to write the optimiser's state to a `.ckpt` as well, so that Lightning goes on with it.
    int32_t optimizer;
    // Ignored.
    int32_t reserved;
} TeSaveWeightsOptions;

// How weights are read; all zero is the default.
typedef struct TeLoadWeightsOptions {
    // `sizeof(TeLoadWeightsOptions)`.
    size_t struct_size;
    // Taken off the file's names that begin so. Null takes off `model.`, the published module's name of its network.
    const char *strip_prefix;
    // Put in front of names afterwards. Null for nothing.
    const char *add_prefix;
    // Not 0 to tolerate tensors that are missing or extra: what is missing stays as it was. A misshapen one remains an error.
    int32_t partial;
    // Ignored.
    int32_t reserved;
} TeLoadWeightsOptions;

// How a file of weights and the model differ; its strings and arrays live until `te_weights_report_free`.
typedef struct TeWeightsReportView {
    // `sizeof(TeWeightsReportView)`, set by the host.
    size_t struct_size;
    // Names of the model that the file does not have.
    const char *const *missing;
    // Number of them.
    size_t missing_count;
    // Names of the file that the model does not have.
    const char *const *extra;
    // Number of them.
    size_t extra_count;
} TeWeightsReportView;

// What a run did; its strings and arrays live until `te_report_free`. Fields that do not belong to the run are 0.
typedef struct TeReportView {
    // `sizeof(TeReportView)`, set by the host.
    size_t struct_size;
    // Fit: epochs completed, resumed ones included.
    uint64_t epochs;
    // Fit: optimiser steps applied, resumed ones included; in `16-mixed` those that were skipped too, as in Lightning.
    uint64_t steps;
    // Fit: steps of this run that were not applied since their loss or gradient was not finite.
    uint64_t skipped_steps;
    // Validate, test, evaluate: scenarios evaluated. Cache: scenarios that this call was to cache.
    uint64_t scenarios;
    // Scenarios that were left out in this run.
    uint64_t skipped_scenarios;
    // Fit, cache: not 0 if the run was ended before it was done: by the host, or, in fit, by `max_time`.
    int32_t stopped;
    // Fit: 0 if the monitored metric was never seen.
    int32_t has_best_score;
    // Fit: best value of the monitored metric.
    double best_score;
    // Fit: path of the best checkpoint, empty if there is none.
    const char *best_checkpoint;
    // Fit: path of the last checkpoint, empty if there is none.
    const char *last_checkpoint;
    // Losses and metrics (fit: of the last epoch).
    const struct TeMetric *metrics;
    // Number of metrics.
    size_t metric_count;
    // The whole report as JSON.
    const char *json;
    // Cache: scenarios whose features were computed and written.
    uint64_t computed;
    // Cache: scenarios whose features were there.
    uint64_t present;
    // Cache: scenarios without features; `json` counts them by reason.
    uint64_t failed;
    // Cache: entries that were damaged.
    uint64_t damaged;
} TeReportView;

// What a prediction holds.
typedef struct TePredictionView {
    // `sizeof(TePredictionView)`, set by the host.
    size_t struct_size;
    // Index of the most probable candidate.
    size_t best;
    // Number of candidates: reference lines times modes.
    size_t candidate_count;
    // Number of agents.
    size_t agent_count;
} TePredictionView;

// A predicted step, global frame.
typedef struct TeTrajectoryState {
    // Metres; rear axle for the ego, box centre for agents.
    double x;
    // Metres.
    double y;
    // Radians, counter-clockwise from +x.
    double heading;
    // Velocity, metres a second.
    double vx;
    // Velocity, metres a second.
    double vy;
} TeTrajectoryState;

// One proposed trajectory of the ego; `states` lives until `te_prediction_free`.
typedef struct TeCandidate {
    // `sizeof(TeCandidate)`, set by the host.
    size_t struct_size;
    // Over all candidates the probabilities sum to 1.
    double probability;
    // Reference line that it follows.
    uint64_t reference_line;
    // Mode on that line.
    uint64_t mode;
    // One state every `TE_STEP_SECONDS`, beginning one step after the present.
    const struct TeTrajectoryState *states;
    // Number of states.
    size_t state_count;
} TeCandidate;

// Predicted future of one agent; `id` and `states` live until `te_prediction_free`.
typedef struct TeAgentPrediction {
    // `sizeof(TeAgentPrediction)`, set by the host.
    size_t struct_size;
    // The host's id.
    const char *id;
    // One state every `TE_STEP_SECONDS`, beginning one step after the present.
    const struct TeTrajectoryState *states;
    // Number of states.
    size_t state_count;
} TeAgentPrediction;

// Success.
#define TE_OK 0

// An argument is unusable: a null pointer, a wrong `struct_size`, an index out of range.
#define TE_INVALID_ARGUMENT 1

// The configuration text or an override is wrong.
#define TE_INVALID_CONFIG 2

// A scenario or map breaks a rule of the scenario model.
#define TE_INVALID_SCENARIO 3

// A callback of the host reported a failure.
#define TE_HOST_ERROR 4

// The data cannot be used as asked: an empty split, no valid scenario.
#define TE_DATA_ERROR 5

// A file could not be read or written.
#define TE_FILE_ERROR 6

// Loss or gradient stopped being finite.
#define TE_NOT_FINITE 7

// The device cannot run what it was asked to run.
#define TE_BACKEND_ERROR 8

// A fault of the library: a tensor's shape or a graph's structure is wrong.
#define TE_INTERNAL_ERROR 9

// The host ended the call (`te_fit` reports a stopped run as success).
#define TE_STOPPED 10

// The handle is in use by another call, or by the call whose callback is running.
#define TE_BUSY 11

// A fault of the library: it panicked. The handle can only be freed if later calls return `TE_POISONED`.
#define TE_PANIC 12

// An earlier call on this handle panicked; it can only be freed.
#define TE_POISONED 13

// The process forked after the handle was made; in the child it can only be freed.
#define TE_FORKED 14

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The message of the last call on this thread that failed, empty if none has. It lives until the next failing call on this thread.
const char *te_last_error(void);

// Version of the library, for instance `0.1.0`.
const char *te_version(void);

// Version of the interface that the library has; compare with `TE_ABI_VERSION`.
uint32_t te_abi_version(void);

// How the library was built, as JSON; `cuda`: the compute capabilities of GPUs that it holds kernels for, none if there was no nvcc.
const char *te_build_info(void);

// Provokes a fault inside the library, so that a host can test how it copes: `test` is a `TE_SELF_TEST_...`. With
// `TE_SELF_TEST_PANIC` it returns `TE_PANIC`, and the engine, if one is given, can afterwards only be freed.
TeStatus te_self_test(struct TeEngine *engine, int32_t test);

// Checks and indexes a map; everything is copied. May be called in a callback.
//
// Non-finite coordinates and ids that are empty or used twice are errors; a lane or crosswalk of zero length or too few points
// is left out and named by `te_map_skipped`.
TeStatus te_map_new(const struct TeMapDescription *description, struct TeMap **map);

// The lanes and crosswalks that were left out, one a line with the reason; empty if none was. The text lives as long as the map.
TeStatus te_map_skipped(const struct TeMap *map, const char **text);

// Gives the host's share of a map back; null is allowed. Scenarios that were read keep theirs. May be called in a callback.
TeStatus te_map_free(struct TeMap *map);

// In a callback that is about to return a code other than 0: says why. The text is copied; outside of a callback it has no effect.
void te_callback_error(const char *message);

// Builds an engine: resolves the configuration, makes trainer, model and data. The source, if there is one, belongs to the
// library from here on, whether the call succeeds or not (unless `options` or `source` itself cannot be read: null, or a wrong
// `struct_size`). Callbacks may be called during the call.
TeStatus te_build(const struct TeBuildOptions *options, struct TeEngine **engine);

// The final configuration, as `te_build` would have it, as YAML text with every default. Of `options` it reads `config`,
// `config_folder` and `overrides`; the source is not touched, and the model that `wandb.artifact` names, which then is the
// `checkpoint`, is not downloaded. The text lives until the next call of this function on the same
// thread.
TeStatus te_config_resolve(const struct TeBuildOptions *options, const char **text);

// Frees an engine and releases its source; null is allowed. `TE_BUSY` while a call runs: nothing is freed then. In the child of
// a fork the memory is given up without being touched and the source is not released.
TeStatus te_engine_free(struct TeEngine *engine);

// Asks the run in progress to end after the step that it is in, or, where that waits for scenarios, after those being loaded; without
// a run it has no effect. From any thread, in a callback, in a signal handler: it takes no lock, allocates nothing and leaves
// `te_last_error` alone.
TeStatus te_engine_stop(const struct TeEngine *engine);

// The final configuration as YAML text with every default; it lives as long as the engine.
TeStatus te_engine_config(const struct TeEngine *engine, const char **text);

// Table of the model's parts with their numbers of parameters; it lives as long as the engine.
TeStatus te_engine_summary(const struct TeEngine *engine, const char **text);

// Writes the weights by their published names: a checkpoint of PyTorch Lightning, as the published planner reads it, to a name
// that ends in `.ckpt`, else safetensors. The file appears whole or not at all.
TeStatus te_engine_save_weights(struct TeEngine *engine, const char *path);

// As `te_engine_save_weights`, with options; null for the defaults.
TeStatus te_engine_save_weights_with(struct TeEngine *engine, const char *path, const struct TeSaveWeightsOptions *options);

// Reads weights: safetensors, or what PyTorch or Lightning wrote (`.ckpt`), of which nothing is executed. A missing, extra or
// misshapen one is an error that names it, and nothing is changed.
TeStatus te_engine_load_weights(struct TeEngine *engine, const char *path);

// As `te_engine_load_weights`, with options, null for the defaults. `report` may be null.
TeStatus te_engine_load_weights_with(struct TeEngine *engine,
                                     const char *path,
                                     const struct TeLoadWeightsOptions *options,
                                     struct TeWeightsReport **report);

// Shows a report: set `view->struct_size`, the rest is filled in.
TeStatus te_weights_report_view(const struct TeWeightsReport *report, struct TeWeightsReportView *view);

// Frees a report; null is allowed.
TeStatus te_weights_report_free(struct TeWeightsReport *report);

// Trains, validates after every epoch, writes checkpoints; resumes first if the configuration names a checkpoint. A run that the
// host ends (`te_engine_stop`, event callback), or `max_time`, succeeds, and its report says `stopped`. `report` may be null.
TeStatus te_fit(struct TeEngine *engine, struct TeReport **report);

// Computes the features of all scenarios of all splits that the cache (`cache.cache_path`) lacks, on `threads` threads, and writes them,
// so that `te_fit` need not. Scenarios without features are left out, counted by reason and named in events. With `NUM_NODES` and
// `NODE_RANK` in the environment it does this node's share. A call that the host ends succeeds, and its report says `stopped`;
// what was written stays. `report` may be null.
TeStatus te_cache(struct TeEngine *engine,
                  struct TeReport **report);

// Evaluates on the validation split. `report` may be null.
TeStatus te_validate(struct TeEngine *engine, struct TeReport **report);

// Evaluates on the test split. `report` may be null.
TeStatus te_test(struct TeEngine *engine, struct TeReport **report);

// Evaluates on one split (`TE_SPLIT_TRAIN`, `TE_SPLIT_VALIDATION` or `TE_SPLIT_TEST`), to its last scenario: the checkpoint `best` or
// `last` of the engine's run, or the one in a file, or with null or an empty text the present weights. The engine's weights stay as
// they are. `report` may be null.
TeStatus te_evaluate(struct TeEngine *engine,
                     int32_t split,
                     const char *checkpoint,
                     struct TeReport **report);

// Shows a report: set `view->struct_size`, the rest is filled in.
TeStatus te_report_view(const struct TeReport *report, struct TeReportView *view);

// Value of one metric by its logged name, for instance `test/minFDE`.
TeStatus te_report_metric(const struct TeReport *report, const char *name, double *value);

// Frees a report; null is allowed.
TeStatus te_report_free(struct TeReport *report);

// Plans one scenario from its history; its future may be left out and is not read.
TeStatus te_predict(struct TeEngine *engine, const struct TeScenario *scenario, struct TePrediction **prediction);

// Shows what a prediction holds: set `view->struct_size`, the rest is filled in.
TeStatus te_prediction_view(const struct TePrediction *prediction, struct TePredictionView *view);

// Shows candidate `index`: set `candidate->struct_size`, the rest is filled in.
TeStatus te_prediction_candidate(const struct TePrediction *prediction, size_t index, struct TeCandidate *candidate);

// Shows the predicted future of agent `index`, nearest first: set `agent->struct_size`, the rest is filled in.
TeStatus te_prediction_agent(const struct TePrediction *prediction, size_t index, struct TeAgentPrediction *agent);

// Frees a prediction; null is allowed.
TeStatus te_prediction_free(struct TePrediction *prediction);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRAINING_ENGINE_H */
