// How people drive: a temperament, and the Intelligent Driver Model (Treiber, Hennecke, Helbing, Physical Review E 62,
// 2000) for keeping speed and distance.
#pragma once

#include "random.hpp"

#include <string>

namespace traffic {

struct Temperament {
    const char* name = "normal";
    double speed_factor = 1.0;       // of the limit
    double time_gap = 1.4;           // s behind a leader
    double standstill_gap = 2.0;     // m
    double acceleration = 1.6;       // m/s^2
    double comfortable_braking = 2.0;
    double lateral_acceleration = 2.0;  // accepted in curves
    double politeness = 0.3;         // weight of others' loss in a lane change
    double reaction = 0.9;           // s from green to go
    double patience = 12.0;          // s at a junction before a small gap has to do
    double critical_gap = 5.0;       // s to a crossing vehicle with right of way
};

// Cautious, normal, brisk or impatient, each with its own spread.
Temperament draw_temperament(Random& random);
// Lorries and bicycles drive like their kind.
Temperament lorry_temperament(Random& random);
Temperament bicycle_temperament(Random& random);

constexpr double hardest_braking = 7.0;  // m/s^2

// Towards `wanted` speed on a free road.
double free_acceleration(const Temperament& who, double speed, double wanted);
// What is lost to an obstacle `gap` metres ahead that moves with `leader_speed`, as a positive number.
double interaction(const Temperament& who, double speed, double gap, double leader_speed, double standstill_gap);

}  // namespace traffic
