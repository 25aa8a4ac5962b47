// What the C++ layer promises: exceptions cross the library unchanged, values arrive whole, handles move, everything is freed once.
#include "training_engine.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#define CHECK(condition)                                                                                                                   \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            std::fprintf(stderr, "cpp_api.cpp:%d: %s (last error: %s)\n", __LINE__, #condition, te_last_error());                          \
            std::exit(1);                                                                                                                  \
        }                                                                                                                                  \
    } while (false)

namespace {

struct DiskError { // not derived from std::exception
    int sector;
};

int live_sources = 0;
std::atomic<int> loads{0};

/// A car on a straight road; throws or skips where it is told to.
struct Road : te::ScenarioSource {
    enum class Fault { none, size, skip_size, info, load, skip, foreign } fault = Fault::none;
    std::shared_ptr<const te::Map> map;

    explicit Road(Fault f = Fault::none) : fault(f) {
        ++live_sources;
        te::Lane lane;
        lane.id = "lane";
        lane.roadblock_id = "block";
        lane.centerline = {{-50, 0}, {250, 0}};
        lane.left = {{-50, 2}, {250, 2}};
        lane.right = {{-50, -2}, {250, -2}};
        map = std::make_shared<te::Map>("road", std::vector<te::Lane>{lane});
    }
    ~Road() override { --live_sources; }

    std::size_t size() override {
        if (fault == Fault::size) throw std::length_error("no list of scenarios");
        if (fault == Fault::skip_size) throw te::SkipScenario("no list of scenarios");
        return 16;
    }
    te::ScenarioInfo info(std::size_t i) override {
        if (fault == Fault::info) throw std::domain_error("scenario without a name");
        return {"s" + std::to_string(i), "log", "straight", i % 4 == 3 ? te::Split::validation : te::Split::train};
    }
    te::Scenario load(std::size_t i) override {
        ++loads;
        if (fault == Fault::load) throw std::out_of_range("frame 17 is missing");
        if (fault == Fault::skip && i == 2) throw te::SkipScenario("the ego was parked");
        if (fault == Fault::foreign) throw DiskError{42};
        te::Scenario scenario;
        scenario.token = "s" + std::to_string(i);
        scenario.log_name = "log";
        scenario.scenario_type = "straight";
        scenario.map = map;
        scenario.route = {"block"};
        te::Agent agent;
        agent.id = "car";
        for (std::size_t k = 0; k < te::total_steps; ++k) {
            const double x = 8 * (double(k) - 20) * te::step_seconds;
            scenario.ego.push_back({x, 0, 0, 8, 0, 0, 0});
            agent.states.push_back({x + 20, 0, 0, 8, 0, 1.9, 4.5, 1});
        }
        scenario.agents.push_back(agent);
        return scenario;
    }
};

const char *const config = "{epochs: 1, warmup_epochs: 0, data_loader: {params: {batch_size: 4}},"
                           " model: {dim: 32, encoder_depth: 1, decoder_depth: 1}}";

/// Runs build and fit and returns what they throw.
template <class Thrown> std::optional<Thrown> thrown_by(Road::Fault fault, const te::Host &host = {}) {
    std::optional<Thrown> result;
    try {
        te::Engine engine(config, std::make_shared<Road>(fault), {}, host);
        engine.fit();
    } catch (const Thrown &thrown) {
        result = thrown;
    }
    CHECK(live_sources == 0);
    return result;
}

/// Status of the te::Error that a call throws, TE_OK if it throws none.
template <class Call> TeStatus status_of(Call call) {
    try {
        call();
    } catch (const te::Error &error) {
        return error.status();
    }
    return TE_OK;
}

void exceptions() {
    CHECK(thrown_by<std::length_error>(Road::Fault::size));
    CHECK(thrown_by<std::domain_error>(Road::Fault::info));
    const auto load = thrown_by<std::out_of_range>(Road::Fault::load);
    CHECK(load && load->what() == std::string("frame 17 is missing"));
    const auto foreign = thrown_by<DiskError>(Road::Fault::foreign);
    CHECK(foreign && foreign->sector == 42);

    te::Host host;
    host.event = [](const te::Event &) -> te::Flow { throw std::range_error("event"); };
    CHECK(thrown_by<std::range_error>(Road::Fault::none, host));
    host.event = nullptr;
    host.log = [](te::LogLevel, std::string_view) { throw std::overflow_error("log"); };
    CHECK(thrown_by<std::overflow_error>(Road::Fault::none, host));
}

/// An exception in the log callback ends a run as well, with an event callback and without.
void log_exceptions() {
    for (const bool with_events : {true, false}) {
        bool armed = false;
        int events = 0;
        te::Host host;
        host.log = [&](te::LogLevel, std::string_view) {
            if (std::exchange(armed, false)) throw std::overflow_error("log");
        };
        if (with_events) {
            host.event = [&](const te::Event &) {
                ++events;
                return te::Flow::proceed;
            };
        }
        te::Engine engine(config, std::make_shared<Road>(), {"epochs=3"}, host);
        armed = true;
        loads = 0;
        bool thrown = false;
        try {
            engine.fit();
        } catch (const std::overflow_error &) {
            thrown = true;
        }
        CHECK(thrown && events == 0 && loads == 0);
        CHECK(engine.fit().steps > 0); // told once, it does not end the next run
    }
}

/// What a callback threw goes to the caller in whose call it was, not to one whose call was refused meanwhile.
void exceptions_of_threads() {
    struct Workers : Road {
        std::atomic<int> begun{0};
        std::atomic<bool> thrown{false}, refused{false};
        bool thread_safe() const override { return true; }
        te::Scenario load(std::size_t i) override {
            const auto wait = [](auto until) {
                for (int k = 0; k < 5000 && !until(); ++k) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            };
            if (begun++ == 0) { // the other thread has a batch of its own
                wait([&] { return begun > 1; });
                thrown = true;
                throw std::range_error("load");
            }
            wait([&] { return refused.load(); }); // keeps the run from ending
            return Road::load(i);
        }
    };
    const auto source = std::make_shared<Workers>();
    te::Engine engine(config, source, {"data_loader.params.num_workers=2", "lightning.trainer.params.num_sanity_val_steps=0"});
    bool arrived = false;
    std::thread fitting([&] {
        try {
            engine.fit();
        } catch (const std::range_error &) {
            arrived = true;
        }
    });
    while (!source->thrown) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(status_of([&] { engine.validate(); }) == TE_BUSY);
    source->refused = true;
    fitting.join();
    CHECK(arrived);
}

void skipping_elsewhere() {
    CHECK(thrown_by<te::SkipScenario>(Road::Fault::skip_size));
    te::Host host;
    host.event = [](const te::Event &) -> te::Flow { throw te::SkipScenario("event"); };
    CHECK(thrown_by<te::SkipScenario>(Road::Fault::none, host));
    host.event = nullptr;
    host.log = [](te::LogLevel, std::string_view) { throw te::SkipScenario("log"); };
    CHECK(thrown_by<te::SkipScenario>(Road::Fault::none, host));
}

/// A wish to stop that the log callback has while a checkpoint's evaluation begins is not lost.
void stopping_as_evaluation_begins() {
    const te::Engine *speaking = nullptr;
    te::Host host;
    host.log = [&](te::LogLevel, std::string_view message) {
        if (message.rfind("evaluating", 0) == 0) speaking->stop();
    };
    te::Engine engine(config, std::make_shared<Road>(), {}, host);
    speaking = &engine;
    engine.fit();
    CHECK(status_of([&] { engine.evaluate(te::Split::validation, "last"); }) == TE_STOPPED);
}

void moved_from() {
    te::Engine engine(config, std::make_shared<Road>());
    const te::Engine other(std::move(engine));
    CHECK(status_of([&] { engine.fit(); }) == TE_INVALID_ARGUMENT);
    CHECK(std::string(te_last_error()) == "the engine is null");
    CHECK(status_of([&] { engine.predict({}); }) == TE_INVALID_ARGUMENT);
    CHECK(status_of([&] { engine.save_weights("nowhere"); }) == TE_INVALID_ARGUMENT);
    CHECK(status_of([&] { engine.load_weights("nowhere"); }) == TE_INVALID_ARGUMENT);
}

void errors() {
    try {
        te::Engine engine("{model: {dimm: 3}}");
        CHECK(false);
    } catch (const te::Error &error) {
        CHECK(error.status() == TE_INVALID_CONFIG && std::string(error.what()).find("model.dim") != std::string::npos);
    }
    try {
        te::Map map("broken", {te::Lane{}});
        CHECK(false);
    } catch (const te::Error &error) {
        CHECK(error.status() == TE_INVALID_SCENARIO && std::string(error.what()).find("lanes[0].id is empty") != std::string::npos);
    }
}

void running() {
    std::size_t skipped = 0, steps = 0;
    te::Host host;
    host.event = [&](const te::Event &event) {
        if (event.kind == TE_EVENT_STEP) ++steps;
        if (event.kind == TE_EVENT_SCENARIO_SKIPPED) {
            ++skipped;
            CHECK(event.reason.find("the ego was parked") != std::string::npos);
        }
        return te::Flow::proceed;
    };
    auto road = std::make_shared<Road>(Road::Fault::skip);
    te::Engine first(config, road, {"lr=0.002"}, host);
    te::Engine engine(std::move(first));
    CHECK(te::resolve_config("lr: 2e-3", {"epochs=7"}).find("epochs: 7\n") != std::string::npos);
    CHECK(engine.config().find("0.002") != std::string::npos && !engine.summary().empty());
    const auto fit = engine.fit();
    CHECK(fit.epochs == 1 && fit.steps == steps && fit.skipped_scenarios == 1 && skipped == 1 && !fit.stopped);
    CHECK(fit.json.find("\"metrics\"") != std::string::npos && std::isfinite(fit.metrics.at("val/minFDE")));
    bool listed = false;
    try {
        static_cast<void>(fit.metrics.at("minFDE"));
    } catch (const std::out_of_range &error) {
        listed = std::string(error.what()).find("val/minFDE") != std::string::npos;
    }
    CHECK(listed);
    CHECK(engine.validate().scenarios == 4);
    CHECK(std::isfinite(engine.evaluate(te::Split::validation, "last").metrics.at("val/minFDE")));

    const auto folder = std::filesystem::temp_directory_path() / ("cpp_api." + std::to_string(steps) + ".cache");
    const std::string cached = "cache.cache_path=" + folder.string();
    const auto cache = te::Engine(config, road, {cached}).cache();
    CHECK(cache.scenarios == 16 && cache.computed == 15 && cache.failed == 1 && !cache.stopped);
    CHECK(cache.json.find("left_out_by_host") != std::string::npos);
    CHECK(te::Engine(config, nullptr, {cached, "cache.use_cache_without_dataset=true"}).validate().scenarios == 4);
    std::filesystem::remove_all(folder);

    te::Scenario scenario = road->load(0);
    scenario.ego.resize(te::history_steps);
    scenario.agents[0].states.resize(te::history_steps);
    const auto plan = engine.predict(scenario);
    CHECK(plan.best_candidate().states.size() == te::future_steps && plan.agents.at(0).id == "car");
    double sum = 0;
    for (const auto &candidate : plan.candidates) sum += candidate.probability;
    CHECK(std::abs(sum - 1) < 1e-4);

    // Weights carried to another engine give the same plan.
    const auto path = (std::filesystem::temp_directory_path() / ("cpp_api." + std::to_string(steps) + ".safetensors")).string();
    engine.save_weights(path);
    te::Engine other(config);
    other.load_weights(path);
    std::filesystem::remove(path);
    CHECK(other.predict(scenario).best_candidate().states.back().x == plan.best_candidate().states.back().x);

    host.event = [](const te::Event &event) { return event.kind == TE_EVENT_STEP ? te::Flow::stop : te::Flow::proceed; };
    te::Engine stopped(config, road, {"epochs=1000"}, host);
    CHECK(stopped.fit().stopped);
}

} // namespace

int main() {
    errors();
    exceptions();
    log_exceptions();
    exceptions_of_threads();
    skipping_elsewhere();
    stopping_as_evaluation_begins();
    moved_from();
    running();
    CHECK(live_sources == 0);
    std::puts("cpp_api: passed");
}
