#include "baseline.hpp"

#include <algorithm>

namespace traffic {
namespace {
constexpr double miss_distance = 2.0;      // m
constexpr std::size_t max_agents = 48;     // nearest ones, as many as the planner's features hold
}  // namespace

BaselineMetrics constant_velocity(const Corpus& corpus, const std::vector<std::size_t>& indices) {
    BaselineMetrics sum;
    double ade_agents = 0.0, fde_agents = 0.0, ade_count = 0.0, fde_count = 0.0;
    constexpr std::size_t present = history_steps - 1;
    for (const std::size_t index : indices) {
        TownScenario scenario = corpus.cut(index);
        const EgoState& now = scenario.ego[present];
        double mean = 0.0, error = 0.0;
        for (std::size_t t = 1; t <= future_steps; ++t) {
            const double seconds = static_cast<double>(t) * time_step;
            const EgoState& then = scenario.ego[present + t];
            error = std::hypot(now.x + seconds * now.vx - then.x, now.y + seconds * now.vy - then.y);
            mean += error / static_cast<double>(future_steps);
        }
        sum.min_ade += mean;
        sum.min_fde += error;
        sum.miss_rate += error > miss_distance ? 1.0 : 0.0;
        ++sum.scenarios;

        const auto how_far = [&](const ScenarioAgent& agent) {
            return std::hypot(agent.states[present].x - now.x, agent.states[present].y - now.y);
        };
        std::sort(scenario.agents.begin(), scenario.agents.end(),
                  [&](const ScenarioAgent& a, const ScenarioAgent& b) { return how_far(a) < how_far(b); });
        scenario.agents.resize(std::min(scenario.agents.size(), max_agents));
        for (const ScenarioAgent& agent : scenario.agents) {
            const AgentState& at = agent.states[present];
            double total = 0.0, steps = 0.0;
            for (std::size_t t = 1; t <= future_steps; ++t) {
                const AgentState& then = agent.states[present + t];
                if (!then.valid) {
                    continue;
                }
                const double seconds = static_cast<double>(t) * time_step;
                const double off = std::hypot(at.x + seconds * at.vx - then.x, at.y + seconds * at.vy - then.y);
                total += off;
                steps += 1.0;
                if (t == future_steps) {
                    fde_agents += off;
                    fde_count += 1.0;
                }
            }
            if (steps > 0.0) {
                ade_agents += total / steps;
                ade_count += 1.0;
            }
        }
    }
    const double count = std::max<double>(1.0, static_cast<double>(sum.scenarios));
    sum.min_ade /= count;
    sum.min_fde /= count;
    sum.miss_rate /= count;
    sum.agents_ade = ade_agents / std::max(1.0, ade_count);
    sum.agents_fde = fde_agents / std::max(1.0, fde_count);
    return sum;
}

}  // namespace traffic
