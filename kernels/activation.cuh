// What is applied to results of products, and its slopes.
#pragma once
#include "storage.cuh"

enum Activation { NONE, RELU, GELU };

// Φ(x) of the normal distribution, and e^(-x²/2). Φ(-|x|) e^(x²/2) is taken to be t times a polynomial of t = 1 / (1 + 0.3 |x|), fitted for
// the least relative error, 1.5e-7: half as many instructions as erff takes, and the exponential is that of the slope.
struct Normal {
    float below, bell;
};
__device__ inline Normal normal(float x) {
    float t = reciprocal(1 + 0.3f * fabsf(x)), bell = power_of_2(-0.7213475204444817f * x * x);
    constexpr float FIT[] = {-0.1572561562f, 0.2064447105f, -0.05376732349f, 0.1286057383f, 0.09990018606f, 0.1207560748f, 0.1196291596f};
    float sum = 0.03568754345f;
#pragma unroll
    for (float factor : FIT) sum = sum * t + factor;
    float tail = sum * t * bell;
    return {x > 0 ? 1 - tail : tail, bell};
}
// x Φ(x).
__device__ inline float gelu(float x) { return x * normal(x).below; }
// d(x Φ(x)) / dx = Φ(x) + x φ(x).
__device__ inline float gelu_slope(float x) {
    Normal n = normal(x);
    return n.below + x * 0.3989422804014327f * n.bell;
}
// NaN stays.
__device__ inline float relu(float x) { return x < 0 ? 0 : x; }

// y = gelu(x).
struct Gelu {
    const StepBlock* step;
    Reference x, y;
    Rows rows;
    int width, pad;
};
__device__ APART inline void gelu_rows(const Gelu& a, Run run) {
    const float* x = read(a.x, a.step);
    int width = a.width;
    Stored y(a.y, a.step, width);
    known(is_wide(x, width) && y.wide, [&](auto wide) {
        for_blocks(run, width, [&](int row, int column) { return load4(x + size_t(row) * width, column, width, wide); },
                   [&](int row, int column, float4 v) {
                       y.put(row, column, make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w)), false);
                   });
    });
}
