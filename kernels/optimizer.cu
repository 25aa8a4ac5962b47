// Scaling and clipping of the whole gradient and the optimiser's step: two launches, and nothing waits for the host.
#include "losses.cuh"

constexpr int MOST_DECAYED = 512;

// What differs from update to update.
struct UpdateBlock {
    double scale;       // of the gathered gradient
    double most_norm;   // clips the norm of the scaled gradient; infinite: not
    float bound;        // clips each of its elements; infinite: not
    float keep, decay;  // of a decayed parameter p: p *= keep, gradient += decay p
    float factors[3][7]; // of the rule, if none, one or two of the updates are not applied that the host does not know of yet
    int decayed;         // number of ranges
    int skipped;         // updates that were not applied, as far as the host knows
    int ranges[MOST_DECAYED][2]; // start and end, in order
};

// The factor of the loss's gradient.
struct LossScale {
    double growth_factor, backoff_factor;
    float scale;
    int growth_interval, growth_tracker, pad;
};

// What an update did, and what the next one must know.
struct Outcome {
    double norm; // of the whole scaled gradient before clipping
    int applied; // 0: it was not finite, nothing is changed
    float loss_scale;
    int skipped; // updates before it that were not applied
    int spoiled; // a loss of the gathered gradients is not finite
};

struct Optimizer {
    const UpdateBlock* update;
    float *parameters, *gradients, *first, *second, *statistics, *pending;
    Outcome* outcome;
    double* partials; // [norm_blocks]
    LossScale* loss_scale; // null: the loss is not scaled
    int length, statistics_length, norm_blocks, pad;
};

// partials: sum of squares of the block's part of the gradient.
extern "C" __global__ void __launch_bounds__(256) gradient_norm(Optimizer a) {
    double sum = 0;
    int wide = a.length / 4;
#pragma unroll 4
    for (int i = global_thread(); i < wide; i += global_threads()) {
        float4 g = reinterpret_cast<const float4*>(a.gradients)[i];
        sum += double(g.x) * g.x + double(g.y) * g.y + (double(g.z) * g.z + double(g.w) * g.w);
    }
    int rest = 4 * wide + global_thread();
    if (rest < a.length) sum += double(a.gradients[rest]) * a.gradients[rest];
    Sum total = block_sum(Sum{sum, 0});
    if (threadIdx.x == 0) a.partials[blockIdx.x] = total.total;
    if (global_thread() == 0) a.outcome->skipped += !a.outcome->applied; // the update before this one
}
KERNEL(gradient_norm, Optimizer)

// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p -= size m / (sqrt(v) fix + epsilon);
// factors: b1, b2, 1 - b1, 1 - b2, size, fix, epsilon.
struct Adam {
    __device__ static void apply(const float* f, float& p, float g, float& m, float& v) {
        m = f[0] * m + f[2] * g;
        v = f[1] * v + f[3] * g * g;
        p -= f[4] * m / (sqrtf(v) * f[5] + f[6]);
    }
    static constexpr bool SECOND = true;
};
// m = keep m + take g, p -= rate (direct g + moment m); factors: keep, take, direct, moment, rate.
struct Sgd {
    __device__ static void apply(const float* f, float& p, float g, float& m, float&) {
        m = f[0] * m + f[1] * g;
        p -= f[4] * (f[2] * g + f[3] * m);
    }
    static constexpr bool SECOND = false;
};

// Every block finds the norm from the partials, in one order. Ends with gradients of zero. Statistics become the pending ones, or these
// those of before if the norm is not finite; parameters and moments are then left.
template <class Rule> __device__ void update(const Optimizer& a) {
    const UpdateBlock& u = *a.update;
    double sum = 0;
    for (int i = int(threadIdx.x); i < a.norm_blocks; i += int(blockDim.x)) sum += a.partials[i];
    float loss_scale = a.loss_scale ? a.loss_scale->scale : 1;
    double unscale = u.scale / loss_scale, norm = unscale * sqrt(block_sum(Sum{sum, 0}).total);
    bool applied = isfinite(norm) && !a.outcome->spoiled;
    if (global_thread() == 0) a.outcome->norm = norm, a.outcome->applied = applied, a.outcome->loss_scale = loss_scale;
    for (int i = global_thread(); i < a.statistics_length; i += global_threads()) {
        if (applied) a.statistics[i] = a.pending[i];
        else a.pending[i] = a.statistics[i];
    }
    if (!applied) {
        for (int i = global_thread(); i < a.length; i += global_threads()) a.gradients[i] = 0;
        return;
    }
    double most = u.most_norm / (norm + 1e-6);
    float scale = float(most < 1 ? unscale * most : unscale), bound = u.bound;
    float factors[7];
    int unknown = min(max(a.outcome->skipped - u.skipped, 0), 2);
    for (int i = 0; i < 7; i++) factors[i] = u.factors[unknown][i];

    auto one = [&](int i, int& range, float& p, float& g, float& m, float& v) {
        while (range < u.decayed && u.ranges[range][1] <= i) range++;
        float d = g * scale;
        d = d > bound ? bound : d < -bound ? -bound : d;
        if (range < u.decayed && u.ranges[range][0] <= i) {
            p *= u.keep;
            d += u.decay * p;
        }
        g = 0;
        Rule::apply(factors, p, d, m, v);
    };
    // The first range that ends behind an element.
    auto find = [&](int i) {
        int low = 0, high = u.decayed;
        while (low < high) {
            int middle = (low + high) / 2;
            if (u.ranges[middle][1] <= i) low = middle + 1;
            else high = middle;
        }
        return low;
    };
    int wide = a.length / 4;
    auto* parameters = reinterpret_cast<float4*>(a.parameters);
    auto* gradients = reinterpret_cast<float4*>(a.gradients);
    auto* first = reinterpret_cast<float4*>(a.first);
    auto* second = reinterpret_cast<float4*>(a.second);
    for (int i = global_thread(); i < wide; i += global_threads()) {
        float4 p = parameters[i], g = gradients[i], m = first[i], v = make_float4(0, 0, 0, 0);
        if (Rule::SECOND) v = second[i];
        int range = find(4 * i);
        one(4 * i, range, p.x, g.x, m.x, v.x);
        one(4 * i + 1, range, p.y, g.y, m.y, v.y);
        one(4 * i + 2, range, p.z, g.z, m.z, v.z);
        one(4 * i + 3, range, p.w, g.w, m.w, v.w);
        parameters[i] = p, gradients[i] = g, first[i] = m;
        if (Rule::SECOND) second[i] = v;
    }
    int rest = 4 * wide + global_thread();
    if (rest < a.length) {
        int range = find(rest);
        one(rest, range, a.parameters[rest], a.gradients[rest], a.first[rest], a.second[rest]);
    }
}
// Four blocks a multiprocessor, as many as there are: for five, registers would be spilled.
extern "C" __global__ void __launch_bounds__(256, 4) adam(Optimizer a) { update<Adam>(a); }
KERNEL(adam, Optimizer)
extern "C" __global__ void __launch_bounds__(256) sgd(Optimizer a) { update<Sgd>(a); }
KERNEL(sgd, Optimizer)

// After an update: the factor goes on as that of torch.amp.GradScaler.
extern "C" __global__ void __launch_bounds__(32) advance_loss_scale(Optimizer a) {
    if (threadIdx.x != 0) return;
    LossScale& s = *a.loss_scale;
    if (!a.outcome->applied) {
        s.scale = float(s.scale * s.backoff_factor), s.growth_tracker = 0;
    } else if (++s.growth_tracker == s.growth_interval) {
        float grown = float(s.scale * s.growth_factor);
        if (isfinite(grown)) s.scale = grown;
        s.growth_tracker = 0;
    }
}
KERNEL(advance_loss_scale, Optimizer)
