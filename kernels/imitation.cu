// Imitation of poses; in double precision, as all losses. A thread has one step.
#include "losses.cuh"

// Prediction x and target [rows, 6 steps] (x, y, cos, sin, ..), valid [rows, steps], weight [rows, 1]. Sum over valid steps of
// weight decay (factors[0] (|dx|^p + |dy|^p) + factors[1] |dtheta|^q) with p = 2 where square[0], q = 2 where square[1], else 1, and
// decay = e^(-step / steps) or 1.
struct Imitation {
    Reference x, target, valid, weight;
    double factors[2];
    Rows rows;
    int steps, square[2], decay;
};
// Differences of a step and what they count.
struct Difference {
    double x, y, turn, cosine, sine, position, heading;
    bool valid;
    __device__ Difference(const Imitation& of, const StepBlock* block, int i) {
        valid = read(of.valid, block)[i] != 0;
        if (!valid) return;
        int row = i / of.steps, step = i - row * of.steps;
        const float *a = read(of.x, block) + size_t(i) * 6, *b = read(of.target, block) + size_t(i) * 6;
        double weight = read(of.weight, block)[row] * (of.decay ? exp(-double(step) / of.steps) : 1);
        position = weight * of.factors[0], heading = weight * of.factors[1];
        x = double(a[0]) - b[0], y = double(a[1]) - b[1];
        cosine = a[2], sine = a[3];
        turn = atan2(sine, cosine) - atan2(double(b[3]), double(b[2]));
    }
};
__device__ inline double power(bool square, double d) { return square ? d * d : fabs(d); }
__device__ inline double slope(bool square, double d) { return square ? 2 * d : d > 0 ? 1 : d < 0 ? -1 : d; }

struct ImitationForward {
    LossOutput out;
    Imitation of;
};
extern "C" __global__ void __launch_bounds__(256) imitation_forward(ImitationForward a) {
    int count = resolve(a.of.rows, a.out.step) * a.of.steps;
    Sum sum = {0, 0};
    for (int i = global_thread(); i < count; i += global_threads()) {
        Difference d(a.of, a.out.step, i);
        if (!d.valid) continue;
        sum.total += d.position * (power(a.of.square[0], d.x) + power(a.of.square[0], d.y)) + d.heading * power(a.of.square[1], d.turn);
    }
    finish(a.out, sum);
}
KERNEL(imitation_forward, ImitationForward)

struct ImitationBackward {
    LossGradient to;
    Imitation of;
};
extern "C" __global__ void __launch_bounds__(256) imitation_backward(ImitationBackward a) {
    int count = resolve(a.of.rows, a.to.step) * a.of.steps;
    double scale = a.to.scale();
    for (int i = global_thread(); i < count; i += global_threads()) {
        Difference d(a.of, a.to.step, i);
        double slopes[6] = {};
        if (d.valid) {
            // dtheta = (cos d sin - sin d cos) / (cos^2 + sin^2); none where both are 0.
            double square = d.cosine * d.cosine + d.sine * d.sine;
            double turning = square > 0 ? scale * d.heading * slope(a.of.square[1], d.turn) / square : 0;
            slopes[0] = scale * d.position * slope(a.of.square[0], d.x);
            slopes[1] = scale * d.position * slope(a.of.square[0], d.y);
            slopes[2] = -turning * d.sine;
            slopes[3] = turning * d.cosine;
        }
        float* dx = write(a.to.dx) + size_t(i) * 6;
        for (int c = 0; c < 6; c++) a.to.put(dx + c, slopes[c]);
    }
}
KERNEL(imitation_backward, ImitationBackward)
