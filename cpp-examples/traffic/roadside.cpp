// What lies beside and on the roads: pavements, parked cars, road works.
#include "town.hpp"

#include <algorithm>

namespace traffic {
namespace {

Index add_node(Pavement& pavement, Point p, bool outer) {
    pavement.nodes.push_back(p);
    pavement.leaving.emplace_back();
    pavement.outer.push_back(outer);
    return pavement.nodes.size() - 1;
}

// An edge in each direction.
void add_edges(Pavement& pavement, Index a, Index b, const std::vector<Point>& path, Index crosswalk) {
    pavement.leaving[a].push_back(pavement.edges.size());
    pavement.edges.push_back({a, b, Polyline(path), crosswalk});
    pavement.leaving[b].push_back(pavement.edges.size());
    pavement.edges.push_back({b, a, Polyline(std::vector<Point>(path.rbegin(), path.rend())), crosswalk});
}

// Cones along a taper, then barriers, close the outermost lane of a wide road for a stretch.
void place_road_works(Town& town, const Road& road, Random& random) {
    Lane& lane = town.lanes[road.lanes.back()];
    const double length = lane.center.length();
    if (length < 100.0) {
        return;
    }
    const double start = random.uniform(50.0, length - 40.0);
    const double end = start + random.uniform(12.0, 22.0);
    lane.closed_from = start;
    lane.closed_to = end;
    const auto place = [&](StaticKind kind, double s, double offset, double size_along, double size_across) {
        const Point along = lane.center.direction(s);
        const Point p = lane.center.at(s) + offset * left_of(along);
        town.static_objects.push_back({kind, {p, angle_of(along), size_along, size_across}});
    };
    place(StaticKind::sign, start - 1.0, -1.1, 0.4, 0.8);
    for (double s = start; s <= end; s += 3.0) {
        place(StaticKind::cone, s, std::min(1.0, -1.2 + 0.4 * (s - start)), 0.4, 0.4);
    }
    place(StaticKind::barrier, start + 6.0, -0.3, 0.4, 1.8);
    place(StaticKind::barrier, end - 1.0, -0.3, 0.4, 1.8);
}

}  // namespace

void build_pavement(Town& town) {
    constexpr double setback = 2.3;  // of the walking line from the kerb
    Pavement& pavement = town.pavement;
    // The ends of the crosswalks are the nodes of the corners.
    std::vector<std::array<Index, 2>> nodes;
    for (Index c = 0; c < town.crosswalks.size(); ++c) {
        const Crosswalk& walk = town.crosswalks[c];
        nodes.push_back({add_node(pavement, walk.ends[0], false), add_node(pavement, walk.ends[1], false)});
        add_edges(pavement, nodes.back()[0], nodes.back()[1], {walk.ends[0], walk.ends[1]}, c);
    }
    // Round each corner, or straight on where an arm is missing.
    for (const Junction& junction : town.junctions) {
        for (Index a = 0; a < 4; ++a) {
            if (!junction.arms[a].exists()) {
                continue;
            }
            Index next = (a + 1) % 4;
            while (!junction.arms[next].exists()) {
                next = (next + 1) % 4;
            }
            const Index from = junction.arms[a].crosswalk, to = junction.arms[next].crosswalk;
            const Point p = town.crosswalks[from].ends[0], q = town.crosswalks[to].ends[1];
            std::vector<Point> path{p};
            const Point out = junction.direction(static_cast<int>(a));
            if (next == (a + 1) % 4) {
                // The corner lies where the walking lines of both arms meet.
                const double along = junction.arms[next].half_width + setback;
                const double aside = junction.arms[a].half_width + setback;
                const Point corner = junction.center + along * out + aside * left_of(out);
                path = smooth_curve(p, normalized(corner - p), q, normalized(q - corner), 0.39).points();
            } else {
                path.push_back(q);
            }
            add_edges(pavement, nodes[from][0], nodes[to][1], path, none);
        }
    }
    // Along the kerbs.
    for (const Road& road : town.roads) {
        std::vector<Point> path = road.kerb.offset(-setback);
        Index a = none, b = none;
        if (road.from != none) {
            const Index walk = town.junctions[road.from].arms[static_cast<Index>(road.from_arm)].crosswalk;
            a = nodes[walk][1];
            path.insert(path.begin(), town.crosswalks[walk].ends[1]);
        } else {
            a = add_node(pavement, path.front(), true);
        }
        if (road.to != none) {
            const Index walk = town.junctions[road.to].arms[static_cast<Index>(road.to_arm)].crosswalk;
            b = nodes[walk][0];
            path.push_back(town.crosswalks[walk].ends[0]);
        } else {
            b = add_node(pavement, path.back(), true);
        }
        add_edges(pavement, a, b, path, none);
    }
}

void place_roadside(Town& town, Random& random) {
    for (const Road& road : town.roads) {
        if (road.parking) {
            const double usage = random.uniform(0.2, 0.7);
            for (double s = 8.0; s + 8.0 < road.kerb.length(); s += 6.6) {
                if (!random.chance(usage)) {
                    continue;
                }
                const double length = random.uniform(3.9, 5.0), width = random.uniform(1.7, 1.9);
                const double place = s + random.uniform(-0.5, 0.5);
                const Point along = road.kerb.direction(place);
                const Point p = road.kerb.at(place) + (0.2 + width / 2.0) * left_of(along);
                const double heading = angle_of(along) + random.normal(0.0, 0.015);
                town.parked.push_back({p, wrap_angle(heading), length, width});
            }
        } else if (road.lanes.size() > 1 && random.chance(0.14)) {
            place_road_works(town, road, random);
        }
    }
}

}  // namespace traffic
