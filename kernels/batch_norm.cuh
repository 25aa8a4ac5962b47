// Batch norm, and the ReLU that may follow: four columns that a thread has.
#pragma once
#include "layer_norm.cuh"

// Columns column .. + 4 of mean, scale = 1 / sqrt(variance + epsilon), and parameters; 0 behind the width.
struct BatchNormColumns {
    float4 mean, scale, gamma, beta;
    bool relu;

    __device__ BatchNormColumns(float4 mean, float4 scale, const float* gamma, const float* beta, int column, int width, bool relu)
        : mean(mean), scale(scale), gamma(load4(gamma, column, width, is_wide(gamma, width))),
          beta(load4(beta, column, width, is_wide(beta, width))), relu(relu) {}
    // `kept` [2, width]: mean and scale.
    __device__ BatchNormColumns(const float* kept, const float* gamma, const float* beta, int column, int width, bool relu)
        : BatchNormColumns(load4(kept, column, width, is_wide(kept, width)), load4(kept + width, column, width, is_wide(kept, width)), gamma,
                           beta, column, width, relu) {}
    __device__ __forceinline__ float4 of(float4 x) const {
        return make_float4(normalised(x.x, {mean.x, scale.x}, gamma.x, beta.x, relu), normalised(x.y, {mean.y, scale.y}, gamma.y, beta.y, relu),
                           normalised(x.z, {mean.z, scale.z}, gamma.z, beta.z, relu), normalised(x.w, {mean.w, scale.w}, gamma.w, beta.w, relu));
    }
    // h = (x - mean) scale; dy becomes 0 where ReLU made the result 0.
    __device__ __forceinline__ float4 back(float4 x, float4& dy) const {
        auto one = [&](float x, float mean, float scale, float gamma, float beta, float& dy) {
            float h = (x - mean) * scale;
            if (relu && !(h * gamma + beta > 0)) dy = 0;
            return h;
        };
        return make_float4(one(x.x, mean.x, scale.x, gamma.x, beta.x, dy.x), one(x.y, mean.y, scale.y, gamma.y, beta.y, dy.y),
                           one(x.z, mean.z, scale.z, gamma.z, beta.z, dy.z), one(x.w, mean.w, scale.w, gamma.w, beta.w, dy.w));
    }
};

// Sums of g h and of g over rows.
struct BatchNormSums {
    float4 products = make_float4(0, 0, 0, 0), sums = make_float4(0, 0, 0, 0);

    __device__ __forceinline__ void add(float4 h, float4 g) {
        products.x += g.x * h.x, products.y += g.y * h.y, products.z += g.z * h.z, products.w += g.w * h.w;
        sums.x += g.x, sums.y += g.y, sums.z += g.z, sums.w += g.w;
    }
};

// gamma scale (g - sum(g) / rows - h sum(g h) / rows) with `totals` [2, width]: sums of g h, then of g; gamma scale g where null.
struct BatchNormSlope {
    float4 gain, products = make_float4(0, 0, 0, 0), sums = make_float4(0, 0, 0, 0);

    __device__ BatchNormSlope(const BatchNormColumns& a, const float* totals, int column, int width, int rows)
        : gain(make_float4(a.gamma.x * a.scale.x, a.gamma.y * a.scale.y, a.gamma.z * a.scale.z, a.gamma.w * a.scale.w)) {
        if (!totals) return;
        auto mean = [count = float(rows)](float4 sum) { return make_float4(sum.x / count, sum.y / count, sum.z / count, sum.w / count); };
        bool wide = is_wide(totals, width);
        products = mean(load4(totals, column, width, wide)), sums = mean(load4(totals + width, column, width, wide));
    }
    __device__ __forceinline__ float4 of(float4 h, float4 g) const {
        return make_float4(gain.x * (g.x - sums.x - h.x * products.x), gain.y * (g.y - sums.y - h.y * products.y),
                           gain.z * (g.z - sums.z - h.z * products.z), gain.w * (g.w - sums.w - h.w * products.w));
    }
};
