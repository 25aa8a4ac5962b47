// A small town made from a seed: streets on a distorted grid, junctions with connectors for every turn, crosswalks,
// pavements, parked cars and road works. It does not change once made, so all threads may read it.
//
// Lanes are numbered 0 at the middle of the road upwards to the kerb; traffic keeps to the right. A plain lane ends at
// the stop line of its junction; a connector leads from there across the junction to the start of the next plain lane.
#pragma once

#include "geometry.hpp"
#include "random.hpp"

#include <array>
#include <string>

namespace traffic {

using Index = std::size_t;
constexpr Index none = static_cast<Index>(-1);
constexpr double lane_width = 3.5;

enum class Turn { straight, left, right };

// Where the paths of two connectors come closer than a vehicle's width, as arc lengths along both.
struct Conflict {
    Index other = none;
    double from = 0.0, to = 0.0;
    double other_from = 0.0, other_to = 0.0;
};

// Where a connector crosses a crosswalk.
struct Crossing {
    Index crosswalk = none;
    double from = 0.0, to = 0.0;  // along the connector
    double along = 0.0;           // distance of the connector's path from the crosswalk's first end
};

struct Lane {
    std::string id;
    std::string roadblock;
    bool connector = false;
    Polyline center;
    std::vector<Point> left, right;
    double speed_limit = 0.0;
    double max_curvature = 0.0;
    std::vector<Index> successors;
    Index junction = none;  // plain lane: at its end; connector: the one it crosses
    int arm = -1;           // junction arm that this lane enters from

    // Plain lanes.
    Index road = none;
    Index left_neighbor = none, right_neighbor = none;
    double closed_from = 1e9, closed_to = 1e9;  // road works, arc length

    // Connectors.
    Index source = none, target = none;
    Turn turn = Turn::straight;
    std::vector<Conflict> conflicts;
    std::vector<Crossing> crossings;
    std::vector<std::pair<Index, double>> siblings;  // same source: how far both paths run together
};

// One direction of a street between two junctions or to the edge of the town.
struct Road {
    std::string id;
    std::vector<Index> lanes;  // from the middle of the street to the kerb
    Index from = none, to = none;  // junctions
    int from_arm = -1, to_arm = -1;
    Polyline kerb;                   // right edge of the outermost lane or of its parking bay, where the pavement begins
    bool parking = false;
};

struct Crosswalk {
    std::string id;
    Index junction = none;
    int arm = 0;
    Point ends[2];  // on the pavements: right and left of a driver who comes from the arm
    double width = 3.0;
    std::vector<Point> polygon;
    std::vector<std::pair<Index, Index>> crossed_by;  // connector, index into its crossings
};

// Arms 0..3 leave towards local east, north, west, south; one that is missing has no roads.
struct Junction {
    Point center;
    double angle = 0.0;
    struct Arm {
        Index in_road = none, out_road = none, crosswalk = none;
        double stop_line = 0.0;   // distance from the centre
        double half_width = 0.0;  // of the street, parking bays included
        bool exists() const { return in_road != none; }
    };
    std::array<Arm, 4> arms;
    std::vector<Index> connectors;
    bool signalised = true;
    int major = 0;  // without signals: the street (arms of this parity) that has right of way
    Point direction(int arm) const { return unit(angle + arm * pi / 2.0); }
};

// Pavement graph: pedestrians walk along its edges.
struct Pavement {
    struct Edge {
        Index from, to;
        Polyline path;
        Index crosswalk = none;
    };
    std::vector<Point> nodes;
    std::vector<Edge> edges;
    std::vector<std::vector<Index>> leaving;  // per node
    std::vector<bool> outer;                  // nodes at the edge of the town, where people come and go
};

enum class StaticKind { sign, barrier, cone };
struct StaticObject {
    StaticKind kind;
    Box box;
};

struct Town {
    std::string name;
    std::vector<Lane> lanes;
    std::vector<Road> roads;
    std::vector<Junction> junctions;
    std::vector<Crosswalk> crosswalks;
    std::vector<Box> parked;
    std::vector<StaticObject> static_objects;
    Pavement pavement;

    // The connector from `lane` to any lane of `road`, or `none`.
    Index connector_to(Index lane, Index road) const;
    // Roads that can be reached over the junction at the end of `road`.
    std::vector<Index> next_roads(Index road) const;
};

// The same seed gives the same town.
Town make_town(const std::string& name, std::uint64_t seed);

// Steps of `make_town`, each in its own file.
void build_connectors(Town& town);
void build_crosswalks(Town& town);
void build_pavement(Town& town);
void place_roadside(Town& town, Random& random);

}  // namespace traffic
