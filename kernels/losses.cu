// Losses, and arithmetic of scalars. They are small and computed in double precision.
#include "losses.cuh"

// y = sum / divisor of the partials of `blocks` blocks.
struct LossJoin {
    LossOutput out;
    int blocks, pad;
};
extern "C" __global__ void __launch_bounds__(128) loss_join(LossJoin a) {
    Sum sum = {0, 0};
    for (int i = int(threadIdx.x); i < a.blocks; i += int(blockDim.x)) {
        Sum other = a.out.partials[i];
        sum = {sum.total + other.total, sum.count + other.count};
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *write(a.out.y) = float(sum.total / a.out.divisor(sum.count));
}
KERNEL(loss_join, LossJoin)

// ---- Scalars: sum, largest and multiple of up to 16.

struct Scalars {
    const StepBlock* step;
    Reference x[16], dx[16], y;
    double factor;
    int count, accumulate; // bit i: add to dx[i]

    __device__ float value(int i) const { return *read(x[i], step); }
    __device__ void put(int i, float value) const {
        float* to = write(dx[i]);
        if (to) *to = accumulate >> i & 1 ? *to + value : value;
    }
    // Which is largest, the first of equals; one that is not a number is.
    __device__ int largest() const {
        int most = 0;
        for (int i = 1; i < count; i++) {
            if (!(value(most) >= value(i) || isnan(value(most)))) most = i;
        }
        return most;
    }
};
// Backward, y is the gradient of the result.
extern "C" __global__ void __launch_bounds__(128) sum_forward(Scalars a) {
    if (threadIdx.x > 0) return;
    float sum = 0;
    for (int i = 0; i < a.count; i++) sum += a.value(i);
    *write(a.y) = sum;
}
KERNEL(sum_forward, Scalars)
extern "C" __global__ void __launch_bounds__(128) sum_backward(Scalars a) {
    if (threadIdx.x > 0) return;
    for (int i = 0; i < a.count; i++) a.put(i, *read(a.y, a.step));
}
KERNEL(sum_backward, Scalars)
extern "C" __global__ void __launch_bounds__(128) largest_forward(Scalars a) {
    if (threadIdx.x == 0) *write(a.y) = a.value(a.largest());
}
KERNEL(largest_forward, Scalars)
extern "C" __global__ void __launch_bounds__(128) largest_backward(Scalars a) {
    if (threadIdx.x > 0) return;
    int most = a.largest();
    for (int i = 0; i < a.count; i++) a.put(i, i == most ? *read(a.y, a.step) : 0);
}
KERNEL(largest_backward, Scalars)
extern "C" __global__ void __launch_bounds__(128) scale_forward(Scalars a) {
    if (threadIdx.x == 0) *write(a.y) = float(a.factor * a.value(0));
}
KERNEL(scale_forward, Scalars)
extern "C" __global__ void __launch_bounds__(128) scale_backward(Scalars a) {
    if (threadIdx.x == 0) a.put(0, float(a.factor * *read(a.y, a.step)));
}
KERNEL(scale_backward, Scalars)

// ---- Smooth L1: mean over valid steps of the sum over channels of d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere.

// x [rows, steps channels], target [rows, steps target_channels], valid [rows, steps].
struct SmoothL1 {
    Reference x, target, valid;
    Rows rows;
    int steps, channels, target_channels, pad;
};
struct SmoothL1Forward {
    LossOutput out;
    SmoothL1 of;
};
extern "C" __global__ void __launch_bounds__(256) smooth_l1_forward(SmoothL1Forward a) {
    const StepBlock* step = a.out.step;
    const float *x = read(a.of.x, step), *target = read(a.of.target, step), *valid = read(a.of.valid, step);
    int count = resolve(a.of.rows, step) * a.of.steps;
    Sum sum = {0, 0};
    for (int i = global_thread(); i < count; i += global_threads()) {
        if (valid[i] == 0) continue;
        sum.count += 1;
        for (int c = 0; c < a.of.channels; c++) {
            double d = fabs(double(x[i * a.of.channels + c] - target[i * a.of.target_channels + c]));
            sum.total += d < 1 ? 0.5 * d * d : d - 0.5;
        }
    }
    finish(a.out, sum);
}
KERNEL(smooth_l1_forward, SmoothL1Forward)

struct SmoothL1Backward {
    LossGradient to;
    SmoothL1 of;
};
extern "C" __global__ void __launch_bounds__(256) smooth_l1_backward(SmoothL1Backward a) {
    const StepBlock* step = a.to.step;
    const float *x = read(a.of.x, step), *target = read(a.of.target, step), *valid = read(a.of.valid, step);
    float* dx = write(a.to.dx);
    int channels = a.of.channels, count = resolve(a.of.rows, step) * a.of.steps * channels;
    float scale = float(a.to.scale());
    for (int i = global_thread(); i < count; i += global_threads()) {
        int at = i / channels, c = i - at * channels;
        float d = x[i] - target[at * a.of.target_channels + c];
        float slope = d > 1 ? 1 : d < -1 ? -1 : d;
        a.to.put(dx + i, valid[at] == 0 ? 0 : slope * scale);
    }
}
KERNEL(smooth_l1_backward, SmoothL1Backward)

// ---- Unit norm: mean over rows and steps of | |(c2, c3)| - 1 | of x [rows, steps channels].

struct UnitNorm {
    Reference x;
    Rows rows;
    int steps, channels;
};
struct UnitNormForward {
    LossOutput out;
    UnitNorm of;
};
extern "C" __global__ void __launch_bounds__(256) unit_norm_forward(UnitNormForward a) {
    const float* x = read(a.of.x, a.out.step);
    int count = resolve(a.of.rows, a.out.step) * a.of.steps;
    Sum sum = {0, 0};
    for (int i = global_thread(); i < count; i += global_threads()) {
        double cosine = x[i * a.of.channels + 2], sine = x[i * a.of.channels + 3];
        sum.total += fabs(sqrt(cosine * cosine + sine * sine) - 1);
        sum.count += 1;
    }
    finish(a.out, sum);
}
KERNEL(unit_norm_forward, UnitNormForward)

struct UnitNormBackward {
    LossGradient to;
    UnitNorm of;
};
extern "C" __global__ void __launch_bounds__(256) unit_norm_backward(UnitNormBackward a) {
    const float* x = read(a.of.x, a.to.step);
    float* dx = write(a.to.dx);
    int channels = a.of.channels, count = resolve(a.of.rows, a.to.step) * a.of.steps;
    double scale = a.to.scale();
    for (int i = global_thread(); i < count; i += global_threads()) {
        double cosine = x[i * channels + 2], sine = x[i * channels + 3], norm = sqrt(cosine * cosine + sine * sine);
        double factor = norm == 0 || norm == 1 ? 0 : (norm > 1 ? scale : -scale) / norm;
        for (int c = 0; c < channels; c++) a.to.put(dx + i * channels + c, c == 2 ? factor * cosine : c == 3 ? factor * sine : 0);
    }
}
KERNEL(unit_norm_backward, UnitNormBackward)

// ---- Cross entropy: mean over scenarios of log sum exp(logits) - logit[target]. Logits x [rows, 1]; segments: start and count of each
// scenario, which do not overlap; target: its row that is right. One block, a warp a scenario.

struct CrossEntropy {
    Reference x;
    IndexReference segments, target;
    Rows rows;
};
// Logits of a scenario: their largest, and sum of exp(logit - largest). All lanes of a warp must call.
struct Softmax {
    int start, count;
    double most, sum;
    __device__ Softmax(const float* x, const int* segments, int scenario)
        : start(max(segments[2 * scenario], 0)), count(max(segments[2 * scenario + 1], 0)), sum(0) {
        float largest = -INFINITY;
        for (int i = lane(); i < count; i += 32) largest = fmaxf(largest, x[start + i]);
        most = warp_max(largest);
        for (int i = lane(); i < count; i += 32) sum += exp(x[start + i] - most);
        sum = warp_sum(sum);
    }
};
struct CrossEntropyForward {
    LossOutput out;
    CrossEntropy of;
};
extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward(CrossEntropyForward a) {
    const StepBlock* step = a.out.step;
    const float* x = read(a.of.x, step);
    const int *segments = read(a.of.segments, step), *target = read(a.of.target, step);
    int scenarios = length(a.of.target, step);
    Sum sum = {0, 0};
    for (int s = warp(); s < scenarios; s += int(blockDim.x / 32)) {
        Softmax softmax(x, segments, s);
        if (lane() > 0) continue;
        sum.count += 1;
        if (softmax.count > 0) sum.total += softmax.most + log(softmax.sum) - x[target[s]];
    }
    finish(a.out, sum);
}
KERNEL(cross_entropy_forward, CrossEntropyForward)

struct CrossEntropyBackward {
    LossGradient to;
    CrossEntropy of;
};
extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward(CrossEntropyBackward a) {
    const StepBlock* step = a.to.step;
    const float* x = read(a.of.x, step);
    const int *segments = read(a.of.segments, step), *target = read(a.of.target, step);
    float* dx = write(a.to.dx);
    int rows = resolve(a.of.rows, step), scenarios = length(a.of.target, step);
    if (!a.to.accumulate) {
        for (int i = int(threadIdx.x); i < rows; i += int(blockDim.x)) dx[i] = 0;
        __syncthreads();
    }
    double scale = a.to.scale();
    for (int s = warp(); s < scenarios; s += int(blockDim.x / 32)) {
        Softmax softmax(x, segments, s);
        double share = scale / softmax.sum;
        for (int i = softmax.start + lane(); i < softmax.start + softmax.count; i += 32) {
            dx[i] += float(share * exp(x[i] - softmax.most) - (i == target[s] ? scale : 0));
        }
    }
}
KERNEL(cross_entropy_backward, CrossEntropyBackward)

// ---- Collision: trajectory x [rows, steps channels] (x, y, cos, sin, ..) and signed distance map [rows, size size]; discs along the
// ego. Sum of (radius - distance) over the discs that are inside the map, nearer to the edge than the radius, and whose scenario is on the
// road, divided by (their number + 1e-6). A thread has one step.

constexpr int MOST_DISCS = 8;

struct Collision {
    Reference x, map;
    double discs[MOST_DISCS];
    double radius, resolution;
    Rows rows;
    int steps, channels, size, count;

    // Calls f(offset of the disc, cost, slopes of the cost by x and y) for every such disc of a step.
    template <class F> __device__ void hits(const StepBlock* block, int step, F f) const {
        const float* map = read(this->map, block) + size_t(step / steps) * size * size;
        if (map[size / 2 * size + size / 2] <= 0) return;
        const float* pose = read(this->x, block) + size_t(step) * channels;
        double x = pose[0], y = pose[1], cosine = pose[2], sine = pose[3], half = size / 2;
        for (int i = 0; i < count; i++) {
            double u = (x + discs[i] * cosine) / resolution / half, v = -(y + discs[i] * sine) / resolution / half;
            if (!(fabs(u) < 0.95 && fabs(v) < 0.95)) continue;
            double du, dv, cost = radius - sample(map, u, v, du, dv);
            double unit = size / 2.0 / resolution / half;
            if (cost > 0) f(discs[i], cost, -du * unit, dv * unit);
        }
    }
    // Bilinear value at (u, v) in [-1, 1] and its slopes by pixel; corners are those of pixels, zeros lie outside.
    __device__ double sample(const float* map, double u, double v, double& du, double& dv) const {
        double px = ((u + 1) * size - 1) / 2, py = ((v + 1) * size - 1) / 2;
        int x = int(floor(px)), y = int(floor(py));
        double fx = px - x, fy = py - y;
        auto at = [&](int x, int y) { return x >= 0 && y >= 0 && x < size && y < size ? double(map[y * size + x]) : 0.0; };
        double a = at(x, y), b = at(x + 1, y), c = at(x, y + 1), d = at(x + 1, y + 1);
        du = (b - a) * (1 - fy) + (d - c) * fy, dv = (c - a) * (1 - fx) + (d - b) * fx;
        return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy;
    }
};
struct CollisionForward {
    LossOutput out;
    Collision of;
};
extern "C" __global__ void __launch_bounds__(256) collision_forward(CollisionForward a) {
    int count = resolve(a.of.rows, a.out.step) * a.of.steps;
    Sum sum = {0, 0};
    for (int i = global_thread(); i < count; i += global_threads()) {
        a.of.hits(a.out.step, i, [&](double, double cost, double, double) { sum = {sum.total + cost, sum.count + 1}; });
    }
    finish(a.out, sum);
}
KERNEL(collision_forward, CollisionForward)

struct CollisionBackward {
    LossGradient to;
    Collision of;
};
extern "C" __global__ void __launch_bounds__(256) collision_backward(CollisionBackward a) {
    int channels = a.of.channels, count = resolve(a.of.rows, a.to.step) * a.of.steps;
    double scale = a.to.scale();
    for (int i = global_thread(); i < count; i += global_threads()) {
        double x = 0, y = 0, cosine = 0, sine = 0;
        a.of.hits(a.to.step, i, [&](double offset, double, double dx, double dy) {
            x += dx, y += dy, cosine += dx * offset, sine += dy * offset;
        });
        float* dx = write(a.to.dx) + size_t(i) * channels;
        a.to.put(dx, scale * x);
        a.to.put(dx + 1, scale * y);
        a.to.put(dx + 2, scale * cosine);
        a.to.put(dx + 3, scale * sine);
        for (int c = 4; c < channels; c++) a.to.put(dx + c, 0);
    }
}
KERNEL(collision_backward, CollisionBackward)

// ---- Triplet: mean over triplets of log(1 + exp(negative - positive)) of the cosine similarities to the anchor over `temperature`. x [rows, width];
// triplets: rows of anchor, positive, negative.

struct TripletLoss {
    Reference x;
    IndexReference triplets;
    double sharpness; // 1 / temperature
    Rows rows;
    int width, pad;
};
// Of one triplet. All lanes of a warp must call.
struct Triplet {
    const float* rows[3]; // anchor, positive, negative
    double inverse[3], cosines[2]; // of the norms; to the anchor
    __device__ Triplet(const float* x, const int* list, int width) {
        double squares[3] = {}, products[2] = {};
        for (int i = 0; i < 3; i++) rows[i] = x + size_t(list[i]) * width;
        for (int c = lane(); c < width; c += 32) {
            double anchor = rows[0][c], positive = rows[1][c], negative = rows[2][c];
            squares[0] += anchor * anchor, squares[1] += positive * positive, squares[2] += negative * negative;
            products[0] += anchor * positive, products[1] += anchor * negative;
        }
        for (int i = 0; i < 3; i++) {
            double norm = sqrt(warp_sum(squares[i]));
            inverse[i] = 1 / (norm < 1e-12 ? 1e-12 : norm); // as torch's normalize
        }
        for (int i = 0; i < 2; i++) cosines[i] = warp_sum(products[i]) * inverse[0] * inverse[i + 1];
    }
};
struct TripletForward {
    LossOutput out;
    TripletLoss of;
};
// One block, a warp a triplet.
extern "C" __global__ void __launch_bounds__(256) triplet_forward(TripletForward a) {
    const float* x = read(a.of.x, a.out.step);
    const int* list = read(a.of.triplets, a.out.step);
    int count = length(a.of.triplets, a.out.step) / 3;
    Sum sum = {0, 0};
    for (int t = warp(); t < count; t += int(blockDim.x / 32)) {
        Triplet triplet(x, list + 3 * t, a.of.width);
        if (lane() > 0) continue;
        double d = (triplet.cosines[1] - triplet.cosines[0]) * a.of.sharpness;
        sum = {sum.total + (d > 0 ? d : 0) + log1p(exp(-fabs(d))), sum.count + 1};
    }
    finish(a.out, sum);
}
KERNEL(triplet_forward, TripletForward)

struct TripletBackward {
    LossGradient to;
    TripletLoss of;
};
// A warp a row: it adds what each triplet with that row gives, in the order of triplets.
extern "C" __global__ void __launch_bounds__(256) triplet_backward(TripletBackward a) {
    const float* x = read(a.of.x, a.to.step);
    const int* list = read(a.of.triplets, a.to.step);
    int width = a.of.width, rows = resolve(a.of.rows, a.to.step), count = length(a.of.triplets, a.to.step) / 3;
    double scale = a.to.scale();
    for (int row = global_thread() / 32; row < rows; row += global_threads() / 32) {
        float* dx = write(a.to.dx) + size_t(row) * width;
        if (!a.to.accumulate) {
            for (int c = lane(); c < width; c += 32) dx[c] = 0;
        }
        for (int t = 0; t < count; t++) {
            const int* own = list + 3 * t;
            if (own[0] != row && own[1] != row && own[2] != row) continue;
            Triplet triplet(x, own, width);
            double wrong = scale / (1 + expf(float((triplet.cosines[0] - triplet.cosines[1]) * a.of.sharpness))); // softmax weight of the negative
#pragma unroll
            for (int other = 1; other < 3; other++) {
                // d cos(a, b) / da = (b' - a' cos) / |a| with a', b' of unit length.
                double weight = wrong * a.of.sharpness * (other == 1 ? -1 : 1), cosine = triplet.cosines[other - 1];
                for (int c = lane(); c < width; c += 32) {
                    double anchor = triplet.rows[0][c] * triplet.inverse[0], b = triplet.rows[other][c] * triplet.inverse[other];
                    double of_anchor = own[0] == row ? (b - anchor * cosine) * triplet.inverse[0] : 0;
                    double of_other = own[other] == row ? (anchor - b * cosine) * triplet.inverse[other] : 0;
                    dx[c] += float(weight * (of_anchor + of_other));
                }
            }
        }
    }
}
KERNEL(triplet_backward, TripletBackward)
