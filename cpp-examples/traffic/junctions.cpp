// Junctions: the connectors that lead across them, where these conflict, and the crosswalks.
#include "town.hpp"

#include <algorithm>
#include <limits>

namespace traffic {
namespace {

// Paths closer than this conflict: a lorry's width and some air.
constexpr double clearance = 3.3;

void add_connector(Town& town, Index junction, Index source, Index target, Turn turn) {
    const Lane& from = town.lanes[source];
    const Lane& to = town.lanes[target];
    Lane lane;
    lane.connector = true;
    lane.id = "connector_" + std::to_string(town.lanes.size());
    lane.roadblock = town.roads[from.road].id + "_to_" + town.roads[to.road].id;
    lane.center = smooth_curve(from.center.points().back(), from.center.direction(from.center.length()),
                               to.center.points().front(), to.center.direction(0.0), 0.39);
    lane.left = lane.center.offset(lane_width / 2.0);
    lane.right = lane.center.offset(-lane_width / 2.0);
    lane.speed_limit = std::min(from.speed_limit, to.speed_limit);
    lane.max_curvature = lane.center.max_curvature();
    lane.junction = junction;
    lane.arm = from.arm;
    lane.source = source;
    lane.target = target;
    lane.turn = turn;
    lane.successors.push_back(target);
    town.lanes[source].successors.push_back(town.lanes.size());
    town.junctions[junction].connectors.push_back(town.lanes.size());
    town.lanes.push_back(std::move(lane));
}

// First and last place along `a` that is closer than the clearance to `b`; false if there is none.
bool close_stretch(const Polyline& a, const Polyline& b, double& from, double& to) {
    from = std::numeric_limits<double>::max();
    to = -1.0;
    constexpr double step = 0.5;
    for (double s = 0.0; s <= a.length(); s += step) {
        const Point p = a.at(s);
        if (distance(p, b.at(b.project(p))) < clearance) {
            from = std::min(from, s - step);
            to = std::max(to, s + step);
        }
    }
    return to >= 0.0;
}

void find_conflicts(Town& town, const Junction& junction) {
    for (const Index a : junction.connectors) {
        for (const Index b : junction.connectors) {
            if (a == b) {
                continue;
            }
            Lane& own = town.lanes[a];
            const Lane& other = town.lanes[b];
            double from = 0.0, to = 0.0, other_from = 0.0, other_to = 0.0;
            if (own.source == other.source) {
                double together = own.center.length();
                for (double s = 0.0; s < own.center.length(); s += 0.5) {
                    const Point p = own.center.at(s);
                    if (distance(p, other.center.at(other.center.project(p))) > clearance) {
                        together = s;
                        break;
                    }
                }
                own.siblings.emplace_back(b, together);
            } else if (close_stretch(own.center, other.center, from, to)) {
                close_stretch(other.center, own.center, other_from, other_to);
                if (own.target == other.target) {
                    to = own.center.length();
                    other_to = other.center.length();
                }
                own.conflicts.push_back({b, from, to, other_from, other_to});
            }
        }
    }
}

}  // namespace

void build_connectors(Town& town) {
    for (Index j = 0; j < town.junctions.size(); ++j) {
        const auto arms = town.junctions[j].arms;
        for (Index a = 0; a < 4; ++a) {
            if (!arms[a].exists()) {
                continue;
            }
            // Seen from a driver who comes in from arm a: straight is the opposite arm, right the next one counter-clockwise.
            const Index ahead = arms[(a + 2) % 4].out_road;
            const Index right = arms[(a + 1) % 4].out_road;
            const Index left = arms[(a + 3) % 4].out_road;
            const auto& in = town.roads[arms[a].in_road].lanes;
            const auto count = in.size();
            for (Index i = 0; i < count; ++i) {
                const Index before = town.lanes[in[i]].successors.size();
                if (ahead != none) {
                    const auto& out = town.roads[ahead].lanes;
                    add_connector(town, j, in[i], out[std::min(i, out.size() - 1)], Turn::straight);
                }
                if (left != none && i == 0) {
                    add_connector(town, j, in[i], town.roads[left].lanes.front(), Turn::left);
                }
                if (right != none && i + 1 == count) {
                    add_connector(town, j, in[i], town.roads[right].lanes.back(), Turn::right);
                }
                if (town.lanes[in[i]].successors.size() == before) {
                    // A lane with nowhere to go at a T-junction: turn beside the other turning lane.
                    const bool to_left = left != none && (i + 1 < count || right == none);
                    const auto& out = town.roads[to_left ? left : right].lanes;
                    const Index place = to_left ? std::min(i, out.size() - 1)
                                                : out.size() - 1 - std::min(count - 1 - i, out.size() - 1);
                    add_connector(town, j, in[i], out[place], to_left ? Turn::left : Turn::right);
                }
            }
        }
        find_conflicts(town, town.junctions[j]);
    }
}

void build_crosswalks(Town& town) {
    for (Index j = 0; j < town.junctions.size(); ++j) {
        Junction& junction = town.junctions[j];
        for (int a = 0; a < 4; ++a) {
            Junction::Arm& arm = junction.arms[static_cast<Index>(a)];
            if (!arm.exists()) {
                continue;
            }
            Crosswalk walk;
            walk.junction = j;
            walk.arm = a;
            const Point out = junction.direction(a);
            const Point side = left_of(out);  // right of a driver who comes in
            const Point middle = junction.center + (arm.stop_line - 3.0) * out;
            const double reach = arm.half_width + 2.3;
            walk.ends[0] = middle + reach * side;
            walk.ends[1] = middle - reach * side;
            const Point half = (walk.width / 2.0) * out;
            const Point edge = arm.half_width * side;
            walk.polygon = {middle + edge + half, middle - edge + half, middle - edge - half, middle + edge - half};
            const Index index = town.crosswalks.size();
            walk.id = "crosswalk_" + std::to_string(index);
            arm.crosswalk = index;
            for (const Index c : junction.connectors) {
                Lane& lane = town.lanes[c];
                double from = 1e9, to = -1.0, along = 0.0;
                for (double s = 0.0; s <= lane.center.length(); s += 0.25) {
                    const Point p = lane.center.at(s) - middle;
                    if (std::fabs(dot(p, out)) < walk.width / 2.0 && std::fabs(dot(p, side)) < arm.half_width) {
                        from = std::min(from, s);
                        to = s;
                        along = reach - dot(p, side);
                    }
                }
                if (to >= 0.0) {
                    walk.crossed_by.emplace_back(c, lane.crossings.size());
                    lane.crossings.push_back({index, from, to, along});
                }
            }
            town.crosswalks.push_back(std::move(walk));
        }
    }
    for (Lane& lane : town.lanes) {
        std::sort(lane.crossings.begin(), lane.crossings.end(),
                  [](const Crossing& a, const Crossing& b) { return a.from < b.from; });
    }
    for (Crosswalk& walk : town.crosswalks) {
        for (auto& [lane, place] : walk.crossed_by) {
            const auto& crossings = town.lanes[lane].crossings;
            for (Index k = 0; k < crossings.size(); ++k) {
                if (town.crosswalks[crossings[k].crosswalk].id == walk.id) {
                    place = k;
                }
            }
        }
    }
}

}  // namespace traffic
