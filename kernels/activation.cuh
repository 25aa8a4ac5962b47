// What is applied to results of products, and its slopes.
#pragma once
#include "common.cuh"

enum Activation { NONE, RELU, GELU };

// Φ(x) of the normal distribution.
__device__ inline float normal(float x) { return 0.5f * (1 + erff(x * 0.70710678118654752f)); }
// x Φ(x).
__device__ inline float gelu(float x) { return x * normal(x); }
// d(x Φ(x)) / dx = Φ(x) + x φ(x).
__device__ inline float gelu_slope(float x) { return normal(x) + x * 0.3989422804014327f * expf(-0.5f * x * x); }
// NaN stays.
__device__ inline float relu(float x) { return x < 0 ? 0 : x; }
