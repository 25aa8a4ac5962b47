// Trains PLUTO on simulated traffic, tests it in towns that it has never seen, beside a constant-velocity baseline, and
// draws what it plans. Fails if it does not learn.
#include "baseline.hpp"
#include "engine_source.hpp"
#include "options.hpp"
#include "picture.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>

namespace {

using namespace traffic;

class Clock {
public:
    double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// The last eighth of the logs is for testing, the eighth before it for validation.
std::vector<te::Split> split_logs(std::size_t logs) {
    const std::size_t part = std::max<std::size_t>(1, logs / 8);
    std::vector<te::Split> splits(logs, te::Split::train);
    for (std::size_t i = 0; i < part; ++i) {
        splits[logs - 1 - i] = te::Split::test;
        splits[logs - 1 - part - i] = te::Split::validation;
    }
    return splits;
}

std::vector<std::size_t> indices_of(const Corpus& corpus, const std::vector<te::Split>& splits, te::Split split) {
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < corpus.size(); ++i) {
        if (splits[corpus.keys[i].log] == split) {
            indices.push_back(i);
        }
    }
    return indices;
}

void print_statistics(const Corpus& corpus, const std::vector<te::Split>& splits, double seconds) {
    std::size_t junctions = 0, lanes = 0, vehicles = 0, people = 0, parked = 0, changes = 0;
    double speed = 0.0, minutes = 0.0;
    for (const Recording& r : corpus.recordings) {
        junctions += r.town->junctions.size();
        lanes += r.town->lanes.size();
        parked += r.town->parked.size();
        vehicles += r.vehicles;
        people += r.pedestrians;
        changes += r.lane_changes;
        minutes += static_cast<double>(r.steps) * time_step / 60.0;
        speed += r.mean_speed / static_cast<double>(corpus.recordings.size());
    }
    std::map<std::string, std::size_t> types;
    for (const ScenarioKey& key : corpus.keys) {
        ++types[key.type];
    }
    std::printf("%zu towns: %zu junctions, %zu lanes and connectors, %zu parked cars\n", corpus.recordings.size(), junctions, lanes, parked);
    std::printf("%.1f minutes of traffic: %zu vehicles (%.1f m/s on average), %zu pedestrians, %zu lane changes; simulated in %.1f s\n",
                minutes, vehicles, speed, people, changes, seconds);
    std::printf("%zu scenarios: %zu to train, %zu to validate, %zu to test\n ", corpus.size(),
                indices_of(corpus, splits, te::Split::train).size(), indices_of(corpus, splits, te::Split::validation).size(),
                indices_of(corpus, splits, te::Split::test).size());
    for (const auto& [type, count] : types) {
        std::printf(" %s %zu", type.c_str(), count);
    }
    std::printf("\n");
}

// A turn with a lot going on around it. Chosen before anything is predicted.
std::size_t most_eventful(const Corpus& corpus, const std::vector<std::size_t>& indices) {
    std::size_t best = indices.front();
    double best_score = -1.0;
    for (const std::size_t i : indices) {
        const TownScenario scenario = corpus.cut(i);
        double score = scenario.type == "left_turn" || scenario.type == "right_turn" ? 12.0 : 0.0;
        const EgoState& now = scenario.ego[history_steps - 1];
        for (const ScenarioAgent& agent : scenario.agents) {
            const AgentState& s = agent.states[history_steps - 1];
            if (std::hypot(s.x - now.x, s.y - now.y) < 35.0) {
                score += agent.parked ? 0.1 : std::hypot(s.vx, s.vy) > 0.5 ? 1.0 : 0.4;
            }
        }
        score += std::hypot(now.vx, now.vy) > 2.0 ? 2.0 : 0.0;
        if (score > best_score) {
            best_score = score;
            best = i;
        }
    }
    return best;
}

std::string metres(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f m", value);
    return text;
}

std::vector<Point> points_of(const std::vector<te::TrajectoryState>& states) {
    std::vector<Point> points;
    for (const te::TrajectoryState& s : states) {
        points.push_back({s.x, s.y});
    }
    return points;
}

Picture picture_of(TownScenario scenario, const te::Prediction& prediction) {
    Picture picture;
    picture.scenario = std::move(scenario);
    picture.best = prediction.best;
    double closest = 1e9;
    const EgoState& now = picture.scenario.ego[history_steps - 1];
    const EgoState& last = picture.scenario.ego.back();
    const Point end{last.x, last.y};
    for (const te::Candidate& candidate : prediction.candidates) {
        picture.candidates.push_back({candidate.probability, points_of(candidate.states)});
        closest = std::min(closest, distance(picture.candidates.back().points.back(), end));
    }
    for (const te::AgentPrediction& agent : prediction.agents) {
        picture.agents.push_back({agent.id, points_of(agent.states)});
    }
    const double seconds = static_cast<double>(future_steps) * time_step;
    const double still = std::hypot(now.x + seconds * now.vx - last.x, now.y + seconds * now.vy - last.y);
    picture.facts = {{"best plan, off after 8 s", metres(distance(picture.candidates[picture.best].points.back(), end))},
                     {"closest candidate", metres(closest)},
                     {"constant velocity", metres(still)}};
    return picture;
}

std::string configuration(const Options& o) {
    std::string text;
    const auto set = [&](const char* key, const std::string& value) { text += std::string(key) + ": " + value + "\n"; };
    char rate[32];
    std::snprintf(rate, sizeof rate, "%g", o.learning_rate);
    set("seed", std::to_string(o.seed));
    set("output_dir", "\"" + o.out + "\"");
    set("threads", std::to_string(o.threads));
    set("lr", rate);
    set("epochs", std::to_string(o.epochs));
    set("warmup_epochs", o.epochs > 4 ? "1" : "0");
    set("model.dim", std::to_string(o.width));
    set("model.encoder_depth", std::to_string(o.depth));
    set("model.decoder_depth", std::to_string(o.depth));
    // Ten thousand samples are too few to overfit, and too few to learn in spite of dropout.
    for (const char* key : {"model.dropout", "model.drop_path", "model.state_dropout"}) {
        set(key, "0");
    }
    // The distance to kerbs and obstacles teaches little before the trajectories are roughly right: for longer runs.
    set("use_collision_loss", "false");
    set("data_loader.params.batch_size", std::to_string(o.batch));
    set("lightning.trainer.checkpoint.monitor", "val/minFDE");
    set("lightning.trainer.checkpoint.save_top_k", "1");
    return text;
}

// One line per epoch.
te::Host reporter(const Clock& clock) {
    te::Host host;
    host.event = [&clock](const te::Event& event) {
        if (event.kind == TE_EVENT_EPOCH) {
            std::printf("epoch %2zu ", event.epoch + 1);
            for (const char* name : {"loss/train_loss", "loss/val_loss", "val/minADE", "val/minFDE", "val/MR"}) {
                if (const auto value = event.metrics.find(name)) {
                    std::printf("  %s %.3f", name, *value);
                }
            }
            std::printf("  %4.0f s\n", clock.seconds());
            std::fflush(stdout);
        } else if (event.kind == TE_EVENT_SCENARIO_SKIPPED) {
            std::printf("  left out %s: %s\n", event.text.c_str(), event.reason.c_str());
        } else if (event.kind == TE_EVENT_STEP_SKIPPED) {
            std::printf("  step %zu was not applied\n", event.step);
        }
        return te::Flow::proceed;
    };
    host.log = [](te::LogLevel level, std::string_view message) {
        if (level == te::LogLevel::error || level == te::LogLevel::warning) {
            std::printf("  %.*s\n", static_cast<int>(message.size()), message.data());
        }
    };
    return host;
}

bool train_and_test(const Options& options, const std::shared_ptr<const Corpus>& corpus, const std::vector<te::Split>& splits) {
    const Clock clock;
    const auto source = std::make_shared<TownSource>(corpus, splits);
    te::Engine engine(configuration(options), source, options.overrides, reporter(clock));
    std::printf("%s\n", engine.summary().c_str());
    const te::FitReport fit = engine.fit();
    std::printf("%zu steps in %.0f s; best checkpoint %s\n", fit.steps, clock.seconds(), fit.best_checkpoint.c_str());
    if (!fit.best_checkpoint.empty()) {
        engine.load_weights(fit.best_checkpoint);
    }
    const te::EvaluationReport test = engine.test();
    const auto indices = indices_of(*corpus, splits, te::Split::test);
    const BaselineMetrics baseline = constant_velocity(*corpus, indices);
    const auto value = [&](const char* name) { return test.metrics.at(name); };
    const struct {
        const char* name;
        double engine, baseline;
    } rows[] = {{"ego minADE, best of 6 (m)", value("test/minADE"), baseline.min_ade},
                {"ego minFDE, best of 6 (m)", value("test/minFDE"), baseline.min_fde},
                {"miss rate, 2 m at 8 s", value("test/MR"), baseline.miss_rate},
                {"other agents' ADE (m)", value("test/PredAvgADE"), baseline.agents_ade},
                {"other agents' FDE (m)", value("test/PredAvgFDE"), baseline.agents_fde}};
    std::printf("\n%zu test scenarios in towns never seen   PLUTO   constant velocity\n", test.scenarios);
    for (const auto& row : rows) {
        std::printf("  %-36s %8.2f   %8.2f\n", row.name, row.engine, row.baseline);
    }
    if (test.scenarios != indices.size()) {
        std::printf("  (%zu scenarios were left out by the engine, not by the baseline)\n", indices.size() - test.scenarios);
    }

    const std::size_t chosen = most_eventful(*corpus, indices);
    const TownScenario scenario = corpus->cut(chosen);
    const Clock predicting;
    const te::Prediction prediction = engine.predict(to_engine(scenario, source->map(corpus->keys[chosen].log), false));
    const std::string path = options.out + "/traffic.svg";
    std::printf("\npredicted one of them in %.0f ms; picture: %s\n", 1e3 * predicting.seconds(), path.c_str());
    write_picture(picture_of(scenario, prediction), path);

    const double ratio = rows[1].engine / baseline.min_fde;
    const bool good = options.max_ratio == 0.0 || ratio <= options.max_ratio;
    std::printf("minFDE is %.2f of constant velocity's", ratio);
    if (options.max_ratio > 0.0) {
        std::printf(" (at most %.2f wanted): %s", options.max_ratio, good ? "good" : "NOT good");
    }
    std::printf("\n");
    return good;
}

}  // namespace

int main(int count, char** words) {
    try {
        const Options options = parse_options(count, words);
        if (options.help) {
            std::printf("%s", usage().c_str());
            return 0;
        }
        std::filesystem::create_directories(options.out);
        const Clock clock;
        const auto corpus = std::make_shared<const Corpus>(make_corpus(options.scenarios, options.logs, options.seed));
        const auto splits = split_logs(options.logs);
        print_statistics(*corpus, splits, clock.seconds());
        if (options.dry_run) {
            const auto indices = indices_of(*corpus, splits, te::Split::test);
            const BaselineMetrics baseline = constant_velocity(*corpus, indices);
            std::printf("constant velocity on the test towns: minADE %.2f m, minFDE %.2f m\n", baseline.min_ade, baseline.min_fde);
            Picture picture;
            picture.scenario = corpus->cut(most_eventful(*corpus, indices));
            write_picture(picture, options.out + "/traffic.svg");
            std::printf("picture: %s/traffic.svg\n", options.out.c_str());
            return 0;
        }
        return train_and_test(options, corpus, splits) ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "traffic: %s\n", error.what());
        return 2;
    }
}
