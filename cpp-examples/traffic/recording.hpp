// What one run of the simulation leaves behind: the tracks of everybody, step by step, and the town that they were in.
#pragma once

#include "signals.hpp"
#include "town.hpp"

#include <memory>

namespace traffic {

constexpr double time_step = 0.1;  // s, of simulation and recording

enum class Kind { car, lorry, bicycle, pedestrian };

struct TrackState {
    double x = 0.0, y = 0.0;  // rear axle; of a pedestrian the middle
    double heading = 0.0;
    double speed = 0.0;  // along the heading
    double acceleration = 0.0;
    double yaw_rate = 0.0;
};

struct Track {
    std::string id;
    Kind kind = Kind::car;
    double length = 0.0, width = 0.0;
    double rear_axle_to_center = 0.0;
    bool can_be_ego = false;  // has the dimensions of the ego vehicle
    const char* temperament = "";
    std::size_t first_step = 0;
    std::vector<TrackState> states;
    // Lanes driven, with the step of entering each; then the roads that it still means to take.
    std::vector<std::pair<Index, std::size_t>> lanes;
    std::vector<Index> planned_roads;
};

struct Recording {
    std::string log_name;
    std::shared_ptr<const Town> town;
    std::shared_ptr<const Signals> signals;
    double start_time = 0.0;  // simulation time of step 0
    std::size_t steps = 0;
    std::vector<Track> tracks;
    std::size_t vehicles = 0, pedestrians = 0;
    double mean_speed = 0.0;  // of the vehicles, m/s
    std::size_t lane_changes = 0;
};

}  // namespace traffic
