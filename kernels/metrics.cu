// Measures of predicted trajectories, in double precision: a warp has a measure of an ego or an agent at a time, its lanes the steps.
#include "losses.cuh"

constexpr int MOST_MEASURES = 16;
constexpr double PI = 3.14159265358979323846;

// What a measure is of, and what it is; see src/graph/op.rs.
enum Deviation { DISTANCE, BEYOND, TURN };
struct Measure {
    double limit; // of BEYOND
    int most;     // candidates of an ego; 0: an agent, below: the agents of a scenario
    int deviation, last, pad;
};

struct Metrics {
    Reference candidates, logits, prediction, ego, target, valid; // [n, 6 steps], [n, 1], [agents, 6 steps], [.., 6 steps], [agents, steps]
    IndexReference rows, tokens, scenarios;                       // first row and number of each scenario; token of each agent; scenario of each token
    const StepBlock* step;
    Sum* partials; // [blocks, count]
    Rows agents;
    int steps, count;
    Measure measures[MOST_MEASURES];
};

// A place among the rows of a scenario, by logit, then by row.
struct Place {
    float logit;
    int row;
    __device__ bool before(Place other) const { return logit > other.logit || (logit == other.logit && row < other.row); }
};

// Of poses x, y, cos, sin, ..
__device__ inline double deviation(const Measure& m, const float* a, const float* b) {
    if (m.deviation == TURN) {
        double turn = fabs(atan2(double(a[3]), double(a[2])) - atan2(double(b[3]), double(b[2])));
        return turn > PI ? turn - 2 * PI : turn;
    }
    double x = double(a[0]) - b[0], y = double(a[1]) - b[1], distance = sqrt(x * x + y * y);
    return m.deviation == DISTANCE ? distance : !(distance <= m.limit);
}

// Sum and count over the steps of a row, those that are known where `valid` says so. All lanes of a warp must call.
__device__ inline Sum over_steps(const Measure& m, int steps, const float* guess, const float* truth, const float* valid) {
    Sum sum = {0, 0};
    for (int i = (m.last ? steps - 1 : 0) + lane(); i < steps; i += 32) {
        if (valid && valid[i] == 0) continue;
        sum = {sum.total + deviation(m, guess + 6 * i, truth + 6 * i), sum.count + 1};
    }
    return {warp_sum(sum.total), warp_sum(sum.count)};
}

// Smallest mean over the most probable rows of a scenario; not a number if one is none. All lanes of a warp must call.
__device__ inline double best(const Metrics& a, const Measure& m, int scenario) {
    const int* rows = read(a.rows, a.step) + 2 * scenario;
    const float *logits = read(a.logits, a.step), *candidates = read(a.candidates, a.step);
    const float* truth = read(a.ego, a.step) + size_t(scenario) * 6 * a.steps;
    double least = m.deviation == BEYOND ? 1 : INFINITY;
    Place last = {INFINITY, -1};
    for (int i = 0; i < m.most; i++) {
        Place next = {-INFINITY, 0x7fffffff};
        for (int row = rows[0] + lane(); row < rows[0] + rows[1]; row += 32) {
            Place place = {fmaxf(logits[row], -INFINITY), row}; // the lowest where it is no number
            if (last.before(place) && place.before(next)) next = place;
        }
        for (int other = 16; other > 0; other /= 2) {
            Place place = {__shfl_xor_sync(FULL_WARP, next.logit, other), __shfl_xor_sync(FULL_WARP, next.row, other)};
            if (place.before(next)) next = place;
        }
        if (next.row == 0x7fffffff) break;
        Sum sum = over_steps(m, a.steps, candidates + size_t(next.row) * 6 * a.steps, truth, nullptr);
        double mean = sum.total / sum.count;
        if (!isnan(least) && !(least < mean)) least = mean;
        last = next;
    }
    return least;
}

// Mean over the known steps of agents from .. to; no count without any. All lanes of a warp must call.
__device__ inline Sum mean(const Metrics& a, const Measure& m, int from, int to, double extra) {
    const float *guess = read(a.prediction, a.step), *truth = read(a.target, a.step), *valid = read(a.valid, a.step);
    Sum sum = {0, 0};
    for (int agent = from; agent < to; agent++) {
        size_t place = size_t(agent) * a.steps;
        Sum own = over_steps(m, a.steps, guess + 6 * place, truth + 6 * place, valid + place);
        sum = {sum.total + own.total, sum.count + own.count};
    }
    if (sum.count == 0) return {0, 0};
    return {sum.total / (sum.count + (m.last ? 0 : extra)), 1}; // the small term stands in the published metric
}

// The first agent of this scenario or a later one.
__device__ inline int first_agent(const Metrics& a, int agents, int scenario) {
    const int *tokens = read(a.tokens, a.step), *scenarios = read(a.scenarios, a.step);
    int low = 0, high = agents;
    while (low < high) {
        int middle = (low + high) / 2;
        if (scenarios[tokens[middle]] < scenario) low = middle + 1;
        else high = middle;
    }
    return low;
}

// With half of a multiprocessor for each block, registers would be spilled.
extern "C" __global__ void __launch_bounds__(256, 1) metrics(Metrics a) {
    __shared__ Sum sums[8][MOST_MEASURES];
    for (int i = int(threadIdx.x); i < 8 * MOST_MEASURES; i += int(blockDim.x)) sums[i / MOST_MEASURES][i % MOST_MEASURES] = {0, 0};
    __syncthreads();
    int egos = length(a.rows, a.step) / 2, agents = resolve(a.agents, a.step);
    for (int item = global_thread() / 32; item < (egos + agents) * a.count; item += global_threads() / 32) {
        int unit = item / a.count, i = item % a.count;
        const Measure& m = a.measures[i];
        if ((unit < egos) == (m.most == 0)) continue;
        Sum own = m.most > 0   ? Sum{best(a, m, unit), 1}
                  : m.most < 0 ? mean(a, m, first_agent(a, agents, unit), first_agent(a, agents, unit + 1), 0)
                               : mean(a, m, unit - egos, unit - egos + 1, 1e-6);
        if (lane() > 0) continue;
        Sum& sum = sums[warp()][i];
        sum = {sum.total + own.total, sum.count + own.count};
    }
    __syncthreads();
    int i = int(threadIdx.x);
    if (i >= a.count) return;
    Sum total = {0, 0};
    for (int w = 0; w < 8; w++) total = {total.total + sums[w][i].total, total.count + sums[w][i].count};
    a.partials[size_t(blockIdx.x) * a.count + i] = total;
}
KERNEL(metrics, Metrics)

// The last launch of a plan: sums of measures from those of blocks, and then all numbers of its report, from wherever they are:
// to[i] = *from[i]. The first `losses` of them are looked at.
struct Report {
    const Sum* partials; // [blocks, measures]
    float* sums;         // [2 measures]
    const float* const* from;
    float* to;
    int* spoiled; // whether a loss since the last update is not finite; null: not asked for
    const StepBlock* step;
    int blocks, measures, count, losses;
};
extern "C" __global__ void __launch_bounds__(256) report(Report a) {
    for (int i = warp(); i < a.measures; i += int(blockDim.x / 32)) {
        Sum sum = {0, 0};
        for (int block = lane(); block < a.blocks; block += 32) {
            Sum own = a.partials[size_t(block) * a.measures + i];
            sum = {sum.total + own.total, sum.count + own.count};
        }
        sum = {warp_sum(sum.total), warp_sum(sum.count)};
        if (lane() == 0) a.sums[2 * i] = float(sum.total), a.sums[2 * i + 1] = float(sum.count);
    }
    __syncthreads();
    for (int i = int(threadIdx.x); i < a.count; i += int(blockDim.x)) a.to[i] = *a.from[i];
    if (a.spoiled == nullptr || warp() > 0) return;
    float spoiled = 0;
    for (int i = lane(); i < a.losses; i += 32) spoiled += !isfinite(*a.from[i]);
    spoiled = warp_sum(spoiled);
    if (lane() == 0) *a.spoiled = spoiled > 0 || (a.step->gathered && *a.spoiled);
}
KERNEL(report, Report)
