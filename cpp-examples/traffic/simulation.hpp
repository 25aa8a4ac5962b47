// The simulation: vehicles that follow their lanes, each other, the lights and the rules, and pedestrians who cross.
//
// One step of 0.1 s: who is where (occupancy), who may enter the junctions (right_of_way.cpp), who changes lanes
// (lane_change.cpp), how hard each one brakes or accelerates (following.cpp), then everybody moves.
#pragma once

#include "driver.hpp"
#include "pedestrians.hpp"
#include "recording.hpp"

#include <deque>

namespace traffic {

struct Body {
    double length = 4.5, width = 1.8, wheel_base = 2.7, front_overhang = 0.85;
    double behind_front_axle() const { return length - front_overhang; }
    double rear_axle_to_center() const { return length / 2.0 - (length - front_overhang - wheel_base); }
};

struct Vehicle {
    Index track = none;  // in the recording
    Kind kind = Kind::car;
    Body body;
    Temperament driver;
    double sideways = 0.0;  // habitual offset from the lane's middle, positive to the left

    Index lane = none;
    double s = 0.0;  // of the front axle along the lane
    double speed = 0.0, acceleration = 0.0;
    Index previous_lane = none;  // before this one, where the tail may still be
    std::deque<Index> plan;      // roads to take after the present one
    std::vector<Index> granted;  // connectors that it may use or has not yet left
    double waiting = 0.0;        // s at a stop line with nothing but the others in the way

    // Lane change under way: the offset from the new lane's middle fades over `change_length` metres.
    Index from_lane = none;
    double change_offset = 0.0, change_done = 0.0, change_length = 0.0;
    double since_change = 100.0;  // s

    Point front_axle, rear_axle;
    double heading = 0.0, rear_speed = 0.0;

    bool has_grant(Index connector) const;
    double front(double at) const { return at + body.front_overhang; }
    double rear(double at) const { return at - body.behind_front_axle(); }
    double lateral() const;  // present offset of the front axle from the middle of `lane`
    bool tail_in_old_lane() const;
};

// A stretch of a lane that a vehicle takes up.
struct Occupant {
    Index vehicle = none;
    double rear = 0.0, front = 0.0;
};

class Simulation {
public:
    Simulation(std::shared_ptr<const Town> town, const std::string& log_name, std::uint64_t seed);

    // Runs without recording until traffic has settled, then records so many steps.
    Recording record(std::size_t warm_up_steps, std::size_t steps);

private:
    // simulation.cpp
    void step();
    void populate();
    void spawn();
    void place_vehicle(Index lane, double s, double speed_share);
    void extend_plan(Vehicle& v);
    Index next_connector(const Vehicle& v) const;
    void update_occupancy();
    void move(Vehicle& v);
    void enter_next_lane(Vehicle& v);
    void write_states();

    // following.cpp
    double wanted_speed(const Vehicle& v, const Lane& lane) const;
    double choose_acceleration(const Vehicle& v) const;
    double request_distance(const Vehicle& v) const;
    const Occupant* leader_on(Index lane, double s, Index self) const;
    const Occupant* follower_on(Index lane, double s, Index self) const;
    bool pedestrian_blocks(const Crossing& crossing) const;

    // right_of_way.cpp
    void grant_junctions();
    bool may_enter(Vehicle& v, Index connector);
    bool has_room_behind(const Vehicle& v, const Lane& connector) const;
    bool others_are_clear(const Vehicle& v, const Lane& connector) const;
    bool must_give_way(const Vehicle& v, const Lane& connector) const;
    bool may_walk(Index crosswalk, double seconds) const;
    double place_on(const Vehicle& v, Index connector) const;

    // lane_change.cpp
    void change_lanes();
    bool try_change(Index vehicle, Index target, double bias);
    double acceleration_behind(const Vehicle& v, const Occupant* leader, double s, const Lane& lane) const;

    std::shared_ptr<const Town> town_;
    std::shared_ptr<const Signals> signals_;
    Random random_;
    Pedestrians pedestrians_;
    Recording recording_;
    std::vector<Vehicle> vehicles_;
    std::vector<std::vector<Occupant>> occupancy_;  // per lane
    std::vector<std::vector<Index>> granted_;       // per connector: vehicles
    std::vector<double> next_arrival_;              // per lane that enters the town
    std::vector<Index> track_of_walker_;            // in the recording
    double density_ = 1.0;
    double time_ = 0.0;
    bool recording_now_ = false;
};

}  // namespace traffic
