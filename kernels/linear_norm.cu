// A linear layer of an input with the batch norm behind it, by the moments of the input: statistics of x Wᵀ + b follow from the mean and
// the covariance of x, and what both do is one product with W' and b'. In double precision, but for the product.
#include "common.cuh"

constexpr int MOST_MOMENTS = 16, MOST_PAIRS = MOST_MOMENTS + MOST_MOMENTS * (MOST_MOMENTS + 1) / 2;

// Sums of x and of products of its columns, i before j: partials [blocks, pairs].
struct Moments {
    const StepBlock* step;
    Reference x;
    double* partials;
    Rows rows;
    int width, pairs;
};
constexpr int MOMENT_ROWS = 64;
extern "C" __global__ void __launch_bounds__(256) moments(Moments a) {
    __shared__ float tile[MOMENT_ROWS][MOST_MOMENTS + 1]; // the last column is 1
    const float* x = read(a.x, a.step);
    int rows = resolve(a.rows, a.step), length = (rows + int(gridDim.x) - 1) / int(gridDim.x), k = a.width;
    int first = int(blockIdx.x) * length, end = min(rows, first + length);
    // Sums are pairs of a column with 1.
    int own = int(threadIdx.x), i = own, j = k;
    if (own >= k && own < a.pairs) {
        int rest = own - k;
        for (i = 0; rest >= k - i; i++) rest -= k - i;
        j = i + rest;
    }
    double sum = 0;
    for (int start = first; start < end; start += MOMENT_ROWS) {
        for (int e = int(threadIdx.x); e < MOMENT_ROWS * (k + 1); e += int(blockDim.x)) {
            int row = start + e / (k + 1), column = e % (k + 1);
            tile[e / (k + 1)][column] = row >= end ? 0 : column < k ? x[size_t(row) * k + column] : 1;
        }
        __syncthreads();
        if (own < a.pairs) {
#pragma unroll 8
            for (int row = 0; row < MOMENT_ROWS; row++) sum += double(tile[row][i]) * tile[row][j];
        }
        __syncthreads();
    }
    if (own < a.pairs) a.partials[size_t(blockIdx.x) * a.pairs + own] = sum;
}
KERNEL(moments, Moments)

// The layer, the norm, and what is kept: W' [n, k], b' [n], scale [n], mean of x [k], its covariance [k, k].
struct LinearNorm {
    const StepBlock* step;
    const float *weight, *bias, *gamma, *beta;
    float *running_mean, *running_variance; // pending ones in training
    float* kept;
    const double* partials; // of moments; null: running statistics
    Rows rows;
    int n, k, weight_stride, pairs, blocks, pad;
};
// A thread has a column of the result; there are more, for the sums.
extern "C" __global__ void __launch_bounds__(1024, 1) fold_norm(LinearNorm a) {
    __shared__ double sums[MOST_PAIRS], mean[MOST_MOMENTS], covariance[MOST_MOMENTS][MOST_MOMENTS];
    int rows = resolve(a.rows, a.step), n = a.n, k = a.k;
    if (rows == 0) {
        for (int i = global_thread(); i < n * k + 2 * n + k + k * k; i += global_threads()) a.kept[i] = 0;
        return;
    }
    float *weight = a.kept, *bias = weight + n * k, *scales = bias + n, *kept_mean = scales + n, *kept_covariance = kept_mean + k;
    if (a.partials) {
        for (int pair = warp(); pair < a.pairs; pair += int(blockDim.x / 32)) {
            double sum = 0;
            for (int block = lane(); block < a.blocks; block += 32) sum += a.partials[size_t(block) * a.pairs + pair];
            sum = warp_sum(sum);
            if (lane() == 0) sums[pair] = sum;
        }
        __syncthreads();
        if (int(threadIdx.x) < k) {
            int i = int(threadIdx.x), pair = k + i * k - i * (i - 1) / 2;
            mean[i] = sums[i] / rows;
            for (int j = i; j < k; j++, pair++) covariance[i][j] = covariance[j][i] = sums[pair] / rows - sums[i] / rows * (sums[j] / rows);
        }
        __syncthreads();
    }
    if (blockIdx.x == 0) {
        for (int i = int(threadIdx.x); i < k; i += int(blockDim.x)) kept_mean[i] = a.partials ? float(mean[i]) : 0;
        for (int i = int(threadIdx.x); i < k * k; i += int(blockDim.x)) kept_covariance[i] = a.partials ? float(covariance[i / k][i % k]) : 0;
    }
    int row = global_thread();
    if (row >= n) return;
    const float* w = a.weight + size_t(row) * a.weight_stride;
    double offset, variance;
    if (a.partials) {
        double shift = 0;
        variance = 0;
        for (int i = 0; i < k; i++) {
            double product = 0;
            for (int j = 0; j < k; j++) product += covariance[i][j] * w[j];
            shift += mean[i] * w[i];
            variance += product * w[i];
        }
        variance = variance < 0 ? 0 : variance;
        offset = -shift;
        a.running_mean[row] = float(0.9 * a.running_mean[row] + 0.1 * (shift + a.bias[row]));
        a.running_variance[row] = float(0.9 * a.running_variance[row] + 0.1 * variance * rows / (max(rows, 2) - 1));
    } else {
        offset = double(a.bias[row]) - a.running_mean[row];
        variance = a.running_variance[row];
    }
    double scale = 1 / sqrt(variance + 1e-5), gain = a.partials && rows == 1 ? 0 : a.gamma[row] * scale; // one row is its mean
    for (int i = 0; i < k; i++) weight[row * k + i] = float(gain * w[i]);
    bias[row] = float(a.beta[row] + gain * offset);
    scales[row] = float(scale);
}
KERNEL(fold_norm, LinearNorm)

// Gradients of several: products D = dᵀ x [n, k] and behind them the sums of d [n], which have been added to beta's. See
// src/backend/cpu/linear_norm.rs.
struct LinearNormGradient {
    LinearNorm of;
    const float* products;
    float *weight, *bias, *gamma; // gradients
    int weight_stride, pad;
};
struct LinearNormGradients {
    const LinearNormGradient* all;
};
// The grid's second axis counts them.
extern "C" __global__ void __launch_bounds__(128) linear_norm_gradients(LinearNormGradients group) {
    const LinearNormGradient& a = group.all[blockIdx.y];
    int row = global_thread(), n = a.of.n, k = a.of.k;
    bool train = a.of.partials != nullptr;
    if (row >= n || resolve(a.of.rows, a.of.step) <= int(train)) return; // of one row, beta alone has a gradient
    const float *scales = a.of.kept + n * k + n, *mean = scales + n, *covariance = mean + k;
    const float *w = a.of.weight + size_t(row) * a.of.weight_stride, *products = a.products + row * k;
    double scale = scales[row], total = a.products[n * k + row], inside = 0;
    auto d = [&](int i) { return products[i] - (train ? total * mean[i] : 0); };
    for (int i = 0; i < k; i++) inside += d(i) * w[i];
    if (!train) inside += total * (double(a.of.bias[row]) - a.of.running_mean[row]);
    double dgamma = scale * inside, gain = a.of.gamma[row] * scale;
    for (int i = 0; i < k; i++) {
        double product = 0;
        for (int j = 0; train && j < k; j++) product += double(covariance[i * k + j]) * w[j];
        a.weight[size_t(row) * a.weight_stride + i] += float(gain * (d(i) - dgamma * scale * product));
    }
    a.gamma[row] += float(dgamma);
    if (!train) a.bias[row] += float(gain * total);
}
KERNEL(linear_norm_gradients, LinearNormGradients)
