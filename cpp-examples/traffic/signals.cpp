#include "signals.hpp"

#include <cmath>

namespace traffic {
namespace {
constexpr double yellow = 3.0;
constexpr double all_red = 2.0;
}  // namespace

Signals::Signals(const Town& town, Random& random) {
    for (const Junction& junction : town.junctions) {
        Plan plan;
        plan.exists = junction.signalised;
        // Two phases, one per street; or one phase per arm, so that nobody who turns left meets anybody.
        const bool by_arm = random.chance(0.3);
        int phases = 0;
        for (int arm = 0; arm < 4; ++arm) {
            if (!junction.arms[static_cast<Index>(arm)].exists()) {
                continue;
            }
            plan.phase_of_arm[static_cast<Index>(arm)] = by_arm ? phases : arm % 2;
            phases = by_arm ? phases + 1 : 2;
        }
        double reached = 0.0;
        for (int p = 0; p < phases; ++p) {
            const auto phase = static_cast<Index>(p);
            plan.start[phase] = reached;
            plan.green[phase] = by_arm ? random.uniform(8.0, 12.0) : random.uniform(12.0, 20.0);
            reached += plan.green[phase] + yellow + all_red;
        }
        plan.cycle = reached;
        plan.offset = random.uniform(0.0, reached);
        plans_.push_back(plan);
    }
}

double Signals::place(const Plan& plan, int arm, double time) {
    const auto phase = static_cast<Index>(plan.phase_of_arm[static_cast<Index>(arm)]);
    const double t = std::fmod(time + plan.offset - plan.start[phase], plan.cycle);
    return t < 0.0 ? t + plan.cycle : t;
}

Light Signals::color(Index junction, int arm, double time) const {
    const Plan& plan = plans_[junction];
    if (!plan.exists) {
        return Light::off;
    }
    const double t = place(plan, arm, time);
    const double green = plan.green[static_cast<Index>(plan.phase_of_arm[static_cast<Index>(arm)])];
    return t < green ? Light::green : t < green + yellow ? Light::yellow : Light::red;
}

double Signals::green_for(Index junction, int arm, double time) const {
    return color(junction, arm, time) == Light::green ? place(plans_[junction], arm, time) : 0.0;
}

double Signals::until_green(Index junction, int arm, double time) const {
    return color(junction, arm, time) == Light::green ? 0.0 : plans_[junction].cycle - place(plans_[junction], arm, time);
}

}  // namespace traffic
