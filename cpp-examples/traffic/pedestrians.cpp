#include "pedestrians.hpp"

#include <algorithm>

namespace traffic {
namespace {
constexpr double stride = 1.0;  // how far ahead a walker looks
}

Pedestrians::Pedestrians(const Town& town, std::size_t count, std::uint64_t seed)
    : town_(town), random_(seed), wanted_count_(count), crossing_(town.crosswalks.size()) {
    for (Index e = 0; e < town.pavement.edges.size(); ++e) {
        if (town.pavement.outer[town.pavement.edges[e].from]) {
            entrances_.push_back(e);
        }
    }
    while (walkers_.size() < count) {
        const Index edge = random_.below(town.pavement.edges.size());
        if (town.pavement.edges[edge].crosswalk == none) {
            walkers_.push_back(make(edge, random_.uniform(0.0, town.pavement.edges[edge].path.length())));
        }
    }
}

Pedestrian Pedestrians::make(Index edge, double s) {
    Pedestrian walker;
    walker.id = next_id_++;
    walker.edge = edge;
    walker.s = s;
    walker.wanted_speed = std::max(0.7, random_.normal(1.35, 0.22));
    walker.speed = walker.wanted_speed;
    walker.sideways = random_.uniform(-0.45, 0.45);
    walker.length = walker.width = random_.uniform(0.5, 0.75);
    walker.position = target(walker);
    walker.heading = angle_of(town_.pavement.edges[edge].path.direction(s));
    return walker;
}

Point Pedestrians::target(const Pedestrian& walker) const {
    const Polyline& path = town_.pavement.edges[walker.edge].path;
    return path.at(walker.s) + walker.sideways * left_of(path.direction(walker.s));
}

Index Pedestrians::choose_next(Index edge) {
    const Pavement& pavement = town_.pavement;
    std::vector<Index> options;
    for (const Index e : pavement.leaving[pavement.edges[edge].to]) {
        const bool back = pavement.edges[e].to == pavement.edges[edge].from;
        if (!back) {
            options.push_back(e);
            if (pavement.edges[e].crosswalk != none) {
                options.push_back(e);  // twice as likely
            }
        }
    }
    return options.empty() ? none : options[random_.below(options.size())];
}

void Pedestrians::step(double dt, const std::function<bool(Index, double)>& may_cross) {
    for (Pedestrian& walker : walkers_) {
        const Pavement::Edge* edge = &town_.pavement.edges[walker.edge];
        bool wait = false;
        while (!wait && walker.edge != none && distance(walker.position, target(walker)) < stride) {
            if (walker.s < edge->path.length()) {
                walker.s = std::min(walker.s + 0.2, edge->path.length());
                continue;
            }
            if (walker.next == none) {
                walker.next = choose_next(walker.edge);
            }
            const Index next = walker.next;
            if (next == none) {
                walker.edge = none;  // has left the town
                break;
            }
            const Index crosswalk = town_.pavement.edges[next].crosswalk;
            if (crosswalk != none) {
                const double seconds = (town_.pavement.edges[next].path.length() + stride) / walker.wanted_speed;
                // Otherwise wait at the kerb.
                wait = !may_cross(crosswalk, seconds);
            }
            if (!wait) {
                walker.edge = next;
                walker.next = none;
                walker.s = 0.0;
                edge = &town_.pavement.edges[next];
            }
        }
        if (walker.edge == none) {
            continue;
        }
        const Point ahead = target(walker) - walker.position;
        const double wanted = wait ? std::min(walker.wanted_speed, 0.8 * std::max(0.0, norm(ahead) - 0.4)) : walker.wanted_speed;
        walker.speed += std::clamp(wanted - walker.speed, -2.0 * dt, 1.5 * dt);
        walker.speed = wait && walker.speed < 0.03 ? 0.0 : walker.speed;
        if (walker.speed > 0.0) {
            walker.heading = angle_of(ahead);
            walker.position = walker.position + walker.speed * dt * unit(walker.heading);
        }
    }
    walkers_.erase(std::remove_if(walkers_.begin(), walkers_.end(), [](const Pedestrian& w) { return w.edge == none; }),
                   walkers_.end());
    if (walkers_.size() < wanted_count_ && !entrances_.empty() && random_.chance(0.1)) {
        walkers_.push_back(make(entrances_[random_.below(entrances_.size())], 0.0));
    }
    list_crossers();
}

void Pedestrians::list_crossers() {
    for (auto& list : crossing_) {
        list.clear();
    }
    for (const Pedestrian& walker : walkers_) {
        const Pavement::Edge& edge = town_.pavement.edges[walker.edge];
        if (edge.crosswalk == none) {
            continue;
        }
        const Crosswalk& walk = town_.crosswalks[edge.crosswalk];
        const Point axis = normalized(walk.ends[1] - walk.ends[0]);
        const double direction = dot(edge.path.direction(0.0), axis) > 0.0 ? 1.0 : -1.0;
        crossing_[edge.crosswalk].push_back({dot(walker.position - walk.ends[0], axis), direction});
    }
}

}  // namespace traffic
