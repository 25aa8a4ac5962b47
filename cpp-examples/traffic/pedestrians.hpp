// People on foot: they follow the pavements and cross at crosswalks when it is their turn.
#pragma once

#include "town.hpp"

#include <functional>

namespace traffic {

struct Pedestrian {
    std::size_t id = 0;
    Index edge = none;     // of the pavement
    Index next = none;     // edge that comes then, once chosen
    double s = 0.0;        // of the point that the walker heads for, a step ahead
    double speed = 0.0;
    double wanted_speed = 1.3;
    double sideways = 0.0;  // habit of walking left or right of the line
    double length = 0.6, width = 0.6;
    Point position;
    double heading = 0.0;
};

// Somebody on a crosswalk: distance from its first end and walking direction (+1 away from it, -1 towards it).
struct Crosser {
    double along = 0.0;
    double direction = 1.0;
};

class Pedestrians {
public:
    Pedestrians(const Town& town, std::size_t count, std::uint64_t seed);

    // `may_cross(crosswalk, seconds)`: is it safe and allowed to step on it now for so long?
    void step(double dt, const std::function<bool(Index, double)>& may_cross);

    const std::vector<Pedestrian>& all() const { return walkers_; }
    const std::vector<Crosser>& on(Index crosswalk) const { return crossing_[crosswalk]; }

private:
    Pedestrian make(Index edge, double s);
    Index choose_next(Index edge);
    Point target(const Pedestrian& walker) const;
    void list_crossers();

    const Town& town_;
    Random random_;
    std::size_t wanted_count_;
    std::size_t next_id_ = 0;
    std::vector<Pedestrian> walkers_;
    std::vector<std::vector<Crosser>> crossing_;
    std::vector<Index> entrances_;  // edges that start at the edge of the town
};

}  // namespace traffic
