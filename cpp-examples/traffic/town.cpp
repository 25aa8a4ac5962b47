// The street grid: which streets there are, how they bend, and their lanes.
#include "town.hpp"

#include <algorithm>

namespace traffic {
namespace {

constexpr double parking_bay = 2.4;

// A row or a column of the grid: a street of constant width from edge to edge of the town.
struct Street {
    int lanes = 1;
    double speed_limit = 0.0;
    bool parking = false;
    double half_width() const { return lanes * lane_width + (parking ? parking_bay : 0.0); }
};

Street make_street(Random& random) {
    Street street;
    const double kind = random.uniform();
    street.lanes = kind < 0.35 ? 1 : kind < 0.8 ? 2 : 3;
    const double limits[4] = {0.0, random.chance(0.5) ? 8.9 : 11.2, random.chance(0.5) ? 11.2 : 13.4, 15.6};
    street.speed_limit = limits[street.lanes];
    street.parking = street.lanes < 3 && random.chance(0.6);
    return street;
}

// Lanes of one direction of a street whose middle line is `middle`, in driving direction.
void add_road(Town& town, const Street& street, const Polyline& middle, Index from, int from_arm, Index to, int to_arm) {
    const Index index = town.roads.size();
    Road road;
    road.id = "road_" + std::to_string(index);
    road.from = from;
    road.from_arm = from_arm;
    road.to = to;
    road.to_arm = to_arm;
    road.parking = street.parking;
    for (int i = 0; i < street.lanes; ++i) {
        Lane lane;
        lane.id = "lane_" + std::to_string(town.lanes.size());
        lane.roadblock = road.id;
        lane.road = index;
        lane.center = middle.parallel(-(i + 0.5) * lane_width);
        lane.left = middle.offset(-i * lane_width);
        lane.right = middle.offset(-(i + 1) * lane_width);
        lane.speed_limit = street.speed_limit;
        lane.max_curvature = lane.center.max_curvature();
        lane.junction = to;
        lane.arm = to_arm;
        if (i > 0) {
            lane.left_neighbor = town.lanes.size() - 1;
        }
        if (i + 1 < street.lanes) {
            lane.right_neighbor = town.lanes.size() + 1;
        }
        road.lanes.push_back(town.lanes.size());
        town.lanes.push_back(std::move(lane));
    }
    road.kerb = middle.parallel(-street.half_width());
    if (from != none) {
        town.junctions[from].arms[static_cast<Index>(from_arm)].out_road = index;
    }
    if (to != none) {
        town.junctions[to].arms[static_cast<Index>(to_arm)].in_road = index;
    }
    town.roads.push_back(std::move(road));
}

// Both directions of a street from an arm of one junction to an arm of another, or, without `b`, out of the town.
void add_street(Town& town, const Street& street, Index a, int arm_a, Index b, int arm_b, Random& random) {
    const auto stop_line = [&](Index j, int arm) {
        const Junction& junction = town.junctions[j];
        return junction.center + junction.arms[static_cast<Index>(arm)].stop_line * junction.direction(arm);
    };
    const Point start = stop_line(a, arm_a);
    const Point leaving = town.junctions[a].direction(arm_a);
    Point end, arriving;
    if (b != none) {
        end = stop_line(b, arm_b);
        arriving = -1.0 * town.junctions[b].direction(arm_b);
    } else {
        const double bend = random.uniform(-0.45, 0.45);
        const double angle = angle_of(leaving);
        end = start + random.uniform(85.0, 125.0) * unit(angle + bend / 2.0);
        arriving = unit(angle + bend);
    }
    const Polyline middle = smooth_curve(start, leaving, end, arriving, 0.4);
    add_road(town, street, middle, a, arm_a, b, arm_b);
    add_road(town, street, middle.reversed(), b, arm_b, a, arm_a);
}

}  // namespace

Index Town::connector_to(Index lane, Index road) const {
    for (const Index c : lanes[lane].successors) {
        if (lanes[lanes[c].target].road == road) {
            return c;
        }
    }
    return none;
}

std::vector<Index> Town::next_roads(Index road) const {
    std::vector<Index> found;
    for (const Index lane : roads[road].lanes) {
        for (const Index c : lanes[lane].successors) {
            const Index next = lanes[lanes[c].target].road;
            if (std::find(found.begin(), found.end(), next) == found.end()) {
                found.push_back(next);
            }
        }
    }
    return found;
}

Town make_town(const std::string& name, std::uint64_t seed) {
    Random random(seed);
    Town town;
    town.name = name;
    const int columns = random.chance(0.5) ? 2 : 3;
    const int rows = random.chance(0.5) ? 2 : 3;
    std::vector<Street> across, along;  // rows run east, columns north
    for (int j = 0; j < rows; ++j) {
        across.push_back(make_street(random));
    }
    for (int i = 0; i < columns; ++i) {
        along.push_back(make_street(random));
    }
    // One street of each town is always wide, so that there are lanes to change.
    Street& main_street = random.chance(0.5) ? across[0] : along[0];
    main_street = {2 + static_cast<int>(random.below(2)), 13.4, false};

    // Junctions on a grid that is turned, stretched and shaken.
    const double turned = random.uniform(-pi, pi);
    const Point origin{random.uniform(200.0, 900.0), random.uniform(200.0, 900.0)};
    const double step_x = random.uniform(150.0, 195.0), step_y = random.uniform(150.0, 195.0);
    const auto junction_at = [&](int i, int j) { return static_cast<Index>(j * columns + i); };
    for (int j = 0; j < rows; ++j) {
        for (int i = 0; i < columns; ++i) {
            const Point local{i * step_x + random.uniform(-22.0, 22.0), j * step_y + random.uniform(-22.0, 22.0)};
            const Point axis = unit(turned);
            Junction junction;
            junction.center = origin + local.x * axis + local.y * left_of(axis);
            junction.angle = turned + random.uniform(-0.12, 0.12);
            const Street& row = across[static_cast<Index>(j)];
            const Street& column = along[static_cast<Index>(i)];
            for (Index arm = 0; arm < 4; ++arm) {
                const Street& own = arm % 2 == 0 ? row : column;
                const Street& other = arm % 2 == 0 ? column : row;
                junction.arms[arm].half_width = own.half_width();
                junction.arms[arm].stop_line = other.half_width() + 10.0;
            }
            junction.signalised = row.lanes + column.lanes > 2 || random.chance(0.35);
            junction.major = column.lanes > row.lanes ? 1 : 0;
            town.junctions.push_back(junction);
        }
    }

    // Streets between neighbours and out of the town. Some pieces are left out; three arms always stay.
    std::vector<int> arms_left(town.junctions.size(), 4);
    const auto leave_out = [&](Index a, Index b, double probability) {
        if (arms_left[a] <= 3 || (b != none && arms_left[b] <= 3) || !random.chance(probability)) {
            return false;
        }
        --arms_left[a];
        if (b != none) {
            --arms_left[b];
        }
        return true;
    };
    for (int j = 0; j < rows; ++j) {
        for (int i = 0; i < columns; ++i) {
            const Index here = junction_at(i, j);
            const Street& row = across[static_cast<Index>(j)];
            const Street& column = along[static_cast<Index>(i)];
            if (i + 1 < columns && !leave_out(here, junction_at(i + 1, j), 0.12)) {
                add_street(town, row, here, 0, junction_at(i + 1, j), 2, random);
            }
            if (j + 1 < rows && !leave_out(here, junction_at(i, j + 1), 0.12)) {
                add_street(town, column, here, 1, junction_at(i, j + 1), 3, random);
            }
            if (i == 0 && !leave_out(here, none, 0.25)) {
                add_street(town, row, here, 2, none, -1, random);
            }
            if (i + 1 == columns && !leave_out(here, none, 0.25)) {
                add_street(town, row, here, 0, none, -1, random);
            }
            if (j == 0 && !leave_out(here, none, 0.25)) {
                add_street(town, column, here, 3, none, -1, random);
            }
            if (j + 1 == rows && !leave_out(here, none, 0.25)) {
                add_street(town, column, here, 1, none, -1, random);
            }
        }
    }
    build_connectors(town);
    build_crosswalks(town);
    build_pavement(town);
    place_roadside(town, random);
    return town;
}

}  // namespace traffic
