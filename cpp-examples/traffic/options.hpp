// Command line of the traffic example.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace traffic {

struct Options {
    std::size_t scenarios = 1200, logs = 24, epochs = 12;
    std::uint64_t seed = 1;
    std::size_t width = 64, depth = 2, threads = 0, batch = 4;
    double learning_rate = 4e-3;
    double max_ratio = 0.5;  // of the engine's test minFDE to that of constant velocity
    std::string out = "traffic-run";
    bool dry_run = false, help = false;
    std::vector<std::string> overrides;  // key=value for the engine's configuration
};

// Throws std::invalid_argument with a message for the user.
Options parse_options(int count, char** words);
std::string usage();

}  // namespace traffic
