// Traffic lights with a fixed cycle. The colour is a function of time alone, so nothing has to be kept in step.
#pragma once

#include "town.hpp"

namespace traffic {

enum class Light { green, yellow, red, off };

class Signals {
public:
    Signals(const Town& town, Random& random);

    // Light for traffic that enters `junction` from `arm`; off where there are no signals.
    Light color(Index junction, int arm, double time) const;
    // Seconds since the light of this arm turned green; 0 if it is not green.
    double green_for(Index junction, int arm, double time) const;
    // Seconds until the light of this arm turns green next; 0 if it is green.
    double until_green(Index junction, int arm, double time) const;

private:
    struct Plan {
        bool exists = false;
        std::array<int, 4> phase_of_arm{};
        std::array<double, 4> green{};  // duration per phase
        std::array<double, 4> start{};  // of the phase within the cycle
        double cycle = 1.0;
        double offset = 0.0;
    };
    static double place(const Plan& plan, int arm, double time);  // in the cycle, counted from the arm's own green
    std::vector<Plan> plans_;
};

}  // namespace traffic
