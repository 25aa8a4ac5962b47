// C++17 layer over training_engine.h: values instead of pointers, exceptions instead of status codes. Header only.
//
//   struct MySource : te::ScenarioSource { size_t size() override; te::Scenario load(size_t index) override; };
//   te::Engine engine("epochs: 5", std::make_shared<MySource>());
//   te::FitReport fit = engine.fit();
//
// What the fields mean, units and frames: see training_engine.h. An exception thrown in a callback ends the run and arrives
// unchanged at the caller of the call that it ended.
#ifndef TRAINING_ENGINE_HPP
#define TRAINING_ENGINE_HPP

#include "training_engine.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace te {

constexpr std::size_t history_steps = TE_HISTORY_STEPS;
constexpr std::size_t future_steps = TE_FUTURE_STEPS;
constexpr std::size_t total_steps = TE_TOTAL_STEPS;
constexpr double step_seconds = TE_STEP_SECONDS;

enum class AgentKind : std::int32_t { vehicle = TE_AGENT_VEHICLE, pedestrian = TE_AGENT_PEDESTRIAN, bicycle = TE_AGENT_BICYCLE };
enum class StaticKind : std::int32_t {
    construction_sign = TE_STATIC_CONSTRUCTION_SIGN,
    barrier = TE_STATIC_BARRIER,
    traffic_cone = TE_STATIC_TRAFFIC_CONE,
    generic = TE_STATIC_GENERIC
};
enum class LightState : std::int32_t { green = TE_LIGHT_GREEN, yellow = TE_LIGHT_YELLOW, red = TE_LIGHT_RED, unknown = TE_LIGHT_UNKNOWN };
enum class LaneKind : std::int32_t { lane = TE_LANE, connector = TE_LANE_CONNECTOR };
enum class Split : std::int32_t { unspecified = TE_SPLIT_UNSPECIFIED, train = TE_SPLIT_TRAIN, validation = TE_SPLIT_VALIDATION, test = TE_SPLIT_TEST };
enum class LogLevel : std::int32_t { error = TE_LOG_ERROR, warning = TE_LOG_WARNING, info = TE_LOG_INFO, debug = TE_LOG_DEBUG };

/// Position in the global frame, metres.
struct Point {
    double x = 0, y = 0;
};

/// Ego at one step; position of the rear axle; vectors in the global frame.
struct EgoState {
    double x = 0, y = 0, heading = 0, vx = 0, vy = 0, ax = 0, ay = 0;
};

/// Agent at one step; position of the box centre. The other fields are ignored where `valid` is 0.
struct AgentState {
    double x = 0, y = 0, heading = 0, vx = 0, vy = 0, width = 0, length = 0;
    std::int32_t valid = 0;
    std::int32_t reserved = 0;
};

/// Dimensions of the ego, metres. The default is the vehicle of the published data set.
struct Vehicle {
    double width = 2.297, front_length = 4.049, rear_length = 1.127, wheel_base = 3.089;
};

/// A tracked agent; as many states as the ego has.
struct Agent {
    std::string id;
    AgentKind kind = AgentKind::vehicle;
    std::vector<AgentState> states;
};

/// An object that does not move, at the present step.
struct StaticObject {
    StaticKind kind = StaticKind::generic;
    std::int32_t reserved = 0;
    double x = 0, y = 0, heading = 0, width = 0, length = 0;
};

/// The light that a lane obeys at the present step.
struct TrafficLight {
    std::string lane_id;
    LightState state = LightState::unknown;
};

/// A lane; its polylines run in driving direction and may differ in their number of points.
struct Lane {
    std::string id;
    std::string roadblock_id;
    LaneKind kind = LaneKind::lane;
    std::vector<Point> centerline, left, right;
    std::vector<std::string> successors;
    std::optional<double> speed_limit;
};

/// A pedestrian crossing; the outline is not closed.
struct Crosswalk {
    std::string id;
    std::vector<Point> polygon;
};

/// What a failing call reports: the status code and, as what(), the whole story.
class Error : public std::runtime_error {
  public:
    Error(TeStatus status, const std::string &message) : std::runtime_error(message), status_(status) {}
    TeStatus status() const noexcept { return status_; }

  private:
    TeStatus status_;
};

/// Thrown by ScenarioSource::load or info: leave this scenario out, count it, go on. Elsewhere an exception like any other.
class SkipScenario : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

namespace detail {

// Values that cross as they are.
static_assert(sizeof(Point) == sizeof(TePoint) && sizeof(EgoState) == sizeof(TeEgoState));
static_assert(sizeof(AgentState) == sizeof(TeAgentState) && offsetof(AgentState, valid) == offsetof(TeAgentState, valid));
static_assert(sizeof(StaticObject) == sizeof(TeStaticObject) && offsetof(StaticObject, x) == offsetof(TeStaticObject, x));

template <class To, class From> const To *as(const std::vector<From> &values) {
    static_assert(std::is_standard_layout_v<From> && sizeof(From) == sizeof(To) && alignof(From) == alignof(To));
    return reinterpret_cast<const To *>(values.data());
}

template <class T> T sized() {
    T value{};
    value.struct_size = sizeof(T);
    return value;
}

inline void check(TeStatus status) {
    if (status != TE_OK) throw Error(status, te_last_error());
}

inline std::vector<const char *> pointers(const std::vector<std::string> &texts) {
    std::vector<const char *> result;
    result.reserve(texts.size());
    for (const auto &text : texts) result.push_back(text.c_str());
    return result;
}

} // namespace detail

/// A checked and indexed map. Share it between scenarios: std::make_shared<te::Map>("town", lanes, crosswalks).
class Map {
  public:
    Map(const std::string &name, const std::vector<Lane> &lanes, const std::vector<Crosswalk> &crosswalks = {}) {
        std::vector<std::vector<const char *>> successors;
        std::vector<TeLane> raw_lanes;
        std::vector<TeCrosswalk> raw_crosswalks;
        for (const auto &lane : lanes) {
            successors.push_back(detail::pointers(lane.successors));
            auto raw = detail::sized<TeLane>();
            raw.id = lane.id.c_str();
            raw.roadblock_id = lane.roadblock_id.c_str();
            raw.kind = static_cast<std::int32_t>(lane.kind);
            raw.has_speed_limit = lane.speed_limit.has_value();
            raw.speed_limit = lane.speed_limit.value_or(0.0);
            raw.centerline = detail::as<TePoint>(lane.centerline);
            raw.centerline_count = lane.centerline.size();
            raw.left = detail::as<TePoint>(lane.left);
            raw.left_count = lane.left.size();
            raw.right = detail::as<TePoint>(lane.right);
            raw.right_count = lane.right.size();
            raw.successors = successors.back().data(); // stays where it is when the outer vector grows
            raw.successor_count = successors.back().size();
            raw_lanes.push_back(raw);
        }
        for (const auto &crosswalk : crosswalks) {
            auto raw = detail::sized<TeCrosswalk>();
            raw.id = crosswalk.id.c_str();
            raw.polygon = detail::as<TePoint>(crosswalk.polygon);
            raw.polygon_count = crosswalk.polygon.size();
            raw_crosswalks.push_back(raw);
        }
        auto description = detail::sized<TeMapDescription>();
        description.name = name.c_str();
        description.lanes = raw_lanes.data();
        description.lane_count = raw_lanes.size();
        description.crosswalks = raw_crosswalks.data();
        description.crosswalk_count = raw_crosswalks.size();
        detail::check(te_map_new(&description, &handle_));
    }
    ~Map() { te_map_free(handle_); }
    Map(Map &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Map &operator=(Map &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Map(const Map &) = delete;
    Map &operator=(const Map &) = delete;
    /// Lanes and crosswalks that were left out since they have no extent, one a line with the reason.
    std::string skipped() const {
        const char *text = nullptr;
        detail::check(te_map_skipped(handle_, &text));
        return text;
    }
    const TeMap *handle() const noexcept { return handle_; }

  private:
    TeMap *handle_ = nullptr;
};

/// One driving scenario. `ego` holds total_steps states, or history_steps for prediction; the last of the history is the present.
struct Scenario {
    std::string token;
    std::string log_name;
    std::string scenario_type;
    std::shared_ptr<const Map> map;
    std::vector<EgoState> ego;
    Vehicle vehicle;
    std::vector<Agent> agents;
    std::vector<StaticObject> static_objects;
    std::vector<std::string> route; ///< ids of road-blocks in driving order
    std::vector<TrafficLight> lights;
};

/// Enough of a scenario to split, filter and name it.
struct ScenarioInfo {
    std::string token;
    std::string log_name;
    std::string scenario_type;
    Split split = Split::unspecified;
    std::string map_name = {}; ///< Empty if not known; read by scenario_filter.map_names alone.
    std::int64_t start_us = 0; ///< Of a clock that all logs share, 0 if not known; read by scenario_filter.timestamp_threshold_s alone.
};

/// Supplies scenarios by index. Derive from it; an exception ends the run and reaches the caller of the engine, except
/// SkipScenario, which leaves one scenario out.
class ScenarioSource {
  public:
    virtual ~ScenarioSource() = default;
    virtual std::size_t size() = 0;
    virtual Scenario load(std::size_t index) = 0;
    /// Describes a scenario without loading it. The default loads it: override it if loading is slow.
    virtual ScenarioInfo info(std::size_t index) {
        Scenario scenario = load(index);
        return {scenario.token, scenario.log_name, scenario.scenario_type, Split::unspecified};
    }
    /// True if load and info may be called from several threads at once.
    virtual bool thread_safe() const { return false; }
};

/// Losses and metrics by logged name, in the order in which they were logged.
class Metrics : public std::vector<std::pair<std::string, double>> {
  public:
    /// Value of a name, if it is there.
    std::optional<double> find(std::string_view name) const {
        for (const auto &entry : *this)
            if (entry.first == name) return entry.second;
        return std::nullopt;
    }
    /// Value of a name; throws std::out_of_range that lists the names there are.
    double at(std::string_view name) const {
        if (auto value = find(name)) return *value;
        std::string message = "no metric '" + std::string(name) + "'; there are:";
        for (const auto &entry : *this) message += " " + entry.first;
        throw std::out_of_range(message);
    }
};

/// What fit did.
struct FitReport {
    std::size_t epochs = 0, steps = 0, skipped_steps = 0, skipped_scenarios = 0;
    bool stopped = false;
    std::optional<double> best_score;
    std::string best_checkpoint, last_checkpoint;
    Metrics metrics; ///< of the last epoch
    std::string json;
};

/// What cache did.
struct CacheReport {
    std::size_t scenarios = 0, computed = 0, present = 0, failed = 0, damaged = 0;
    bool stopped = false;
    std::string json; ///< also counts failures by reason
};

/// What validate and test found.
struct EvaluationReport {
    std::size_t scenarios = 0, skipped_scenarios = 0;
    Metrics metrics;
    std::string json;
};

/// How weights are written.
struct SaveWeightsOptions {
    std::optional<std::string> prefix; ///< In front of names; none: `model.` in a `.ckpt`, nothing elsewhere.
    bool optimizer = false;            ///< The optimiser's state as well, in a `.ckpt`.
};

/// How weights are read.
struct LoadWeightsOptions {
    std::optional<std::string> strip_prefix; ///< Taken off names that begin so; none: `model.`.
    std::string add_prefix;                  ///< Put in front of names afterwards.
    bool partial = false;                    ///< Tolerate what is missing (it stays as it was) or extra.
};

/// How a file of weights and the model differ.
struct WeightsReport {
    std::vector<std::string> missing, extra;
};

/// A predicted step in the global frame.
struct TrajectoryState {
    double x = 0, y = 0, heading = 0, vx = 0, vy = 0;
};

/// One proposed trajectory of the ego (rear axle), future_steps states.
struct Candidate {
    double probability = 0;
    std::size_t reference_line = 0, mode = 0;
    std::vector<TrajectoryState> states;
};

/// Predicted future of an agent (box centre), future_steps states.
struct AgentPrediction {
    std::string id;
    std::vector<TrajectoryState> states;
};

/// Answer of predict.
struct Prediction {
    std::size_t best = 0;
    std::vector<Candidate> candidates;
    std::vector<AgentPrediction> agents; ///< nearest first
    const Candidate &best_candidate() const { return candidates.at(best); }
};

/// What happened during fit; which fields are set depends on `kind` (TE_EVENT_...).
struct Event {
    std::int32_t kind = 0;
    std::size_t epoch = 0, step = 0, total_steps = 0;
    double loss = 0, learning_rate = 0;
    std::string text;                ///< token of a skipped scenario, path of a checkpoint
    std::string reason;              ///< why a scenario was skipped
    std::vector<std::string> tokens; ///< batch of a step that was not applied
    Metrics metrics;                 ///< of an epoch
};

/// What an event callback answers.
enum class Flow { proceed, stop };

/// The host's ears; both may be empty. Log records may come from any thread, one at a time.
struct Host {
    std::function<void(LogLevel, std::string_view)> log;
    std::function<Flow(const Event &)> event;
};

namespace detail {

/// A scenario as C sees it, and the arrays that this needs; it points into the scenario.
class RawScenario {
  public:
    explicit RawScenario(const Scenario &scenario) : route_(pointers(scenario.route)) {
        for (const auto &agent : scenario.agents) {
            auto raw_agent = sized<TeAgent>();
            raw_agent.id = agent.id.c_str();
            raw_agent.kind = static_cast<std::int32_t>(agent.kind);
            raw_agent.states = as<TeAgentState>(agent.states);
            raw_agent.state_count = agent.states.size();
            agents_.push_back(raw_agent);
        }
        for (const auto &light : scenario.lights)
            lights_.push_back({light.lane_id.c_str(), static_cast<std::int32_t>(light.state), 0});
        const auto &vehicle = scenario.vehicle;
        raw.token = scenario.token.c_str();
        raw.log_name = scenario.log_name.c_str();
        raw.scenario_type = scenario.scenario_type.c_str();
        raw.map = scenario.map ? scenario.map->handle() : nullptr;
        raw.ego = as<TeEgoState>(scenario.ego);
        raw.ego_count = scenario.ego.size();
        raw.vehicle = {vehicle.width, vehicle.front_length, vehicle.rear_length, vehicle.wheel_base};
        raw.agents = agents_.data();
        raw.agent_count = agents_.size();
        raw.static_objects = as<TeStaticObject>(scenario.static_objects);
        raw.static_object_count = scenario.static_objects.size();
        raw.route = route_.data();
        raw.route_count = route_.size();
        raw.lights = lights_.data();
        raw.light_count = lights_.size();
    }
    RawScenario(const RawScenario &) = delete;
    RawScenario &operator=(const RawScenario &) = delete;

    TeScenario raw = sized<TeScenario>();

  private:
    std::vector<const char *> route_;
    std::vector<TeAgent> agents_;
    std::vector<TeTrafficLight> lights_;
};

/// A scenario that the library has not copied yet.
struct LoadedScenario {
    explicit LoadedScenario(Scenario loaded) : scenario(std::move(loaded)), view(scenario) {}
    Scenario scenario;
    RawScenario view;
};

inline Metrics metrics(const TeMetric *values, std::size_t count) {
    Metrics result;
    for (std::size_t i = 0; i < count; ++i) result.emplace_back(values[i].name, values[i].value);
    return result;
}

inline std::vector<TrajectoryState> states(const TeTrajectoryState *values, std::size_t count) {
    std::vector<TrajectoryState> result;
    result.reserve(count);
    for (std::size_t i = 0; i < count; ++i)
        result.push_back({values[i].x, values[i].y, values[i].heading, values[i].vx, values[i].vy});
    return result;
}

inline Event event(const TeEvent &raw) {
    Event result;
    result.kind = raw.kind;
    result.epoch = raw.epoch;
    result.step = raw.step;
    result.total_steps = raw.total_steps;
    result.loss = raw.loss;
    result.learning_rate = raw.learning_rate;
    result.text = raw.text;
    result.reason = raw.reason;
    result.tokens.assign(raw.tokens, raw.tokens + raw.token_count);
    result.metrics = metrics(raw.metrics, raw.metric_count);
    return result;
}

/// What the C callbacks work on. No exception leaves a callback: the first one is kept and thrown again by `finish`.
class Callbacks {
  public:
    Callbacks(std::shared_ptr<ScenarioSource> source, Host host) : source_(std::move(source)), host_(std::move(host)) {}

    TeSource source_table() {
        auto table = sized<TeSource>();
        table.user_data = this;
        table.thread_safe = source_->thread_safe();
        table.size = [](void *user) noexcept -> std::size_t {
            std::size_t size = 0;
            const auto code = self(user).attempt([&] { size = self(user).source_->size(); });
            return code == 0 ? size : SIZE_MAX;
        };
        table.info = [](void *user, std::size_t index, TeScenarioInfo *out) noexcept -> std::int32_t {
            return self(user).supply([&] {
                static thread_local ScenarioInfo info; // read by the library before this thread's next callback
                info = self(user).source_->info(index);
                out->token = info.token.c_str();
                out->log_name = info.log_name.c_str();
                out->scenario_type = info.scenario_type.c_str();
                out->split = static_cast<std::int32_t>(info.split);
                if (out->struct_size < sizeof *out) return; // the library is older than these
                out->map_name = info.map_name.empty() ? nullptr : info.map_name.c_str();
                out->start_us = info.start_us;
            });
        };
        table.load = [](void *user, std::size_t index, TeScenario *out) noexcept -> std::int32_t {
            return self(user).supply([&] {
                auto loaded = std::make_unique<LoadedScenario>(self(user).source_->load(index));
                auto &raw = loaded->view.raw;
                raw.struct_size = std::min(out->struct_size, sizeof raw);
                raw.host_data = loaded.get();
                std::memcpy(out, &raw, raw.struct_size);
                static_cast<void>(loaded.release());
            });
        };
        table.unload = [](void *, std::size_t, TeScenario *scenario) noexcept {
            delete static_cast<LoadedScenario *>(scenario->host_data);
        };
        table.release = [](void *user) noexcept { self(user).attempt([&] { self(user).source_.reset(); }); };
        return table;
    }

    void install(TeBuildOptions &options) {
        if (host_.log) {
            options.log_user_data = this;
            options.log = [](void *user, std::int32_t level, const char *message) noexcept {
                self(user).attempt([&] { self(user).host_.log(static_cast<LogLevel>(level), message); });
            };
        }
        // Also without a listener: a log callback returns nothing, so that what it throws ends the run at the next event.
        options.event_user_data = this;
        options.event = [](void *user, const TeEvent *raw) noexcept -> std::int32_t {
            auto &callbacks = self(user);
            if (callbacks.has_thrown()) return -1;
            if (!callbacks.host_.event) return 0;
            Flow flow = Flow::stop;
            const auto code = callbacks.attempt([&] { flow = callbacks.host_.event(event(*raw)); });
            return code != 0 ? code : flow == Flow::stop;
        };
    }

    /// Throws what a callback threw, if one did.
    void rethrow() {
        std::exception_ptr thrown;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            thrown = std::exchange(thrown_, nullptr);
        }
        if (thrown) std::rethrow_exception(thrown);
    }

    /// Ends a call: throws what a callback threw in it, or what the call itself reports.
    void finish(TeStatus status) {
        // A call that was refused had no callbacks: what is kept then is for another thread, whose call is running.
        const bool refused = status == TE_BUSY || status == TE_INVALID_ARGUMENT || status == TE_FORKED || status == TE_POISONED;
        if (!refused) rethrow();
        check(status);
    }

  private:
    static Callbacks &self(void *user) noexcept { return *static_cast<Callbacks *>(user); }

    template <class Body> std::int32_t attempt(Body &&body) noexcept {
        try {
            body();
            return 0;
        } catch (const std::exception &error) {
            te_callback_error(error.what());
            return keep();
        } catch (...) {
            te_callback_error("an exception that is not derived from std::exception");
            return keep();
        }
    }

    /// An attempt to give a scenario, or its description, which may also leave it out.
    template <class Body> std::int32_t supply(Body &&body) noexcept {
        if (has_thrown()) return -1;
        bool skipped = false;
        const auto code = attempt([&] {
            try {
                body();
            } catch (const SkipScenario &skip) {
                te_callback_error(skip.what());
                skipped = true;
            }
        });
        return code != 0 ? code : skipped;
    }

    bool has_thrown() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        return thrown_ != nullptr;
    }

    std::int32_t keep() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!thrown_) thrown_ = std::current_exception();
        return -1;
    }

    std::shared_ptr<ScenarioSource> source_;
    Host host_;
    std::mutex mutex_;
    std::exception_ptr thrown_;
};

} // namespace detail

/// The final configuration as an Engine would have it, as YAML text with every default; nothing is downloaded for it.
inline std::string resolve_config(const std::string &config, const std::vector<std::string> &overrides = {},
                                  const std::string &config_folder = {}) {
    auto options = detail::sized<TeBuildOptions>();
    const auto override_pointers = detail::pointers(overrides);
    options.abi_version = TE_ABI_VERSION;
    options.config = config.c_str();
    options.overrides = override_pointers.data();
    options.override_count = override_pointers.size();
    if (!config_folder.empty()) options.config_folder = config_folder.c_str();
    const char *text = nullptr;
    detail::check(te_config_resolve(&options, &text));
    return text;
}

/// Trainer, model and data. One thread at a time; stop() may be called from any thread, config() and summary() too. In the child of a
/// fork it can only be destroyed, and the source with it if nobody else holds it.
class Engine {
  public:
    /// `config` is YAML or JSON, `overrides` are texts in Hydra's grammar (key=value), `config_folder` has the files that its
    /// `defaults` lists name. Without a source the engine only predicts.
    explicit Engine(const std::string &config, std::shared_ptr<ScenarioSource> source = nullptr,
                    const std::vector<std::string> &overrides = {}, Host host = {}, const std::string &config_folder = {}) {
        auto options = detail::sized<TeBuildOptions>();
        const auto override_pointers = detail::pointers(overrides);
        auto table = detail::sized<TeSource>();
        const bool has_source = source != nullptr;
        callbacks_ = std::make_unique<detail::Callbacks>(std::move(source), std::move(host));
        options.abi_version = TE_ABI_VERSION;
        options.config = config.c_str();
        options.overrides = override_pointers.data();
        options.override_count = override_pointers.size();
        if (!config_folder.empty()) options.config_folder = config_folder.c_str();
        callbacks_->install(options);
        if (has_source) {
            table = callbacks_->source_table();
            options.source = &table;
        }
        const auto status = te_build(&options, &handle_);
        try {
            callbacks_->rethrow();
            detail::check(status);
        } catch (...) {
            te_engine_free(handle_); // the destructor will not run
            throw;
        }
    }
    ~Engine() { close(); }
    Engine(Engine &&other) noexcept : callbacks_(std::move(other.callbacks_)), handle_(std::exchange(other.handle_, nullptr)) {}
    Engine &operator=(Engine &&other) noexcept {
        std::swap(callbacks_, other.callbacks_);
        std::swap(handle_, other.handle_);
        return *this;
    }
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    /// Trains; a run that stop(), the event callback or `max_time` ended returns with `stopped` set.
    FitReport fit() {
        const Report report = run(te_fit);
        const auto view = report.view();
        FitReport result;
        result.epochs = view.epochs;
        result.steps = view.steps;
        result.skipped_steps = view.skipped_steps;
        result.skipped_scenarios = view.skipped_scenarios;
        result.stopped = view.stopped != 0;
        if (view.has_best_score) result.best_score = view.best_score;
        result.best_checkpoint = view.best_checkpoint;
        result.last_checkpoint = view.last_checkpoint;
        result.metrics = detail::metrics(view.metrics, view.metric_count);
        result.json = view.json;
        return result;
    }

    /// Computes the features that the cache (`cache.cache_path`) lacks and writes them.
    CacheReport cache() {
        const Report report = run(te_cache);
        const auto view = report.view();
        CacheReport result;
        result.scenarios = view.scenarios;
        result.computed = view.computed;
        result.present = view.present;
        result.failed = view.failed;
        result.damaged = view.damaged;
        result.stopped = view.stopped != 0;
        result.json = view.json;
        return result;
    }

    /// Evaluates on the validation split.
    EvaluationReport validate() { return evaluated(te_validate); }
    /// Evaluates on the test split.
    EvaluationReport test() { return evaluated(te_test); }
    /// Evaluates on one split: the checkpoint "best" or "last" of this run, one in a file, or without one the present weights.
    EvaluationReport evaluate(Split split, const std::string &checkpoint = {}) {
        return evaluated([&](TeEngine *engine, TeReport **report) {
            return te_evaluate(engine, static_cast<std::int32_t>(split), checkpoint.c_str(), report);
        });
    }

    /// Plans one scenario from its history.
    Prediction predict(const Scenario &scenario) {
        const detail::RawScenario raw(scenario);
        TePrediction *handle = nullptr;
        auto *const callbacks = callbacks_.get();
        const auto status = te_predict(handle_, &raw.raw, &handle);
        const std::unique_ptr<TePrediction, TeStatus (*)(TePrediction *)> guard(handle, te_prediction_free);
        finish(callbacks, status);
        auto view = detail::sized<TePredictionView>();
        detail::check(te_prediction_view(handle, &view));
        Prediction result;
        result.best = view.best;
        for (std::size_t i = 0; i < view.candidate_count; ++i) {
            auto candidate = detail::sized<TeCandidate>();
            detail::check(te_prediction_candidate(handle, i, &candidate));
            result.candidates.push_back({candidate.probability, static_cast<std::size_t>(candidate.reference_line),
                                         static_cast<std::size_t>(candidate.mode), detail::states(candidate.states, candidate.state_count)});
        }
        for (std::size_t i = 0; i < view.agent_count; ++i) {
            auto agent = detail::sized<TeAgentPrediction>();
            detail::check(te_prediction_agent(handle, i, &agent));
            result.agents.push_back({agent.id, detail::states(agent.states, agent.state_count)});
        }
        return result;
    }

    /// Writes the weights by their published names, whole or not at all: a checkpoint of PyTorch Lightning to a name that ends in
    /// `.ckpt`, else safetensors.
    void save_weights(const std::string &path, const SaveWeightsOptions &options = {}) const {
        auto raw = detail::sized<TeSaveWeightsOptions>();
        raw.prefix = options.prefix ? options.prefix->c_str() : nullptr;
        raw.optimizer = options.optimizer;
        auto *const callbacks = callbacks_.get();
        finish(callbacks, te_engine_save_weights_with(handle_, path.c_str(), &raw));
    }
    /// Reads weights: safetensors, or what PyTorch or Lightning wrote, of which nothing is executed. If one is missing, extra or
    /// misshapen nothing is changed, unless the options tolerate it.
    WeightsReport load_weights(const std::string &path, const LoadWeightsOptions &options = {}) {
        auto raw = detail::sized<TeLoadWeightsOptions>();
        raw.strip_prefix = options.strip_prefix ? options.strip_prefix->c_str() : nullptr;
        raw.add_prefix = options.add_prefix.c_str();
        raw.partial = options.partial;
        TeWeightsReport *handle = nullptr;
        auto *const callbacks = callbacks_.get();
        const auto status = te_engine_load_weights_with(handle_, path.c_str(), &raw, &handle);
        const std::unique_ptr<TeWeightsReport, TeStatus (*)(TeWeightsReport *)> guard(handle, te_weights_report_free);
        finish(callbacks, status);
        auto view = detail::sized<TeWeightsReportView>();
        detail::check(te_weights_report_view(handle, &view));
        return {{view.missing, view.missing + view.missing_count}, {view.extra, view.extra + view.extra_count}};
    }

    /// Ends the run in progress after its step; from any thread, also from a signal handler.
    void stop() const noexcept { te_engine_stop(handle_); }

    /// The final configuration as YAML text.
    std::string config() const { return text(te_engine_config); }
    /// Table of the model's parts with their numbers of parameters.
    std::string summary() const { return text(te_engine_summary); }

    TeEngine *handle() const noexcept { return handle_; }

  private:
    class Report {
      public:
        explicit Report(TeReport *handle) : handle_(handle, te_report_free) {}
        TeReportView view() const {
            auto result = detail::sized<TeReportView>();
            detail::check(te_report_view(handle_.get(), &result));
            return result;
        }

      private:
        std::unique_ptr<TeReport, TeStatus (*)(TeReport *)> handle_;
    };

    template <class Call> Report run(Call call) {
        TeReport *handle = nullptr;
        auto *const callbacks = callbacks_.get();
        const auto status = call(handle_, &handle);
        Report report(handle);
        finish(callbacks, status);
        return report;
    }

    /// Ends a call. `callbacks` were taken before it, since a callback may destroy the engine; a moved-from engine has none.
    static void finish(detail::Callbacks *callbacks, TeStatus status) {
        if (callbacks != nullptr) callbacks->finish(status);
        else detail::check(status);
    }

    template <class Call> EvaluationReport evaluated(Call call) {
        const Report report = run(call);
        const auto view = report.view();
        EvaluationReport result;
        result.scenarios = view.scenarios;
        result.skipped_scenarios = view.skipped_scenarios;
        result.metrics = detail::metrics(view.metrics, view.metric_count);
        result.json = view.json;
        return result;
    }

    std::string text(TeStatus (*call)(const TeEngine *, const char **)) const {
        const char *result = nullptr;
        detail::check(call(handle_, &result));
        return result;
    }

    void close() noexcept {
        // An engine that another thread still uses is not freed, and then neither is what its callbacks work on.
        if (te_engine_free(handle_) == TE_BUSY) static_cast<void>(callbacks_.release());
    }

    std::unique_ptr<detail::Callbacks> callbacks_;
    TeEngine *handle_ = nullptr;
};

} // namespace te

#endif
