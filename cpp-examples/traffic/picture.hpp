// Draws one scenario as an SVG file: the map with lights, everybody on it, what happened and what was planned.
#pragma once

#include "scenario.hpp"

namespace traffic {

struct PlannedPath {
    double probability = 0.0;
    std::vector<Point> points;  // rear axle of the ego, future_steps of them
};

struct PredictedPath {
    std::string agent;
    std::vector<Point> points;  // box centre
};

struct Picture {
    TownScenario scenario;
    std::vector<PlannedPath> candidates;  // empty: only what happened is drawn
    std::size_t best = 0;
    std::vector<PredictedPath> agents;
    std::vector<std::pair<std::string, std::string>> facts;  // name and value, for the panel
};

// Writes the file whole or not at all; throws std::runtime_error if it cannot.
void write_picture(const Picture& picture, const std::string& path);

}  // namespace traffic
