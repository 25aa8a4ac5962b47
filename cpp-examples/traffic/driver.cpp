#include "driver.hpp"

#include <algorithm>
#include <cmath>

namespace traffic {

Temperament draw_temperament(Random& random) {
    const double kind = random.uniform();
    Temperament t;
    if (kind < 0.2) {
        t = {"cautious", 0.82, 1.9, 2.8, 1.2, 1.6, 1.5, 0.6, 1.3, 25.0, 7.0};
    } else if (kind < 0.65) {
        t = {"normal", 0.97, 1.4, 2.2, 1.6, 2.0, 2.0, 0.35, 0.9, 14.0, 5.5};
    } else if (kind < 0.88) {
        t = {"brisk", 1.08, 1.1, 1.9, 2.1, 2.4, 2.5, 0.15, 0.6, 9.0, 4.5};
    } else {
        t = {"impatient", 1.2, 0.9, 1.6, 2.6, 2.8, 2.9, 0.0, 0.4, 5.0, 3.8};
    }
    t.speed_factor *= random.normal(1.0, 0.05);
    t.time_gap *= random.normal(1.0, 0.1);
    t.acceleration *= random.normal(1.0, 0.1);
    return t;
}

Temperament lorry_temperament(Random& random) {
    Temperament t{"lorry", 0.85, 1.8, 3.0, 0.9, 1.6, 1.2, 0.4, 1.2, 20.0, 7.5};
    t.speed_factor *= random.normal(1.0, 0.05);
    return t;
}

Temperament bicycle_temperament(Random& random) {
    Temperament t{"bicycle", 1.0, 1.0, 1.2, 0.9, 1.8, 2.0, 0.5, 0.8, 20.0, 6.0};
    t.speed_factor = random.normal(0.45, 0.06);
    return t;
}

double free_acceleration(const Temperament& who, double speed, double wanted) {
    if (speed <= wanted) {
        return who.acceleration * (1.0 - std::pow(speed / std::max(wanted, 0.1), 4.0));
    }
    // Above the wanted speed: back to it, but no harder than is comfortable.
    const double exponent = 4.0 * who.acceleration / who.comfortable_braking;
    return -who.comfortable_braking * (1.0 - std::pow(wanted / speed, exponent));
}

double interaction(const Temperament& who, double speed, double gap, double leader_speed, double standstill_gap) {
    const double closing = speed * (speed - leader_speed) / (2.0 * std::sqrt(who.acceleration * who.comfortable_braking));
    const double wanted_gap = standstill_gap + std::max(0.0, speed * who.time_gap + closing);
    const double ratio = wanted_gap / std::max(gap, 0.1);
    return std::min(who.acceleration * ratio * ratio, 2.0 * hardest_braking);
}

}  // namespace traffic
