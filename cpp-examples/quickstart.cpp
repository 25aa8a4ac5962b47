// The smallest complete program: a road made up in code, a small network, one epoch, a test.
#include "training_engine.hpp"
#include <cmath>
#include <cstdio>

struct Road : te::ScenarioSource {
    std::shared_ptr<const te::Map> map = std::make_shared<te::Map>("road", std::vector<te::Lane>{
        {"lane", "block", te::LaneKind::lane, {{-50, 0}, {250, 0}}, {{-50, 2}, {250, 2}}, {{-50, -2}, {250, -2}}, {}, 15.0}});

    std::size_t size() override { return 32; }
    te::ScenarioInfo info(std::size_t i) override {
        const te::Split splits[] = {te::Split::train, te::Split::train, te::Split::validation, te::Split::test};
        return {"s" + std::to_string(i), "log" + std::to_string(i / 4), "straight", splits[i % 4]};
    }
    te::Scenario load(std::size_t i) override { // the ego brakes or speeds up behind a car
        te::Scenario s{"s" + std::to_string(i), "log" + std::to_string(i / 4), "straight", map, {}, {}, {}, {}, {"block"}, {}};
        te::Agent car{"car", te::AgentKind::vehicle, {}};
        const double speed = 8, acceleration = 0.1 * double(i % 9) - 0.4;
        for (std::size_t k = 0; k < te::total_steps; ++k) {
            const double t = (double(k) - 20) * te::step_seconds, x = speed * t + acceleration * t * t / 2, v = speed + acceleration * t;
            s.ego.push_back({x, 0, 0, v, 0, acceleration, 0});
            car.states.push_back({x + 20, 0, 0, v, 0, 1.9, 4.5, 1});
        }
        s.agents.push_back(car);
        return s;
    }
};

int main() {
    te::Engine engine("{epochs: 1, warmup_epochs: 0, lr: 1.0e-3, data_loader: {params: {batch_size: 4}},"
                      " model: {dim: 32, encoder_depth: 1, decoder_depth: 1}}", std::make_shared<Road>());
    const te::FitReport fit = engine.fit();
    const te::EvaluationReport test = engine.test();
    std::printf("%zu steps, %zu test scenarios, minFDE %.2f m\n", fit.steps, test.scenarios, test.metrics.at("test/minFDE"));
    return fit.steps == 4 && test.scenarios == 8 && std::isfinite(test.metrics.at("test/minFDE")) ? 0 : 1;
}
