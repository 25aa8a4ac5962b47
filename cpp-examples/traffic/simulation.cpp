// The step, arrivals and departures, motion along the lanes, and the recording.
#include "simulation.hpp"

#include "signals.hpp"

#include <algorithm>

namespace traffic {
namespace {

// Share of a lane change that is done after the fraction `u` of its length: no jump in position, slope or curvature.
double smooth_step(double u) {
    u = std::clamp(u, 0.0, 1.0);
    return u * u * u * (10.0 + u * (6.0 * u - 15.0));
}

Body draw_body(Kind kind, bool ego_like, Random& random) {
    if (kind == Kind::lorry) {
        return {7.4, 2.4, 4.3, 1.3};
    }
    if (kind == Kind::bicycle) {
        return {1.8, 0.6, 1.1, 0.35};
    }
    if (ego_like) {
        return {5.176, 2.297, 3.089, 0.96};  // the ego vehicle of the planner
    }
    const double length = random.uniform(3.9, 4.9);
    return {length, random.uniform(1.7, 1.9), 0.6 * length, 0.19 * length};
}

}  // namespace

bool Vehicle::has_grant(Index connector) const {
    return std::find(granted.begin(), granted.end(), connector) != granted.end();
}

double Vehicle::lateral() const {
    return from_lane == none ? sideways : sideways + change_offset * (1.0 - smooth_step(change_done / change_length));
}

// The tail follows where the front has been.
bool Vehicle::tail_in_old_lane() const {
    const double done = (change_done - body.behind_front_axle()) / change_length;
    return from_lane != none && std::fabs(change_offset) * (1.0 - smooth_step(done)) > 0.6;
}

Simulation::Simulation(std::shared_ptr<const Town> town, const std::string& log_name, std::uint64_t seed)
    : town_(std::move(town)),
      random_(seed),
      pedestrians_(*town_, 10 + Random(seed + 1).below(4 * town_->junctions.size() + 10), seed + 2),
      occupancy_(town_->lanes.size()),
      granted_(town_->lanes.size()) {
    signals_ = std::make_shared<const Signals>(*town_, random_);
    recording_.log_name = log_name;
    recording_.town = town_;
    recording_.signals = signals_;
    density_ = random_.uniform(0.6, 1.3);
    populate();
}

Recording Simulation::record(std::size_t warm_up_steps, std::size_t steps) {
    for (std::size_t i = 0; i < warm_up_steps; ++i) {
        step();
    }
    recording_now_ = true;
    recording_.start_time = time_;
    for (Vehicle& v : vehicles_) {
        Track& track = recording_.tracks[v.track];
        track.lanes.clear();
        if (v.previous_lane != none) {
            track.lanes.emplace_back(v.previous_lane, 0);
        }
        track.lanes.emplace_back(v.lane, 0);
    }
    double speed_sum = 0.0, count = 0.0;
    for (std::size_t i = 0; i < steps; ++i) {
        write_states();
        for (const Vehicle& v : vehicles_) {
            speed_sum += v.speed;
            count += 1.0;
        }
        step();
    }
    for (const Vehicle& v : vehicles_) {
        recording_.tracks[v.track].planned_roads.assign(v.plan.begin(), v.plan.end());
    }
    auto& tracks = recording_.tracks;
    tracks.erase(std::remove_if(tracks.begin(), tracks.end(), [](const Track& t) { return t.states.empty(); }), tracks.end());
    for (const Track& track : tracks) {
        ++(track.kind == Kind::pedestrian ? recording_.pedestrians : recording_.vehicles);
    }
    recording_.mean_speed = count > 0.0 ? speed_sum / count : 0.0;
    return std::move(recording_);
}

void Simulation::step() {
    spawn();
    update_occupancy();
    for (Vehicle& v : vehicles_) {
        extend_plan(v);
    }
    grant_junctions();
    change_lanes();
    std::vector<double> accelerations;
    accelerations.reserve(vehicles_.size());
    for (const Vehicle& v : vehicles_) {
        accelerations.push_back(choose_acceleration(v));
    }
    for (Index i = 0; i < vehicles_.size(); ++i) {
        // Feet take time: accelerating builds up slowly, braking quickly.
        Vehicle& v = vehicles_[i];
        v.acceleration += std::clamp(accelerations[i] - v.acceleration, -12.0 * time_step, 5.0 * time_step);
        move(v);
    }
    vehicles_.erase(std::remove_if(vehicles_.begin(), vehicles_.end(), [](const Vehicle& v) { return v.lane == none; }),
                    vehicles_.end());
    update_occupancy();
    pedestrians_.step(time_step, [this](Index crosswalk, double seconds) { return may_walk(crosswalk, seconds); });
    time_ += time_step;
}

void Simulation::populate() {
    next_arrival_.assign(town_->lanes.size(), -1.0);
    for (Index lane = 0; lane < town_->lanes.size(); ++lane) {
        const Lane& here = town_->lanes[lane];
        if (here.connector) {
            continue;
        }
        if (town_->roads[here.road].from == none) {
            next_arrival_[lane] = random_.uniform(0.0, 8.0);
        }
        for (double s = random_.uniform(8.0, 60.0); s < here.center.length() - 25.0; s += random_.uniform(14.0, 130.0) / density_) {
            if (s < here.closed_from - 30.0 || s > here.closed_to + 10.0) {
                place_vehicle(lane, s, 0.5);
            }
        }
    }
}

void Simulation::spawn() {
    for (Index lane = 0; lane < town_->lanes.size(); ++lane) {
        if (next_arrival_[lane] < 0.0 || time_ < next_arrival_[lane]) {
            continue;
        }
        const Occupant* ahead = leader_on(lane, 0.0, none);
        if (ahead != nullptr && ahead->rear < 12.0 + 1.5 * town_->lanes[lane].speed_limit) {
            continue;  // the entrance is full; wait
        }
        place_vehicle(lane, 6.0, 0.8);
        update_occupancy();
        next_arrival_[lane] = time_ - std::log(1.0 - random_.uniform()) * 15.0 / density_ + 2.0;
    }
}

void Simulation::place_vehicle(Index lane, double s, double speed_share) {
    const Lane& here = town_->lanes[lane];
    Vehicle v;
    const double draw = random_.uniform();
    const bool kerb_lane = here.right_neighbor == none;
    v.kind = kerb_lane && draw < 0.09 ? Kind::bicycle : draw < 0.15 ? Kind::lorry : Kind::car;
    const bool ego_like = v.kind == Kind::car && random_.chance(0.45);
    v.body = draw_body(v.kind, ego_like, random_);
    v.driver = v.kind == Kind::bicycle ? bicycle_temperament(random_)
               : v.kind == Kind::lorry ? lorry_temperament(random_)
                                       : draw_temperament(random_);
    v.sideways = v.kind == Kind::bicycle ? -0.9 : v.kind == Kind::lorry ? 0.0 : random_.normal(0.0, 0.08);
    v.lane = lane;
    v.s = s;
    v.speed = v.rear_speed = speed_share * wanted_speed(v, here);
    v.track = recording_.tracks.size();
    extend_plan(v);
    const Point along = here.center.direction(s);
    v.front_axle = here.center.at(s) + v.sideways * left_of(along);
    v.heading = angle_of(along);
    v.rear_axle = v.front_axle - v.body.wheel_base * along;
    Track track;
    track.id = std::string(v.kind == Kind::bicycle ? "bicycle_" : v.kind == Kind::lorry ? "lorry_" : "car_") +
               std::to_string(v.track);
    track.kind = v.kind;
    track.length = v.body.length;
    track.width = v.body.width;
    track.rear_axle_to_center = v.body.rear_axle_to_center();
    track.can_be_ego = ego_like;
    track.temperament = v.driver.name;
    track.first_step = recording_.steps;
    track.lanes.emplace_back(lane, recording_.steps);
    recording_.tracks.push_back(std::move(track));
    vehicles_.push_back(std::move(v));
}

void Simulation::extend_plan(Vehicle& v) {
    const Lane& here = town_->lanes[v.lane];
    if (!here.connector && here.junction != none) {
        // Too late to reach the lane for the next road of the plan: take what this lane offers.
        const double left = here.center.length() - v.front(v.s);
        if (left < 22.0 + v.speed * v.speed / 5.0 && v.from_lane == none && !v.plan.empty() && town_->connector_to(v.lane, v.plan.front()) == none) {
            v.plan.clear();
            const Index pick = random_.below(here.successors.size());
            v.plan.push_back(town_->lanes[town_->lanes[here.successors[pick]].target].road);
        }
    }
    Index road = !v.plan.empty() ? v.plan.back() : here.connector ? town_->lanes[here.target].road : here.road;
    while (v.plan.size() < 6) {
        const std::vector<Index> options = town_->next_roads(road);
        if (options.empty()) {
            return;  // leaves the town
        }
        // Straight on is as likely as both turns together.
        double total = 0.0;
        std::vector<double> weights;
        for (const Index option : options) {
            const int before = town_->roads[road].to_arm, after = town_->roads[option].from_arm;
            weights.push_back((before + 2) % 4 == after ? 2.0 : 1.0);
            total += weights.back();
        }
        double draw = random_.uniform(0.0, total);
        Index pick = 0;
        while (pick + 1 < options.size() && draw >= weights[pick]) {
            draw -= weights[pick++];
        }
        road = options[pick];
        v.plan.push_back(road);
    }
}

Index Simulation::next_connector(const Vehicle& v) const {
    return v.plan.empty() || town_->lanes[v.lane].connector ? none : town_->connector_to(v.lane, v.plan.front());
}

void Simulation::update_occupancy() {
    for (auto& list : occupancy_) {
        list.clear();
    }
    for (Index i = 0; i < vehicles_.size(); ++i) {
        const Vehicle& v = vehicles_[i];
        occupancy_[v.lane].push_back({i, v.rear(v.s), v.front(v.s)});
        if (v.rear(v.s) < 0.0 && v.previous_lane != none) {
            const double length = town_->lanes[v.previous_lane].center.length();
            occupancy_[v.previous_lane].push_back({i, length + v.rear(v.s), length + v.front(v.s)});
        }
        if (v.tail_in_old_lane()) {
            const double s = town_->lanes[v.from_lane].center.project(v.front_axle);
            occupancy_[v.from_lane].push_back({i, v.rear(s), v.front(s)});
        }
    }
}

void Simulation::enter_next_lane(Vehicle& v) {
    const Lane& here = town_->lanes[v.lane];
    const Index next = here.connector ? here.target : next_connector(v);
    if (next == none) {
        v.lane = none;  // out of the town
        return;
    }
    v.s -= here.center.length();
    if (here.connector) {
        v.plan.pop_front();
    }
    v.previous_lane = v.lane;
    v.from_lane = none;
    v.lane = next;
    if (recording_now_) {
        recording_.tracks[v.track].lanes.emplace_back(next, recording_.steps);
    }
}

void Simulation::move(Vehicle& v) {
    const double before = v.speed;
    v.speed = std::max(0.0, v.speed + v.acceleration * time_step);
    if (v.speed == 0.0) {
        v.acceleration = std::max(v.acceleration, 0.0);
    }
    const double travelled = 0.5 * (before + v.speed) * time_step;
    v.since_change += time_step;
    const Point old_front = v.front_axle;
    const auto point = [&](double s) {
        const Polyline& center = town_->lanes[v.lane].center;
        return center.at(s) + v.lateral() * left_of(center.direction(s));
    };
    if (travelled > 0.0) {
        // Beside the lane's middle the way is longer or shorter than the arc length: correct for it.
        v.change_done += travelled;
        double advance = travelled;
        const double reached = distance(point(v.s + advance), old_front);
        advance *= std::clamp(travelled / std::max(reached, 1e-6), 0.5, 1.5);
        v.s += advance;
        if (v.from_lane != none && v.change_done >= v.change_length) {
            v.from_lane = none;
        }
        if (v.s >= town_->lanes[v.lane].center.length()) {
            enter_next_lane(v);
            if (v.lane == none) {
                return;
            }
        }
        // The front axle goes where it is steered, the rear axle is drawn along: the kinematics of a car.
        v.front_axle = point(v.s);
        const Point axis = normalized(v.front_axle - v.rear_axle);
        v.rear_axle = v.front_axle - v.body.wheel_base * axis;
        v.heading = angle_of(axis);
        const Point course = normalized(v.front_axle - old_front);
        v.rear_speed = v.speed * std::max(0.0, dot(course, axis));
    } else {
        v.rear_speed = 0.0;
    }
    // A connector stays reserved until the tail has left it.
    const auto left_behind = [&](Index connector) {
        const Lane& lane = town_->lanes[connector];
        return v.lane != connector && v.lane != lane.source && (v.lane != lane.target || v.rear(v.s) > 0.0);
    };
    v.granted.erase(std::remove_if(v.granted.begin(), v.granted.end(), left_behind), v.granted.end());
}

void Simulation::write_states() {
    const std::size_t step = recording_.steps;
    for (const Vehicle& v : vehicles_) {
        Track& track = recording_.tracks[v.track];
        if (track.states.empty()) {
            track.first_step = step;
        }
        TrackState state{v.rear_axle.x, v.rear_axle.y, v.heading, v.rear_speed, 0.0, 0.0};
        if (!track.states.empty()) {
            const TrackState& last = track.states.back();
            state.yaw_rate = wrap_angle(state.heading - last.heading) / time_step;
            state.acceleration = (state.speed - last.speed) / time_step;
        }
        track.states.push_back(state);
    }
    for (const Pedestrian& walker : pedestrians_.all()) {
        if (walker.id >= track_of_walker_.size()) {
            track_of_walker_.resize(walker.id + 1, none);
        }
        if (track_of_walker_[walker.id] == none) {
            Track track;
            track.id = "pedestrian_" + std::to_string(walker.id);
            track.kind = Kind::pedestrian;
            track.length = walker.length;
            track.width = walker.width;
            track.first_step = step;
            track_of_walker_[walker.id] = recording_.tracks.size();
            recording_.tracks.push_back(std::move(track));
        }
        recording_.tracks[track_of_walker_[walker.id]].states.push_back(
            {walker.position.x, walker.position.y, walker.heading, walker.speed, 0.0, 0.0});
    }
    ++recording_.steps;
}

}  // namespace traffic
