// Trains PLUTO on recorded scenarios: recorded FOLDER [key=value ...]
//
// Every fifth recording is kept for validation. Asserts that no step was skipped, that the training loss falls to a third, and that
// on the scenarios it was trained on the network is closer to the truth than a car that keeps its velocity.
#include "recording.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

namespace {

constexpr const char *config = R"(
epochs: 30
warmup_epochs: 2
lr: 1.0e-3
weight_decay: 1.0e-4
data_loader:
  params: {batch_size: 8, num_workers: 1}
)";

/// Scenarios in memory, each with the split that it belongs to.
class Recordings : public te::ScenarioSource {
  public:
    void add(te::Scenario scenario, te::Split split) { entries_.push_back({std::move(scenario), split}); }

    std::size_t size() override { return entries_.size(); }
    te::Scenario load(std::size_t index) override { return entries_.at(index).scenario; }
    te::ScenarioInfo info(std::size_t index) override {
        const auto &[scenario, split] = entries_.at(index);
        return {scenario.token, scenario.log_name, scenario.scenario_type, split};
    }
    bool thread_safe() const override { return true; }

  private:
    struct Entry {
        te::Scenario scenario;
        te::Split split;
    };
    std::vector<Entry> entries_;
};

/// Distance, eight seconds ahead, between the truth and a car that keeps its velocity.
double constant_velocity_error(const te::Scenario &scenario) {
    const te::EgoState &now = scenario.ego.at(te::history_steps - 1), &then = scenario.ego.at(te::total_steps - 1);
    const double seconds = te::future_steps * te::step_seconds;
    return std::hypot(then.x - now.x - now.vx * seconds, then.y - now.y - now.vy * seconds);
}

bool expect(bool holds, const char *what) {
    std::printf("%-6s %s\n", holds ? "ok" : "FAILED", what);
    return holds;
}

int run(const std::string &folder, const std::vector<std::string> &overrides) {
    auto all = std::make_shared<Recordings>();
    auto trained = std::make_shared<Recordings>(); // the training scenarios once more, for the final figure
    std::map<std::string, std::vector<te::Scenario>> recordings;
    for (const auto &path : find_recordings(folder)) {
        auto scenario = read_recording(path);
        recordings[recording_of(scenario)].push_back(std::move(scenario));
    }
    double baseline = 0;
    std::size_t number = 0;
    for (auto &[name, scenarios] : recordings) {
        const bool held_out = ++number % 5 == 0;
        for (auto &scenario : scenarios) {
            all->add(scenario, held_out ? te::Split::validation : te::Split::train);
            if (held_out) continue;
            baseline += constant_velocity_error(scenario);
            trained->add(std::move(scenario), te::Split::test);
        }
    }
    if (trained->size() == 0) throw std::runtime_error("no *.json.gz scenarios in " + folder);
    baseline /= static_cast<double>(trained->size());
    std::printf("%zu scenarios of %zu recordings, %zu for training\n", all->size(), recordings.size(), trained->size());

    std::vector<double> losses;
    te::Host host;
    host.log = [](te::LogLevel level, std::string_view message) {
        if (level <= te::LogLevel::warning) std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
    };
    host.event = [&](const te::Event &event) {
        if (event.kind == TE_EVENT_EPOCH) {
            losses.push_back(event.metrics.at("loss/train_loss"));
            std::printf("epoch %2zu  training loss %8.3f  validation minFDE %6.2f m\n", event.epoch, losses.back(),
                        event.metrics.find("val/minFDE").value_or(NAN));
            std::fflush(stdout);
        }
        return te::Flow::proceed;
    };
    te::Engine engine(config, all, overrides, host);
    const te::FitReport fit = engine.fit();
    const std::string weights = "recorded.safetensors";
    engine.save_weights(weights);

    te::Engine judge(config, trained, overrides);
    judge.load_weights(weights);
    const double error = judge.test().metrics.at("test/minFDE");

    std::printf("\ntraining loss     first epoch %.3f, last epoch %.3f\n", losses.front(), losses.back());
    std::printf("training minFDE   network %.2f m, constant velocity %.2f m\n", error, baseline);
    std::printf("scenarios skipped %zu, steps skipped %zu\n\n", fit.skipped_scenarios, fit.skipped_steps);
    bool good = expect(fit.skipped_steps == 0, "no step was skipped");
    good &= expect(losses.back() <= losses.front() / 3, "the training loss fell to a third or less");
    good &= expect(error < baseline, "the training split's minFDE is below constant velocity's");
    return good ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: recorded FOLDER [key=value ...]\n");
        return 2;
    }
    try {
        return run(argv[1], {argv + 2, argv + argc});
    } catch (const std::exception &error) {
        std::fprintf(stderr, "recorded: %s\n", error.what());
        return 1;
    }
}
