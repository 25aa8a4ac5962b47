// How hard to accelerate or brake: the vehicle ahead, speed limit and curves, stop lines, pedestrians, road works.
#include "simulation.hpp"

#include <algorithm>
#include <limits>

namespace traffic {

double Simulation::wanted_speed(const Vehicle& v, const Lane& lane) const {
    const double by_limit = lane.speed_limit * v.driver.speed_factor;
    const double by_curve = std::sqrt(v.driver.lateral_acceleration / std::max(lane.max_curvature, 1e-4));
    return std::min(by_limit, by_curve);
}

// From here on a driver looks whether the junction is free.
double Simulation::request_distance(const Vehicle& v) const {
    const Lane& lane = town_->lanes[v.lane];
    const Junction& junction = town_->junctions[lane.junction];
    if (!junction.signalised && lane.arm % 2 != junction.major) {
        return 14.0;  // from the minor street: roll up to the line and look
    }
    return v.speed * v.speed / 3.0 + 15.0;
}

const Occupant* Simulation::leader_on(Index lane, double s, Index self) const {
    const Occupant* best = nullptr;
    for (const Occupant& other : occupancy_[lane]) {
        if (other.vehicle != self && other.rear + other.front > 2.0 * s && (best == nullptr || other.rear < best->rear)) {
            best = &other;
        }
    }
    return best;
}

const Occupant* Simulation::follower_on(Index lane, double s, Index self) const {
    const Occupant* best = nullptr;
    for (const Occupant& other : occupancy_[lane]) {
        if (other.vehicle != self && other.rear + other.front <= 2.0 * s && (best == nullptr || other.front > best->front)) {
            best = &other;
        }
    }
    return best;
}

// Somebody is on the crosswalk and has not yet passed this lane.
bool Simulation::pedestrian_blocks(const Crossing& crossing) const {
    for (const Crosser& person : pedestrians_.on(crossing.crosswalk)) {
        if ((crossing.along - person.along) * person.direction > -2.3) {
            return true;
        }
    }
    return false;
}

double Simulation::choose_acceleration(const Vehicle& v) const {
    const Index self = static_cast<Index>(&v - vehicles_.data());
    const Temperament& who = v.driver;
    const double middle = v.front(v.s) - v.body.length / 2.0;
    const double horizon = std::max(45.0, v.speed * v.speed / 3.0 + 25.0);
    double wanted = std::numeric_limits<double>::max();
    double strongest = 0.0;  // of all interactions

    // A vehicle whose rear is `gap` ahead, or a line to stop at.
    const auto follow = [&](double gap, double speed) {
        strongest = std::max(strongest, interaction(who, v.speed, gap, speed, who.standstill_gap));
    };
    const auto stop_at = [&](double gap) {
        strongest = std::max(strongest, interaction(who, v.speed, gap, 0.0, 0.4));
    };

    Index lane = v.lane;
    std::size_t next_road = 0;
    for (double base = -v.s; lane != none && base < horizon;) {
        const Lane& here = town_->lanes[lane];
        const double by_lane = wanted_speed(v, here);
        wanted = std::min(wanted, base <= 0.0 ? by_lane : std::sqrt(by_lane * by_lane + 2.6 * base));

        if (const Occupant* leader = leader_on(lane, middle - v.s - base, self)) {
            follow(base + leader->rear - v.body.front_overhang, vehicles_[leader->vehicle].speed);
        }
        // Who leaves from the same lane to another one is still in the way at first.
        for (const auto& [sibling, together] : here.siblings) {
            const double tail = v.rear(0.0) - base;  // own tail on this connector
            for (const Occupant& other : occupancy_[sibling]) {
                const double own_middle = middle - v.s - base;
                if (other.vehicle != self && other.rear < together && tail < together && other.rear + other.front > 2.0 * own_middle) {
                    follow(base + other.rear - v.body.front_overhang, vehicles_[other.vehicle].speed);
                }
            }
        }
        for (const Crossing& crossing : here.crossings) {
            const double gap = base + crossing.from - 1.0 - v.body.front_overhang;
            if (gap > -0.6 && gap < horizon && pedestrian_blocks(crossing)) {
                stop_at(gap);
            }
        }
        if (!here.connector && base + here.closed_from > 0.0) {
            stop_at(base + here.closed_from - 18.0 - v.body.front_overhang);
        }
        if (here.connector) {
            base += here.center.length();
            lane = here.target;
            ++next_road;
            continue;
        }
        const double to_line = base + here.center.length() - v.body.front_overhang;
        Index connector = none;
        if (next_road < v.plan.size()) {
            connector = town_->connector_to(lane, v.plan[next_road]);
        }
        if (here.junction != none && (connector == none || !v.has_grant(connector))) {
            if (lane != v.lane || to_line < request_distance(v)) {
                stop_at(to_line - 0.6);
            }
            break;
        }
        base += here.center.length();
        lane = connector;
    }
    // While changing lanes also behind whoever is ahead in the old lane.
    if (v.from_lane != none && std::fabs(v.lateral() - v.sideways) > 0.6) {
        const double s = town_->lanes[v.from_lane].center.project(v.front_axle);
        if (const Occupant* leader = leader_on(v.from_lane, middle - v.s + s, self)) {
            follow(leader->rear - v.front(s), vehicles_[leader->vehicle].speed);
        }
    }
    const double free = free_acceleration(who, v.speed, wanted);
    return std::clamp(free - strongest, -hardest_braking, who.acceleration);
}

}  // namespace traffic
