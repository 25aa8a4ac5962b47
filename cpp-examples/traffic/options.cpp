#include "options.hpp"

#include <stdexcept>

namespace traffic {

std::string usage() {
    const Options o;
    const auto show = [](std::size_t value) { return std::to_string(value); };
    return "traffic [options] [key=value ...]\n"
           "Simulates traffic in small towns, trains PLUTO on it and compares with constant velocity on towns never seen.\n\n"
           "  --scenarios N   scenarios in all (" + show(o.scenarios) + ")\n"
           "  --logs L        towns; an eighth is for validation, an eighth for testing (" + show(o.logs) + ")\n"
           "  --epochs E      (" + show(o.epochs) + ")\n"
           "  --seed S        of the simulation and the training (" + std::to_string(o.seed) + ")\n"
           "  --width D       of the network (" + show(o.width) + ")\n"
           "  --depth N       encoder and decoder layers (" + show(o.depth) + ")\n"
           "  --batch N       scenarios per step (" + show(o.batch) + ")\n"
           "  --lr RATE       learning rate (4e-3)\n"
           "  --threads T     0: as many as there are cores (" + show(o.threads) + ")\n"
           "  --out DIR       for checkpoints, logs and traffic.svg (" + o.out + ")\n"
           "  --max-ratio R   fail if test minFDE exceeds R times that of constant velocity; 0: never (0.5)\n"
           "  --dry-run       simulate, print statistics and draw a scenario, without training\n"
           "  key=value       any setting of the engine, such as model.num_modes=6\n";
}

Options parse_options(int count, char** words) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "--help" || word == "-h") {
            options.help = true;
        } else if (word == "--dry-run") {
            options.dry_run = true;
        } else if (word.rfind("--", 0) != 0 && word.find('=') != std::string::npos) {
            options.overrides.push_back(word);
        } else {
            if (word.rfind("--", 0) != 0 || i + 1 >= count) {
                throw std::invalid_argument("'" + word + "' is not understood or lacks its value; see --help");
            }
            const std::string value = words[++i];
            const auto fail = [&] { return std::invalid_argument(word + " " + value + ": not a number that makes sense"); };
            // A number, the whole word and nothing below `least`.
            const auto number = [&](double least) {
                std::size_t used = 0;
                double result = 0.0;
                try {
                    result = std::stod(value, &used);
                } catch (const std::exception&) {
                    throw fail();
                }
                if (used != value.size() || !(result >= least && result <= 1e9)) {
                    throw fail();
                }
                return result;
            };
            const auto whole = [&](double least) { return static_cast<std::size_t>(number(least)); };
            if (word == "--scenarios") {
                options.scenarios = whole(8);
            } else if (word == "--logs") {
                options.logs = whole(3);
            } else if (word == "--epochs") {
                options.epochs = whole(1);
            } else if (word == "--seed") {
                options.seed = whole(0);
            } else if (word == "--width") {
                options.width = whole(8);
            } else if (word == "--depth") {
                options.depth = whole(1);
            } else if (word == "--batch") {
                options.batch = whole(1);
            } else if (word == "--lr") {
                options.learning_rate = number(0);
            } else if (word == "--threads") {
                options.threads = whole(0);
            } else if (word == "--max-ratio") {
                options.max_ratio = number(0);
            } else if (word == "--out") {
                options.out = value;
            } else {
                throw std::invalid_argument("unknown option " + word + "; see --help");
            }
        }
    }
    if (options.scenarios < 2 * options.logs) {
        throw std::invalid_argument("--scenarios must be at least twice --logs");
    }
    return options;
}

}  // namespace traffic
