// Who may enter a junction. A vehicle needs a grant for its connector before it crosses the stop line. A grant is given
// only while no vehicle that holds one for a conflicting connector still has the conflict ahead of it, so paths that cross
// are never used at once; lights, right of way, room behind the junction and patience decide who gets it first.
#include "simulation.hpp"

#include <algorithm>

namespace traffic {

// Arc length of the front axle on a connector, also before it and beyond its end; far past it when the vehicle has gone.
double Simulation::place_on(const Vehicle& v, Index connector) const {
    const Lane& lane = town_->lanes[connector];
    if (v.lane == connector) {
        return v.s;
    }
    if (v.lane == lane.source) {
        return v.s - town_->lanes[lane.source].center.length();
    }
    return v.lane == lane.target ? v.s + lane.center.length() : 1e6;
}

void Simulation::grant_junctions() {
    for (auto& list : granted_) {
        list.clear();
    }
    for (Index i = 0; i < vehicles_.size(); ++i) {
        for (const Index connector : vehicles_[i].granted) {
            granted_[connector].push_back(i);
        }
    }
    std::vector<Index> queue;
    for (Index lane = 0; lane < town_->lanes.size(); ++lane) {
        const Lane& here = town_->lanes[lane];
        if (here.connector || here.junction == none) {
            continue;
        }
        queue.clear();
        for (const Occupant& other : occupancy_[lane]) {
            if (vehicles_[other.vehicle].lane == lane) {
                queue.push_back(other.vehicle);
            }
        }
        std::sort(queue.begin(), queue.end(), [&](Index a, Index b) { return vehicles_[a].s > vehicles_[b].s; });
        const Light light = signals_->color(here.junction, here.arm, time_);
        bool way_is_free = true;  // nobody ahead has to stop at the line
        for (const Index i : queue) {
            Vehicle& v = vehicles_[i];
            const Index connector = next_connector(v);
            const double to_line = here.center.length() - v.front(v.s);
            const bool held = connector != none && v.has_grant(connector);
            if (held && to_line > 0.0) {
                const double braking_needed = v.speed * v.speed / (2.0 * std::max(to_line - 0.3, 0.01));
                const bool stop = light != Light::green && light != Light::off && braking_needed < 3.0;
                if (stop || !way_is_free) {
                    v.granted.erase(std::find(v.granted.begin(), v.granted.end(), connector));
                    auto& list = granted_[connector];
                    list.erase(std::find(list.begin(), list.end(), i));
                    way_is_free = false;
                }
            } else if (!held && way_is_free) {
                way_is_free = connector != none && v.from_lane == none && to_line > 0.0 &&
                              to_line < request_distance(v) && may_enter(v, connector);
                if (way_is_free) {
                    v.waiting = 0.0;
                    v.granted.push_back(connector);
                    granted_[connector].push_back(i);
                } else if (to_line < 4.0 && light != Light::red) {
                    v.waiting += time_step;
                }
            }
        }
    }
}

bool Simulation::may_enter(Vehicle& v, Index connector) {
    const Lane& lane = town_->lanes[connector];
    const Light light = signals_->color(lane.junction, lane.arm, time_);
    if (light == Light::red || light == Light::yellow) {
        return false;
    }
    if (light == Light::green && v.speed < 0.5 && signals_->green_for(lane.junction, lane.arm, time_) < v.driver.reaction) {
        return false;  // has not noticed yet
    }
    return has_room_behind(v, lane) && others_are_clear(v, lane) && !must_give_way(v, lane);
}

// Is there space for this vehicle, and for those that go there before it, between the junction and the end of a queue?
bool Simulation::has_room_behind(const Vehicle& v, const Lane& connector) const {
    const Occupant* last = leader_on(connector.target, -1e3, none);
    if (last == nullptr || vehicles_[last->vehicle].speed > 2.5) {
        return true;
    }
    double needed = v.body.length + 2.5;
    for (const Index other : town_->junctions[connector.junction].connectors) {
        if (town_->lanes[other].target != connector.target) {
            continue;
        }
        for (const Index i : granted_[other]) {
            if (vehicles_[i].lane != connector.target) {
                needed += vehicles_[i].body.length + 2.5;
            }
        }
    }
    return last->rear > needed;
}

bool Simulation::others_are_clear(const Vehicle& v, const Lane& connector) const {
    for (const Conflict& conflict : connector.conflicts) {
        for (const Index i : granted_[conflict.other]) {
            const Vehicle& other = vehicles_[i];
            if (&other != &v && other.rear(place_on(other, conflict.other)) < conflict.other_to) {
                return false;
            }
        }
    }
    return true;
}

// Left turns give way to oncoming traffic; without signals the minor street gives way to the major one. Somebody whose
// patience is at an end is let in by the others, who have no grant yet and can still stop.
bool Simulation::must_give_way(const Vehicle& v, const Lane& connector) const {
    const Junction& junction = town_->junctions[connector.junction];
    const bool impatient = v.waiting > v.driver.patience;
    for (const Conflict& conflict : connector.conflicts) {
        const Lane& other = town_->lanes[conflict.other];
        const Light other_light = signals_->color(connector.junction, other.arm, time_);
        if (other_light == Light::green || other_light == Light::off) {
            for (const Occupant& occupant : occupancy_[other.source]) {
                const Vehicle& waiting = vehicles_[occupant.vehicle];
                if (waiting.lane == other.source && waiting.waiting > std::max(waiting.driver.patience, v.waiting) &&
                    next_connector(waiting) == conflict.other && has_room_behind(waiting, other)) {
                    return true;
                }
            }
        }
        if (impatient) {
            continue;
        }
        const bool same_street = other.arm % 2 == connector.arm % 2;
        bool yields = same_street && connector.turn == Turn::left && other.turn != Turn::left;
        if (junction.signalised) {
            yields = yields && other_light == Light::green;
        } else if (!same_street) {
            yields = connector.arm % 2 != junction.major;
        }
        if (!yields) {
            continue;
        }
        const double length = town_->lanes[other.source].center.length();
        for (const Occupant& occupant : occupancy_[other.source]) {
            const Vehicle& coming = vehicles_[occupant.vehicle];
            if (coming.lane != other.source || coming.has_grant(conflict.other) || next_connector(coming) != conflict.other) {
                continue;
            }
            const double to_line = length - occupant.front;
            const bool queue_head = to_line < 8.0 && coming.speed < 2.0;
            if (queue_head || to_line / std::max(coming.speed, 0.1) < v.driver.critical_gap) {
                return true;
            }
        }
    }
    return false;
}

// For pedestrians: do the lights give enough time, and can every driver still stop?
bool Simulation::may_walk(Index crosswalk, double seconds) const {
    const Crosswalk& walk = town_->crosswalks[crosswalk];
    const Light light = signals_->color(walk.junction, walk.arm, time_);
    if (light == Light::green || light == Light::yellow) {
        return false;
    }
    if (light == Light::red && signals_->until_green(walk.junction, walk.arm, time_) < seconds + 0.5) {
        return false;
    }
    for (const auto& [connector, place] : walk.crossed_by) {
        const Lane& lane = town_->lanes[connector];
        const Crossing& crossing = lane.crossings[place];
        const auto can_stop = [&](const Vehicle& v) {
            const double s = place_on(v, connector);
            if (v.rear(s) > crossing.to) {
                return true;
            }
            const double room = crossing.from - 1.5 - v.front(s);
            return room > 0.0 && v.speed * v.speed / (2.0 * room) < 2.2;
        };
        for (const Index i : granted_[connector]) {
            if (!can_stop(vehicles_[i])) {
                return false;
            }
        }
        // Those on their way to the line without a grant stop there anyway, in front of the crosswalk.
    }
    return true;
}

}  // namespace traffic
