// Counts what accesses cost: the lanes of a warp that execute an instruction for the nth time form a request. A request to global memory
// moves sectors of 32 bytes; one to shared memory takes a wavefront for every word that lies in the same of 32 banks as another.
#include "runtime.h"
#include <algorithm>
#include <map>

namespace emulator {
struct Request {
    uintptr_t addresses[WARP];
    unsigned lanes;
};
// Of one instruction of one kernel.
struct Cost {
    bool is_shared;
    unsigned bytes;
    size_t requests, units, fewest; // sectors or wavefronts; those that the same bytes would need if they lay together
};
struct Meter {
    unsigned block_epoch = 0;
    const char* kernel = nullptr;
    std::map<std::pair<unsigned, const void*>, unsigned> times;                    // by thread and instruction, in this block
    std::map<std::pair<const void*, std::pair<unsigned, unsigned>>, Request> open; // by instruction, warp and time
    std::map<const void*, std::pair<bool, unsigned>> kinds;                        // in shared memory; bytes
    std::map<std::pair<std::string, const void*>, Cost> costs;
};
std::shared_ptr<Meter> make_meter() { return std::make_shared<Meter>(); }

static size_t distinct(std::vector<uintptr_t>& values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values.size();
}

static void add_shared(Cost& cost, const Request& request, unsigned bytes) {
    // Accesses of 8 and 16 bytes are made in 2 and 4 parts.
    unsigned lanes = bytes == 16 ? 8 : bytes == 8 ? 16 : WARP;
    for (unsigned first = 0; first < WARP; first += lanes) {
        std::vector<uintptr_t> words;
        for (unsigned lane = first; lane < first + lanes; lane++)
            for (unsigned byte = 0; request.lanes >> lane & 1 && byte < bytes; byte += 4) words.push_back(request.addresses[lane] / 4 + byte / 4);
        size_t count = distinct(words), banks[WARP] = {};
        for (uintptr_t word : words) banks[word % WARP]++;
        cost.units += *std::max_element(banks, banks + WARP), cost.fewest += (count + WARP - 1) / WARP;
    }
}
static void add_global(Cost& cost, const Request& request, unsigned bytes) {
    std::vector<uintptr_t> sectors, touched;
    for (unsigned lane = 0; lane < WARP; lane++)
        for (unsigned byte = 0; request.lanes >> lane & 1 && byte < bytes; byte++) {
            touched.push_back(request.addresses[lane] + byte);
            sectors.push_back((request.addresses[lane] + byte) / 32);
        }
    cost.units += distinct(sectors), cost.fewest += (distinct(touched) + 31) / 32;
}
static void close(Meter& meter) {
    for (auto& [key, request] : meter.open) {
        auto [is_shared, bytes] = meter.kinds[key.first];
        Cost& cost = meter.costs[{meter.kernel, key.first}];
        cost.is_shared = is_shared, cost.bytes = bytes, cost.requests++;
        is_shared ? add_shared(cost, request, bytes) : add_global(cost, request, bytes);
    }
    meter.open.clear(), meter.times.clear();
}

void measure(Meter& meter, const void* address, size_t bytes, bool is_shared, const void* place) {
    if (meter.block_epoch != device->block_epoch) {
        close(meter);
        meter.block_epoch = device->block_epoch, meter.kernel = device->kernel->name;
    }
    const Fiber& me = device->current();
    unsigned time = meter.times[{me.linear, place}]++;
    Request& request = meter.open[{place, {me.linear / WARP, time}}];
    request.addresses[me.lane] = reinterpret_cast<uintptr_t>(address), request.lanes |= 1u << me.lane;
    meter.kinds[place] = {is_shared, unsigned(bytes)};
}

std::string costs(Meter& meter) {
    close(meter);
    std::string text;
    for (auto& [key, cost] : meter.costs) {
        char line[512];
        snprintf(line, sizeof line, "%s (%s): %s, %u bytes a lane, %zu requests, %.2f %s a request, %.2f would do%s\n", key.first.c_str(),
                 lines_of(key.second).c_str(), cost.is_shared ? "shared" : "global", cost.bytes, cost.requests, double(cost.units) / double(cost.requests),
                 cost.is_shared ? "wavefronts" : "sectors", double(cost.fewest) / double(cost.requests), 2 * cost.units > 3 * cost.fewest ? ", excess" : "");
        text += line;
    }
    meter.costs.clear();
    return text;
}
} // namespace emulator
