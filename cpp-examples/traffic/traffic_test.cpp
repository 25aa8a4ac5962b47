// Is the simulated traffic plausible? Towns fit together, nobody collides, jumps or runs a red light, scenarios hold what
// a planner needs, and the same seed gives the same scenarios. Needs nothing of the library.
#include "baseline.hpp"
#include "picture.hpp"
#include "simulation.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <thread>

using namespace traffic;

namespace {

int failures = 0;

// Says what failed, at most a few times per kind.
void check(bool ok, const std::string& what) {
    static std::map<std::string, int> told;
    if (!ok) {
        ++failures;
        if (++told[what] <= 3) {
            std::printf("FAILED: %s\n", what.c_str());
        }
    }
}

bool inside(Point p, const std::vector<Point>& polygon) {
    bool in = false;
    for (std::size_t i = 0, j = polygon.size() - 1; i < polygon.size(); j = i++) {
        const Point a = polygon[i], b = polygon[j];
        if ((a.y > p.y) != (b.y > p.y) && p.x < a.x + (p.y - a.y) / (b.y - a.y) * (b.x - a.x)) {
            in = !in;
        }
    }
    return in;
}

std::vector<Point> outline(const Lane& lane) {
    std::vector<Point> polygon = lane.left;
    polygon.insert(polygon.end(), lane.right.rbegin(), lane.right.rend());
    return polygon;
}

void test_geometry() {
    const Polyline line({{0, 0}, {3, 0}, {3, 4}});
    check(std::fabs(line.length() - 7.0) < 0.5 && distance(line.at(1.0), {1, 0}) < 1e-9, "polyline is measured by arc length");
    check(std::fabs(line.project({3.2, 2.0}) - 5.0) < 0.5, "polyline projects");
    check(overlap({{0, 0}, 0.0, 4, 2}, {{3.9, 0}, 0.0, 4, 2}) && !overlap({{0, 0}, 0.0, 4, 2}, {{4.1, 0}, 0.0, 4, 2}), "boxes overlap");
    check(!overlap({{0, 0}, 0.0, 4, 2}, {{2.9, 1.9}, pi / 4, 2, 2}) || distance({0, 0}, {2.9, 1.9}) < 3.4, "turned boxes");
    check(std::fabs(wrap_angle(3.0 * pi) - pi) < 1e-9 && std::fabs(wrap_angle(-0.5) + 0.5) < 1e-12, "angles wrap");
}

void test_town(const Town& town) {
    std::set<std::string> ids;
    for (Index i = 0; i < town.lanes.size(); ++i) {
        const Lane& lane = town.lanes[i];
        check(ids.insert(lane.id).second, "lane ids are unique");
        check(lane.center.length() > 8.0 && lane.left.size() > 2 && lane.right.size() > 2, "lanes have a length");
        check(lane.max_curvature < 0.25, "no bend is tighter than a car can turn");
        check(lane.junction == none || !lane.successors.empty(), "no lane ends at a junction without a way on");
        for (const Index next : lane.successors) {
            const Lane& after = town.lanes[next];
            check(distance(lane.center.points().back(), after.center.points().front()) < 1e-6, "lanes join without a gap");
            check(dot(lane.center.direction(1e9), after.center.direction(0.0)) > 0.99, "lanes join without a kink");
        }
        check(lane.right_neighbor == none || town.lanes[lane.right_neighbor].left_neighbor == i, "neighbours know each other");
        for (const Conflict& conflict : lane.conflicts) {
            const auto& back = town.lanes[conflict.other].conflicts;
            check(std::any_of(back.begin(), back.end(), [&](const Conflict& c) { return c.other == i; }), "conflicts are mutual");
        }
    }
    for (const Junction& junction : town.junctions) {
        const auto arms = std::count_if(junction.arms.begin(), junction.arms.end(), [](const auto& a) { return a.exists(); });
        check(arms >= 3, "junctions have three arms or more");
    }
    for (const Crosswalk& walk : town.crosswalks) {
        check(!walk.crossed_by.empty(), "crosswalks lie on the road");
    }
}

struct Placed {
    const Track* track;
    Box box;
    double speed;
};

// Boxes of everybody at one step.
std::vector<Placed> placed_at(const Recording& recording, std::size_t step) {
    std::vector<Placed> placed;
    for (const Track& track : recording.tracks) {
        if (step >= track.first_step && step < track.first_step + track.states.size()) {
            const TrackState& s = track.states[step - track.first_step];
            placed.push_back({&track, {Point{s.x, s.y} + track.rear_axle_to_center * unit(s.heading), s.heading, track.length, track.width}, s.speed});
        }
    }
    return placed;
}

// Pairs that touched at any time.
std::size_t count_collisions(const Recording& recording) {
    std::set<std::pair<const void*, const void*>> pairs;
    for (std::size_t step = 0; step < recording.steps; ++step) {
        const auto placed = placed_at(recording, step);
        for (std::size_t i = 0; i < placed.size(); ++i) {
            const bool walker = placed[i].track->kind == Kind::pedestrian;
            for (std::size_t j = i + 1; j < placed.size(); ++j) {
                if (!(walker && placed[j].track->kind == Kind::pedestrian) &&
                    distance(placed[i].box.center, placed[j].box.center) < 9.0 && overlap(placed[i].box, placed[j].box)) {
                    pairs.emplace(placed[i].track, placed[j].track);
                }
            }
            if (walker) {
                continue;
            }
            for (const Box& box : recording.town->parked) {
                if (distance(placed[i].box.center, box.center) < 9.0 && overlap(placed[i].box, box)) {
                    pairs.emplace(placed[i].track, &box);
                }
            }
            for (const StaticObject& object : recording.town->static_objects) {
                if (distance(placed[i].box.center, object.box.center) < 9.0 && overlap(placed[i].box, object.box)) {
                    pairs.emplace(placed[i].track, &object);
                }
            }
        }
    }
    for (const auto& [a, b] : pairs) {
        std::printf("  collision in %s: %s\n", recording.log_name.c_str(), static_cast<const Track*>(a)->id.c_str());
    }
    return pairs.size();
}

void test_motion(const Recording& recording) {
    for (const Track& track : recording.tracks) {
        for (std::size_t i = 2; i < track.states.size(); ++i) {
            const TrackState &a = track.states[i - 1], &b = track.states[i];
            const Point moved = Point{b.x, b.y} - Point{a.x, a.y};
            const double expected = 0.5 * (a.speed + b.speed) * time_step;
            check(std::isfinite(b.x + b.y + b.heading + b.speed) && b.speed >= 0.0 && b.speed < 25.0, "states are finite and no faster than 25 m/s");
            check(std::fabs(norm(moved) - expected) < 0.03 + 0.02 * expected, "displacement agrees with speed");
            if (track.kind == Kind::pedestrian) {
                continue;
            }
            check(b.acceleration > -8.5 && b.acceleration < 4.0, "accelerations are those of a car");
            check(std::fabs(b.yaw_rate) * b.speed < 5.0, "lateral acceleration stays below 5 m/s^2");
            if (norm(moved) > 0.1) {
                check(std::fabs(wrap_angle(angle_of(moved) - 0.5 * (a.heading + wrap_angle(b.heading - a.heading) + a.heading))) < 0.1,
                      "the rear axle moves where the vehicle points");
            }
        }
    }
}

// The front bumper passes the stop line only while the light is not red.
std::size_t count_red_light_runners(const Recording& recording) {
    std::size_t runners = 0, entries = 0;
    const Town& town = *recording.town;
    for (const Track& track : recording.tracks) {
        for (std::size_t k = 1; k < track.lanes.size(); ++k) {
            const Lane& connector = town.lanes[track.lanes[k].first];
            if (!connector.connector || track.lanes[k - 1].first != connector.source || track.lanes[k].second <= track.first_step) {
                continue;
            }
            const Polyline& before = town.lanes[connector.source].center;
            // Back from the step in which the front axle passed to the one in which the bumper did.
            std::size_t step = track.lanes[k].second;
            const auto bumper = [&](std::size_t at) {
                const TrackState& s = track.states[at - track.first_step];
                const Point p = Point{s.x, s.y} + (track.rear_axle_to_center + track.length / 2.0) * unit(s.heading);
                return dot(p - before.points().back(), before.direction(1e9));
            };
            while (step > track.first_step && bumper(step - 1) > 0.0) {
                --step;
            }
            const double time = recording.start_time + static_cast<double>(step) * time_step;
            runners += step > track.first_step && recording.signals->color(connector.junction, connector.arm, time) == Light::red ? 1 : 0;
            ++entries;
        }
    }
    check(entries > 10, "vehicles cross junctions");
    return runners;
}

void test_scenario(const TownScenario& scenario) {
    const Town& town = *scenario.town;
    check(scenario.ego.size() == total_steps, "the ego has all its steps");
    check(!scenario.route.empty(), "there is a route");
    // Every step of the route is a successor of the one before.
    for (std::size_t i = 1; i < scenario.route.size(); ++i) {
        bool joined = false;
        for (const Lane& lane : town.lanes) {
            for (const Index next : lane.successors) {
                joined = joined || (lane.roadblock == scenario.route[i - 1] && town.lanes[next].roadblock == scenario.route[i]);
            }
        }
        check(joined, "routes are connected");
    }
    std::size_t off_route = 0;
    for (const EgoState& s : scenario.ego) {
        bool on = false;
        for (const Lane& lane : town.lanes) {
            on = on || (std::find(scenario.route.begin(), scenario.route.end(), lane.roadblock) != scenario.route.end() && inside({s.x, s.y}, outline(lane)));
        }
        off_route += on ? 0 : 1;
    }
    check(off_route == 0, "the ego's rear axle stays on lanes of its route");
    for (const ScenarioAgent& agent : scenario.agents) {
        check(agent.states.size() == total_steps && agent.states[history_steps - 1].valid, "agents are there at the present step");
        check(agent.length > 0.3 && agent.width > 0.3, "agents have a size");
    }
}

bool same(const TownScenario& a, const TownScenario& b) {
    bool equal = a.token == b.token && a.type == b.type && a.route == b.route && a.agents.size() == b.agents.size() && a.lights == b.lights;
    for (std::size_t t = 0; equal && t < total_steps; ++t) {
        equal = a.ego[t].x == b.ego[t].x && a.ego[t].y == b.ego[t].y && a.ego[t].heading == b.ego[t].heading && a.ego[t].vx == b.ego[t].vx;
        for (std::size_t k = 0; equal && k < a.agents.size(); ++k) {
            equal = a.agents[k].states[t].x == b.agents[k].states[t].x && a.agents[k].states[t].valid == b.agents[k].states[t].valid;
        }
    }
    return equal;
}

void test_corpus() {
    constexpr std::size_t count = 160, logs = 5;
    const Corpus corpus = make_corpus(count, logs, 11), again = make_corpus(count, logs, 11), other = make_corpus(count, logs, 12);
    check(corpus.size() == count && again.size() == count, "as many scenarios as asked");
    std::set<std::string> tokens, types;
    for (std::size_t i = 0; i < corpus.size(); ++i) {
        const TownScenario scenario = corpus.cut(i);
        test_scenario(scenario);
        tokens.insert(scenario.token);
        types.insert(scenario.type);
        check(same(scenario, again.cut(i)), "the same seed gives the same scenarios");
    }
    check(!same(corpus.cut(0), other.cut(0)), "another seed gives others");
    check(tokens.size() == corpus.size(), "tokens are unique");
    check(types.size() >= 7, "many kinds of scenarios");
    // Four threads at once see what one sees.
    std::vector<int> equal(4, 1);
    std::vector<std::thread> threads;
    for (std::size_t k = 0; k < equal.size(); ++k) {
        threads.emplace_back([&, k] {
            for (std::size_t i = 0; i < corpus.size(); ++i) {
                equal[k] = equal[k] && same(corpus.cut(i), again.cut(i)) ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    check(std::count(equal.begin(), equal.end(), 1) == 4, "scenarios can be cut by several threads");

    std::vector<std::size_t> all, standing;
    for (std::size_t i = 0; i < corpus.size(); ++i) {
        all.push_back(i);
        if (corpus.keys[i].type == "stationary") {
            standing.push_back(i);
        }
    }
    const double moving_error = constant_velocity(corpus, all).min_fde;
    check(moving_error > 10.0 && moving_error < 60.0, "constant velocity is a poor plan here");
    check(standing.empty() || constant_velocity(corpus, standing).min_fde < 4.0, "and a good one for those who stand");

    Picture picture;
    picture.scenario = corpus.cut(0);
    write_picture(picture, "traffic_test.svg");
    std::ifstream file("traffic_test.svg");
    const std::string svg((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    check(svg.rfind("<svg", 0) == 0 && svg.find("</svg>") != std::string::npos && svg.find("nan") == std::string::npos, "the picture is an SVG file");
}

}  // namespace

int main() {
    test_geometry();
    std::size_t collisions = 0, runners = 0, vehicles = 0;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        const auto town = std::make_shared<const Town>(make_town("town_" + std::to_string(seed), seed));
        test_town(*town);
        const Recording recording = Simulation(town, town->name, seed).record(200, 700);
        check(recording.mean_speed > 1.5, "traffic flows");
        test_motion(recording);
        collisions += count_collisions(recording);
        runners += count_red_light_runners(recording);
        vehicles += recording.vehicles;
    }
    std::printf("%zu vehicles in 9 minutes: %zu collisions, %zu red lights run\n", vehicles, collisions, runners);
    // Chaotic motion differs in the last bit between compilers, so one odd contact is let pass.
    check(collisions <= 1, "nobody collides");
    check(runners == 0, "nobody runs a red light");
    test_corpus();
    std::printf("%s\n", failures == 0 ? "all good" : "FAILED");
    return failures == 0 ? 0 : 1;
}
