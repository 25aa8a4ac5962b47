// C++17 layer over training_engine.h: values instead of pointers, exceptions instead of status codes. Header only.
//
//   struct MySource : te::ScenarioSource { size_t size() override; te::Scenario load(size_t index) override; };
//   te::Engine engine("epochs: 5", std::make_shared<MySource>());
//   te::FitReport fit = engine.fit();
//
// What the fields mean, units and frames: see training_engine.h. An exception thrown in a callback ends the run and arrives
// unchanged at the caller of build, fit, validate or test.
#ifndef TRAINING_ENGINE_HPP
#define TRAINING_ENGINE_HPP

#include "training_engine.h"

#include <cstddef>
#include <cstdint>
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

/// Thrown by ScenarioSource::load or info: leave this scenario out, count it, go on.
class SkipScenario : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// A checked and indexed map. Share it between scenarios: std::make_shared<te::Map>("town", lanes, crosswalks).
class Map {
  public:
    Map(const std::string &name, const std::vector<Lane> &lanes, const std::vector<Crosswalk> &crosswalks = {});
    ~Map() { te_map_free(handle_); }
    Map(Map &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Map &operator=(Map &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Map(const Map &) = delete;
    Map &operator=(const Map &) = delete;
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

/// What validate and test found.
struct EvaluationReport {
    std::size_t scenarios = 0, skipped_scenarios = 0;
    Metrics metrics;
    std::string json;
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

} // namespace te

#endif
