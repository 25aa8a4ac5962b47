// Lane changes after MOBIL (Kesting, Treiber, Helbing, Transportation Research Record 1999, 2007): change when it gains
// more than it costs the others, and never when somebody would have to brake hard. The route and road works press.
#include "simulation.hpp"

#include <algorithm>

namespace traffic {
namespace {
constexpr double safe_braking = 2.5;  // m/s^2, asked of the one behind
constexpr double threshold = 0.25;    // m/s^2, gain that is worth the effort
constexpr double cooldown = 5.0;      // s between two changes
}  // namespace

void Simulation::change_lanes() {
    for (Index i = 0; i < vehicles_.size(); ++i) {
        Vehicle& v = vehicles_[i];
        const Lane& here = town_->lanes[v.lane];
        if (here.connector || v.from_lane != none || v.kind == Kind::bicycle || v.since_change < cooldown ||
            v.rear(v.s) < 1.0 || (here.left_neighbor == none && here.right_neighbor == none)) {
            continue;
        }
        const Index connector = next_connector(v);
        if (connector != none && v.has_grant(connector)) {
            continue;
        }
        const auto serves_route = [&](Index lane) { return v.plan.empty() || town_->connector_to(lane, v.plan.front()) != none; };
        // How many lanes away is the next one that the route or the road works allow?
        const auto trouble = [&](Index lane) {
            const Lane& l = town_->lanes[lane];
            const bool blocked = v.s < l.closed_to && l.closed_from - v.s < 130.0;
            return !serves_route(lane) || blocked;
        };
        const auto lanes_to_go = [&](Index lane, bool to_left) {
            int count = 0;
            while (lane != none && trouble(lane)) {
                lane = to_left ? town_->lanes[lane].left_neighbor : town_->lanes[lane].right_neighbor;
                ++count;
            }
            return lane == none ? 100 : count;
        };
        for (const Index target : {here.left_neighbor, here.right_neighbor}) {
            if (target == none) {
                continue;
            }
            double bias = target == here.right_neighbor ? 0.1 : 0.0;  // keep to the right
            if (trouble(v.lane)) {
                const bool left = target == here.left_neighbor;
                const int this_way = lanes_to_go(v.lane, left), other_way = lanes_to_go(v.lane, !left);
                if (this_way >= 100 || this_way > other_way) {
                    continue;
                }
                bias += 4.0;
            } else if (trouble(target)) {
                continue;
            }
            if (try_change(i, target, bias)) {
                break;
            }
        }
    }
}

// Acceleration that the driver model chooses on `lane` at `s` behind `leader`.
double Simulation::acceleration_behind(const Vehicle& v, const Occupant* leader, double s, const Lane& lane) const {
    double a = free_acceleration(v.driver, v.speed, wanted_speed(v, lane));
    if (leader != nullptr) {
        const double gap = leader->rear - v.front(s);
        a -= interaction(v.driver, v.speed, gap, vehicles_[leader->vehicle].speed, v.driver.standstill_gap);
    }
    return std::max(a, -hardest_braking);
}

bool Simulation::try_change(Index vehicle, Index target, double bias) {
    Vehicle& v = vehicles_[vehicle];
    const Lane& here = town_->lanes[v.lane];
    const Lane& there = town_->lanes[target];
    const bool pressed = bias > 1.0;
    const double s = there.center.project(v.front_axle);
    const double length = std::clamp(3.6 * v.speed, pressed ? 13.0 : 20.0, 50.0);
    const double room = std::min(here.center.length(), here.closed_from > v.s ? here.closed_from : 1e9) - v.front(v.s);
    if (room < length + 4.0 || s + length + 6.0 > there.center.length() || (!pressed && v.speed < 3.0) ||
        (s < there.closed_to && s + length > there.closed_from - 25.0)) {
        return false;
    }
    const double middle = v.front(v.s) - v.body.length / 2.0;
    const double middle_there = middle - v.s + s;
    const Occupant* leader = leader_on(target, middle_there, vehicle);
    const Occupant* follower = follower_on(target, middle_there, vehicle);
    const Occupant* old_leader = leader_on(v.lane, middle, vehicle);
    if (leader != nullptr && leader->rear - v.front(s) < 1.5 + 0.3 * v.speed) {
        return false;
    }
    if (old_leader != nullptr &&
        old_leader->rear - v.front(v.s) + 3.0 * vehicles_[old_leader->vehicle].speed < 0.7 * length) {
        return false;  // would get stuck half-way behind the one ahead
    }
    const double now = acceleration_behind(v, old_leader, v.s, here);
    const double then = acceleration_behind(v, leader, s, there);
    if (then < -safe_braking) {
        return false;
    }
    double loss = 0.0;  // of the one behind there
    if (follower != nullptr) {
        const Vehicle& other = vehicles_[follower->vehicle];
        const double gap = v.rear(s) - follower->front;
        if (gap < 1.5 + 0.3 * other.speed) {
            return false;
        }
        const double at = follower->front - other.body.front_overhang;
        const double free_of_me = acceleration_behind(other, leader, at, there);
        const Occupant me{vehicle, v.rear(s), v.front(s)};
        const double behind_me = acceleration_behind(other, &me, at, there);
        if (behind_me < -safe_braking) {
            return false;
        }
        loss = free_of_me - behind_me;
    }
    if (then - now - v.driver.politeness * loss + bias < threshold) {
        return false;
    }
    // Only now and then, so that drivers do not act in step.
    if (!random_.chance(pressed ? 0.3 : 0.06)) {
        return false;
    }
    const Point across = left_of(there.center.direction(s));
    v.from_lane = v.lane;
    v.lane = target;
    v.s = s;
    v.change_offset = dot(v.front_axle - there.center.at(s), across) - v.sideways;
    v.change_done = 0.0;
    v.change_length = length;
    v.since_change = 0.0;
    v.previous_lane = none;
    occupancy_[target].push_back({vehicle, v.rear(s), v.front(s)});
    if (recording_now_) {
        recording_.tracks[v.track].lanes.emplace_back(target, recording_.steps);
        ++recording_.lane_changes;
    }
    return true;
}

}  // namespace traffic
