// Scenarios cut out of recordings: 2 s of history, the present, 8 s of future around one vehicle, at 10 Hz.
#pragma once

#include "recording.hpp"

namespace traffic {

constexpr std::size_t history_steps = 21;  // the last one is the present
constexpr std::size_t future_steps = 80;
constexpr std::size_t total_steps = history_steps + future_steps;

struct EgoState {
    double x = 0, y = 0, heading = 0, vx = 0, vy = 0, ax = 0, ay = 0;  // rear axle, global frame
};

struct AgentState {
    double x = 0, y = 0, heading = 0, vx = 0, vy = 0;  // box centre, global frame
    bool valid = false;
};

struct ScenarioAgent {
    std::string id;
    Kind kind = Kind::car;
    bool parked = false;
    double length = 0, width = 0;
    std::vector<AgentState> states;
};

struct TownScenario {
    std::string token, log_name, type;
    std::shared_ptr<const Town> town;
    std::vector<EgoState> ego;
    std::vector<ScenarioAgent> agents;
    std::vector<StaticObject> static_objects;
    std::vector<std::string> route;             // road-blocks in driving order
    std::vector<std::pair<Index, Light>> lights;  // connector, colour at the present step
};

// Where a scenario lies in its recording.
struct ScenarioKey {
    std::size_t log = 0, track = 0, present = 0;
    std::string token, type;
};

// All recordings of a run and the scenarios chosen from them.
struct Corpus {
    std::vector<Recording> recordings;
    std::vector<ScenarioKey> keys;
    std::size_t size() const { return keys.size(); }
    TownScenario cut(std::size_t index) const;
};

// Label from the motion to come, such as left_turn, stopping or cruising.
std::string classify(const Track& track, std::size_t present_state);

// `logs` recordings of different towns, traffic and hours, with about `scenarios` scenarios of all types. The same seed
// gives the same corpus.
Corpus make_corpus(std::size_t scenarios, std::size_t logs, std::uint64_t seed);

}  // namespace traffic
