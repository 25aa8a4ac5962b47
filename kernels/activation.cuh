// What is applied to results of products, and its slopes.
#pragma once
#include "row.cuh"

enum Activation { NONE, RELU, GELU };

// Φ(x) of the normal distribution.
__device__ inline float normal(float x) { return 0.5f * (1 + erff(x * 0.70710678118654752f)); }
// x Φ(x).
__device__ inline float gelu(float x) { return x * normal(x); }
// d(x Φ(x)) / dx = Φ(x) + x φ(x).
__device__ inline float gelu_slope(float x) { return normal(x) + x * 0.3989422804014327f * expf(-0.5f * x * x); }
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
    float* y = write(a.y);
    int width = a.width;
    known(is_wide(x, width) && is_wide(y, width), [&](auto wide) {
        for_blocks(run, width, [&](int row, int column) { return load4(x + size_t(row) * width, column, width, wide); },
                   [&](int row, int column, float4 v) {
                       store4(y + size_t(row) * width, column, width, wide, make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w)));
                   });
    });
}
