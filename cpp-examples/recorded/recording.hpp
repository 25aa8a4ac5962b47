// Recorded scenarios: one gzipped JSON file each.
//
// A file holds `token`, `log_name`, `scenario_type`, `ego` (arrays of 101 frames at 10 Hz, index 20 is the present; rear axle), `agents`
// (arrays of 101 frames with `valid`; box centre), `static_objects`, `map` (`lanes`, `crosswalks`) and `route_roadblock_ids`.
#pragma once

#include "training_engine.hpp"

#include <filesystem>
#include <string>
#include <vector>

/// All *.json.gz files below a folder, sorted.
std::vector<std::filesystem::path> find_recordings(const std::filesystem::path &folder);

/// Reads one scenario with a map of its own; throws std::runtime_error that names the file.
te::Scenario read_recording(const std::filesystem::path &path);

/// Name of the recording that a scenario was cut from: scenarios of one recording overlap and must not be split.
std::string recording_of(const te::Scenario &scenario);
