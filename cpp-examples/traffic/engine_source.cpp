#include "engine_source.hpp"

namespace traffic {
namespace {

std::vector<te::Point> to_engine(const std::vector<Point>& points) {
    std::vector<te::Point> result;
    result.reserve(points.size());
    for (const Point p : points) {
        result.push_back({p.x, p.y});
    }
    return result;
}

std::shared_ptr<const te::Map> to_engine(const Town& town) {
    std::vector<te::Lane> lanes;
    for (const Lane& lane : town.lanes) {
        te::Lane out;
        out.id = lane.id;
        out.roadblock_id = lane.roadblock;
        out.kind = lane.connector ? te::LaneKind::connector : te::LaneKind::lane;
        out.centerline = to_engine(lane.center.points());
        out.left = to_engine(lane.left);
        out.right = to_engine(lane.right);
        for (const Index next : lane.successors) {
            out.successors.push_back(town.lanes[next].id);
        }
        out.speed_limit = lane.speed_limit;
        lanes.push_back(std::move(out));
    }
    std::vector<te::Crosswalk> crosswalks;
    for (const Crosswalk& walk : town.crosswalks) {
        crosswalks.push_back({walk.id, to_engine(walk.polygon)});
    }
    return std::make_shared<const te::Map>(town.name, lanes, crosswalks);
}

te::AgentKind to_engine(Kind kind) {
    return kind == Kind::pedestrian ? te::AgentKind::pedestrian
           : kind == Kind::bicycle  ? te::AgentKind::bicycle
                                    : te::AgentKind::vehicle;
}

te::StaticKind to_engine(StaticKind kind) {
    return kind == StaticKind::cone      ? te::StaticKind::traffic_cone
           : kind == StaticKind::barrier ? te::StaticKind::barrier
                                         : te::StaticKind::construction_sign;
}

te::LightState to_engine(Light light) {
    return light == Light::green    ? te::LightState::green
           : light == Light::yellow ? te::LightState::yellow
           : light == Light::red    ? te::LightState::red
                                    : te::LightState::unknown;
}

}  // namespace

te::Scenario to_engine(const TownScenario& scenario, std::shared_ptr<const te::Map> map, bool with_future) {
    const std::size_t steps = with_future ? total_steps : history_steps;
    te::Scenario out;
    out.token = scenario.token;
    out.log_name = scenario.log_name;
    out.scenario_type = scenario.type;
    out.map = std::move(map);
    out.route = scenario.route;
    for (std::size_t t = 0; t < steps; ++t) {
        const EgoState& s = scenario.ego[t];
        out.ego.push_back({s.x, s.y, s.heading, s.vx, s.vy, s.ax, s.ay});
    }
    for (const ScenarioAgent& agent : scenario.agents) {
        te::Agent to{agent.id, to_engine(agent.kind), {}};
        to.states.reserve(steps);
        for (std::size_t t = 0; t < steps; ++t) {
            const AgentState& s = agent.states[t];
            to.states.push_back({s.x, s.y, s.heading, s.vx, s.vy, agent.width, agent.length, s.valid ? 1 : 0, 0});
        }
        out.agents.push_back(std::move(to));
    }
    for (const StaticObject& object : scenario.static_objects) {
        const Box& box = object.box;
        out.static_objects.push_back({to_engine(object.kind), 0, box.center.x, box.center.y, box.heading, box.width, box.length});
    }
    for (const auto& [connector, light] : scenario.lights) {
        out.lights.push_back({scenario.town->lanes[connector].id, to_engine(light)});
    }
    return out;
}

TownSource::TownSource(std::shared_ptr<const Corpus> corpus, std::vector<te::Split> splits)
    : corpus_(std::move(corpus)), splits_(std::move(splits)) {
    for (const Recording& recording : corpus_->recordings) {
        maps_.push_back(to_engine(*recording.town));
    }
}

te::ScenarioInfo TownSource::info(std::size_t index) {
    const ScenarioKey& key = corpus_->keys[index];
    return {key.token, corpus_->recordings[key.log].log_name, key.type, splits_[key.log]};
}

te::Scenario TownSource::load(std::size_t index) {
    return to_engine(corpus_->cut(index), maps_[corpus_->keys[index].log], true);
}

}  // namespace traffic
