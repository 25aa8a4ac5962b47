// Hands the scenarios of a corpus to training_engine: the bridge between the simulation and the library.
#pragma once

#include "scenario.hpp"

#include <training_engine.hpp>

namespace traffic {

// A scenario as the library wants it. With `with_future` false only the history goes along, as when driving.
te::Scenario to_engine(const TownScenario& scenario, std::shared_ptr<const te::Map> map, bool with_future);

class TownSource final : public te::ScenarioSource {
public:
    // `splits` has one entry per recording of the corpus.
    TownSource(std::shared_ptr<const Corpus> corpus, std::vector<te::Split> splits);

    std::size_t size() override { return corpus_->size(); }
    te::ScenarioInfo info(std::size_t index) override;
    te::Scenario load(std::size_t index) override;
    // The recordings do not change, so any number of threads may read them.
    bool thread_safe() const override { return true; }

    std::shared_ptr<const te::Map> map(std::size_t log) const { return maps_[log]; }

private:
    std::shared_ptr<const Corpus> corpus_;
    std::vector<te::Split> splits_;
    std::vector<std::shared_ptr<const te::Map>> maps_;  // one per recording, shared by its scenarios
};

}  // namespace traffic
