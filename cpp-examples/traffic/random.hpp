// Random numbers that are the same on every platform and standard library: xoshiro256++ seeded through splitmix64, with
// the few distributions that the simulation needs. (The distributions of <random> differ between implementations.)
#pragma once

#include <cmath>
#include <cstdint>

namespace traffic {

class Random {
public:
    explicit Random(std::uint64_t seed) {
        for (auto& word : state_) {
            seed += 0x9E3779B97F4A7C15ULL;
            std::uint64_t z = seed;
            z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
            z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
            word = z ^ (z >> 31U);
        }
    }

    std::uint64_t bits() {
        const std::uint64_t result = rotate(state_[0] + state_[3], 23U) + state_[0];
        const std::uint64_t t = state_[1] << 17U;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = rotate(state_[3], 45U);
        return result;
    }

    // In [0, 1).
    double uniform() { return static_cast<double>(bits() >> 11U) * 0x1.0p-53; }
    double uniform(double low, double high) { return low + (high - low) * uniform(); }
    // In 0 .. count-1.
    std::size_t below(std::size_t count) { return static_cast<std::size_t>(uniform() * static_cast<double>(count)); }
    bool chance(double probability) { return uniform() < probability; }

    // Box-Muller, cut off at 2.5 standard deviations so that no driver is absurd.
    double normal(double mean, double deviation) {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        const double value = radius * std::cos(6.283185307179586 * uniform());
        return mean + deviation * std::fmax(-2.5, std::fmin(2.5, value));
    }

private:
    static std::uint64_t rotate(std::uint64_t x, unsigned k) { return (x << k) | (x >> (64U - k)); }
    std::uint64_t state_[4]{};
};

}  // namespace traffic
