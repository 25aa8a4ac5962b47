#include "scenario.hpp"

#include "simulation.hpp"

#include <algorithm>
#include <cstdio>
#include <map>

namespace traffic {
namespace {

constexpr double sensor_range = 100.0;  // m around the ego
constexpr double parked_range = 60.0;
constexpr double light_range = 150.0;
constexpr std::size_t present_index = history_steps - 1;
constexpr std::size_t blocks_ahead = 9;  // of the route

Point center_of(const Track& track, const TrackState& state) {
    return Point{state.x, state.y} + track.rear_axle_to_center * unit(state.heading);
}

// Road-blocks from the start of the window on, as driven, then as planned.
std::vector<std::string> route_of(const Recording& recording, const Track& track, std::size_t first, std::size_t present) {
    const Town& town = *recording.town;
    std::vector<std::string> route;
    std::size_t ahead = 0;
    bool closed = false;
    const auto add = [&](const std::string& block, std::size_t entered) {
        if (closed || (!route.empty() && route.back() == block)) {
            return;
        }
        // A route that comes back to where it was ends there.
        closed = std::find(route.begin(), route.end(), block) != route.end() || ahead >= blocks_ahead;
        if (!closed) {
            route.push_back(block);
            ahead += entered > present ? 1 : 0;
        }
    };
    std::size_t begin = 0;
    for (std::size_t i = 0; i < track.lanes.size(); ++i) {
        if (track.lanes[i].second <= first) {
            begin = i;
        }
    }
    // Lanes are entered with the front axle; the rear axle may still be in the one before.
    const Polyline& center = town.lanes[track.lanes[begin].first].center;
    const TrackState& state = track.states[first - track.first_step];
    if (begin > 0 && dot(Point{state.x, state.y} - center.points().front(), center.direction(0.0)) < 0.0) {
        --begin;
    }
    for (std::size_t i = begin; i < track.lanes.size(); ++i) {
        add(town.lanes[track.lanes[i].first].roadblock, track.lanes[i].second);
    }
    const Lane& last = town.lanes[track.lanes.back().first];
    Index road = last.road;
    for (const Index next : track.planned_roads) {
        if (road != none) {
            add(town.roads[road].id + "_to_" + town.roads[next].id, present + 1);
        }
        add(town.roads[next].id, present + 1);
        road = next;
    }
    return route;
}

std::vector<AgentState> agent_states(const Track& track, std::size_t first, const std::vector<EgoState>& ego) {
    std::vector<AgentState> states(total_steps);
    for (std::size_t t = 0; t < total_steps; ++t) {
        const std::size_t step = first + t;
        if (step < track.first_step || step >= track.first_step + track.states.size()) {
            continue;
        }
        const TrackState& state = track.states[step - track.first_step];
        const Point center = center_of(track, state);
        if (distance(center, {ego[t].x, ego[t].y}) > sensor_range) {
            continue;
        }
        const Point along = unit(state.heading);
        const Point velocity = state.speed * along + track.rear_axle_to_center * state.yaw_rate * left_of(along);
        states[t] = {center.x, center.y, state.heading, velocity.x, velocity.y, true};
    }
    return states;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return Random(a * 0x9E3779B97F4A7C15ULL + b).bits(); }

std::string hexadecimal(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

// Candidates of one recording, then a selection in which rare manoeuvres are as frequent as common ones.
void choose_scenarios(const Recording& recording, std::size_t log, std::size_t count, std::uint64_t seed,
                      std::vector<ScenarioKey>& keys) {
    Random random(seed);
    std::map<std::string, std::vector<ScenarioKey>> by_type;
    for (std::size_t k = 0; k < recording.tracks.size(); ++k) {
        const Track& track = recording.tracks[k];
        if (!track.can_be_ego) {
            continue;
        }
        const std::size_t offset = random.below(10);
        for (std::size_t p = present_index + 2 + offset; p + future_steps < track.states.size(); p += 10) {
            const std::uint64_t token = mix(mix(seed, k), p);
            by_type[classify(track, p)].push_back({log, k, track.first_step + p, hexadecimal(token), classify(track, p)});
        }
    }
    for (auto& [type, list] : by_type) {
        for (std::size_t i = list.size(); i > 1; --i) {
            std::swap(list[i - 1], list[random.below(i)]);
        }
    }
    const char* order[] = {"left_turn", "right_turn", "starting_from_stop", "stopping", "cruising", "stop_and_go",
                           "left_turn", "right_turn", "starting_from_stop", "stopping", "high_speed", "winding",
                           "cruising", "low_speed", "stationary"};
    const std::size_t before = keys.size();
    bool found = true;
    while (found && keys.size() - before < count) {
        found = false;
        for (const char* type : order) {
            auto& list = by_type[type];
            if (!list.empty() && keys.size() - before < count) {
                keys.push_back(list.back());
                list.pop_back();
                found = true;
            }
        }
    }
}

}  // namespace

std::string classify(const Track& track, std::size_t present_state) {
    const auto at = [&](std::size_t t) -> const TrackState& { return track.states[present_state + t]; };
    double turned = 0.0, wound = 0.0, slowest = 1e9, fastest = 0.0, mean = 0.0;
    for (std::size_t t = 1; t <= future_steps; ++t) {
        const double turn = wrap_angle(at(t).heading - at(t - 1).heading);
        turned += turn;
        wound += std::fabs(turn);
        slowest = std::min(slowest, at(t).speed);
        fastest = std::max(fastest, at(t).speed);
        mean += at(t).speed / static_cast<double>(future_steps);
    }
    const double now = at(0).speed, last = at(future_steps).speed;
    if (fastest < 0.5) {
        return "stationary";
    }
    if (turned > 0.8) {
        return "left_turn";
    }
    if (turned < -0.8) {
        return "right_turn";
    }
    if (now < 0.5 && last > 1.5) {
        return "starting_from_stop";
    }
    if (now > 2.0 && last < 0.5) {
        return "stopping";
    }
    if (now > 2.0 && slowest < 1.0 && last > 2.0) {
        return "stop_and_go";
    }
    if (mean < 3.0) {
        return "low_speed";
    }
    if (wound > 0.35) {
        return "winding";
    }
    return fastest > 15.0 ? "high_speed" : "cruising";
}

TownScenario Corpus::cut(std::size_t index) const {
    const ScenarioKey& key = keys[index];
    const Recording& recording = recordings[key.log];
    const Track& track = recording.tracks[key.track];
    const std::size_t first = key.present - present_index;
    TownScenario scenario;
    scenario.token = key.token;
    scenario.log_name = recording.log_name;
    scenario.type = key.type;
    scenario.town = recording.town;
    for (std::size_t t = 0; t < total_steps; ++t) {
        const TrackState& state = track.states[first + t - track.first_step];
        const Point along = unit(state.heading);
        const Point velocity = state.speed * along;
        const Point acceleration = state.acceleration * along + state.speed * state.yaw_rate * left_of(along);
        scenario.ego.push_back({state.x, state.y, state.heading, velocity.x, velocity.y, acceleration.x, acceleration.y});
    }
    scenario.route = route_of(recording, track, first, key.present);
    for (std::size_t k = 0; k < recording.tracks.size(); ++k) {
        const Track& other = recording.tracks[k];
        if (k == key.track || other.first_step > key.present || other.first_step + other.states.size() <= key.present) {
            continue;
        }
        ScenarioAgent agent{other.id, other.kind, false, other.length, other.width, agent_states(other, first, scenario.ego)};
        if (agent.states[present_index].valid) {
            scenario.agents.push_back(std::move(agent));
        }
    }
    const Point here{scenario.ego[present_index].x, scenario.ego[present_index].y};
    for (std::size_t k = 0; k < recording.town->parked.size(); ++k) {
        const Box& box = recording.town->parked[k];
        if (distance(box.center, here) < parked_range) {
            const AgentState still{box.center.x, box.center.y, box.heading, 0.0, 0.0, true};
            scenario.agents.push_back({"parked_" + std::to_string(k), Kind::car, true, box.length, box.width,
                                       std::vector<AgentState>(total_steps, still)});
        }
    }
    for (const StaticObject& object : recording.town->static_objects) {
        if (distance(object.box.center, here) < sensor_range) {
            scenario.static_objects.push_back(object);
        }
    }
    const double time = recording.start_time + static_cast<double>(key.present) * time_step;
    for (const Junction& junction : recording.town->junctions) {
        if (!junction.signalised || distance(junction.center, here) > light_range) {
            continue;
        }
        for (const Index connector : junction.connectors) {
            const Lane& lane = recording.town->lanes[connector];
            scenario.lights.emplace_back(connector, recording.signals->color(lane.junction, lane.arm, time));
        }
    }
    return scenario;
}

Corpus make_corpus(std::size_t scenarios, std::size_t logs, std::uint64_t seed) {
    Corpus corpus;
    for (std::size_t log = 0; log < logs; ++log) {
        char name[32];
        std::snprintf(name, sizeof name, "town_%03zu", log);
        const std::uint64_t own = mix(seed, log);
        const auto town = std::make_shared<const Town>(make_town(name, own));
        // Enough time for the wanted number of scenarios: a log has some twenty vehicles that can be the ego.
        const std::size_t wanted = scenarios * (log + 1) / logs - scenarios * log / logs;
        Simulation simulation(town, name, own + 1);
        corpus.recordings.push_back(simulation.record(250, 500 + 8 * wanted));
        choose_scenarios(corpus.recordings.back(), log, wanted, own + 2, corpus.keys);
    }
    return corpus;
}

}  // namespace traffic
