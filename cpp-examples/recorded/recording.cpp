#include "recording.hpp"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <zlib.h>

using nlohmann::json;

namespace {

std::string read_gzip(const std::filesystem::path &path) {
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
    if (!file) throw std::runtime_error("cannot be opened");
    std::string text;
    char buffer[1 << 16];
    int count = 0;
    while ((count = gzread(file.get(), buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<std::size_t>(count));
    if (count < 0) throw std::runtime_error("is not a whole gzip file");
    return text;
}

std::vector<te::Point> points(const json &array) {
    std::vector<te::Point> result;
    for (const auto &point : array) result.push_back({point.at(0).get<double>(), point.at(1).get<double>()});
    return result;
}

/// Frame t of a table of arrays.
double at(const json &table, const char *name, std::size_t t) { return table.at(name).at(t).get<double>(); }

std::shared_ptr<const te::Map> read_map(const std::string &name, const json &map) {
    std::vector<te::Lane> lanes;
    for (const auto &source : map.at("lanes")) {
        te::Lane lane;
        lane.id = source.at("id");
        lane.roadblock_id = source.at("roadblock_id");
        lane.kind = source.at("type") == "lane_connector" ? te::LaneKind::connector : te::LaneKind::lane;
        lane.centerline = points(source.at("centerline"));
        lane.left = points(source.at("left"));
        lane.right = points(source.at("right"));
        lane.successors = source.at("successors").get<std::vector<std::string>>();
        if (const auto &limit = source.at("speed_limit_mps"); !limit.is_null()) lane.speed_limit = limit.get<double>();
        lanes.push_back(std::move(lane));
    }
    std::vector<te::Crosswalk> crosswalks;
    for (const auto &source : map.at("crosswalks")) crosswalks.push_back({source.at("id"), points(source.at("polygon"))});
    return std::make_shared<te::Map>(name, lanes, crosswalks);
}

te::Agent read_agent(const json &source) {
    te::Agent agent;
    agent.id = source.at("id");
    const std::string type = source.at("type");
    agent.kind = type == "pedestrian" ? te::AgentKind::pedestrian : type == "bicycle" ? te::AgentKind::bicycle : te::AgentKind::vehicle;
    for (std::size_t t = 0; t < te::total_steps; ++t) {
        if (!source.at("valid").at(t).get<bool>()) {
            agent.states.emplace_back();
            continue;
        }
        agent.states.push_back({at(source, "x", t), at(source, "y", t), at(source, "heading", t), at(source, "vx", t), at(source, "vy", t),
                                at(source, "width", t), at(source, "length", t), 1});
    }
    return agent;
}

te::Scenario convert(const json &source) {
    te::Scenario scenario;
    scenario.token = source.at("token");
    scenario.log_name = source.at("log_name");
    scenario.scenario_type = source.at("scenario_type");
    scenario.map = read_map(scenario.token, source.at("map"));
    scenario.route = source.at("route_roadblock_ids").get<std::vector<std::string>>();

    const auto &ego = source.at("ego");
    for (std::size_t t = 0; t < te::total_steps; ++t)
        scenario.ego.push_back({at(ego, "x", t), at(ego, "y", t), at(ego, "heading", t), at(ego, "vx", t), at(ego, "vy", t), at(ego, "ax", t),
                                at(ego, "ay", t)});
    const double length = ego.at("length"), to_center = ego.at("rear_axle_to_center");
    scenario.vehicle = {ego.at("width"), length / 2 + to_center, length / 2 - to_center, ego.at("wheel_base")};

    for (const auto &agent : source.at("agents")) scenario.agents.push_back(read_agent(agent));
    for (const auto &object : source.at("static_objects")) {
        const std::string type = object.at("type");
        const auto kind = type == "traffic_cone" ? te::StaticKind::traffic_cone
                          : type == "barrier"    ? te::StaticKind::barrier
                                                 : te::StaticKind::generic;
        scenario.static_objects.push_back(
            {kind, 0, object.at("x"), object.at("y"), object.at("heading"), object.at("width"), object.at("length")});
    }
    for (const auto &lane : source.at("map").at("lanes")) {
        const std::string light = lane.at("traffic_light");
        if (light == "green") scenario.lights.push_back({lane.at("id"), te::LightState::green});
        if (light == "yellow") scenario.lights.push_back({lane.at("id"), te::LightState::yellow});
        if (light == "red") scenario.lights.push_back({lane.at("id"), te::LightState::red});
    }
    return scenario;
}

} // namespace

std::vector<std::filesystem::path> find_recordings(const std::filesystem::path &folder) {
    const std::string ending = ".json.gz";
    std::vector<std::filesystem::path> result;
    for (const auto &entry : std::filesystem::recursive_directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0)
            result.push_back(entry.path());
    }
    std::sort(result.begin(), result.end());
    return result;
}

te::Scenario read_recording(const std::filesystem::path &path) {
    try {
        return convert(json::parse(read_gzip(path)));
    } catch (const std::exception &error) {
        throw std::runtime_error(path.string() + ": " + error.what());
    }
}

std::string recording_of(const te::Scenario &scenario) { return scenario.log_name.substr(0, scenario.log_name.find("/ego")); }
