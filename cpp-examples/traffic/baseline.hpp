// The constant-velocity baseline: everybody goes on as now. What a planner has to beat.
#pragma once

#include "scenario.hpp"

namespace traffic {

// Means over scenarios, metres; with a single trajectory the minimum over candidates is that trajectory's own error.
struct BaselineMetrics {
    double min_ade = 0.0;     // ego, mean over 8 s
    double min_fde = 0.0;     // ego, after 8 s
    double miss_rate = 0.0;   // share of scenarios with more than 2 m after 8 s
    double agents_ade = 0.0;  // other agents: mean over their observed future
    double agents_fde = 0.0;
    std::size_t scenarios = 0;
};

BaselineMetrics constant_velocity(const Corpus& corpus, const std::vector<std::size_t>& indices);

}  // namespace traffic
