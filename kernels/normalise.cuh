// Operands of products that lie nowhere: batch norm with ReLU of a matrix that does.
#pragma once
#include "batch_norm.cuh"
#include "product.cuh"

// None without gamma; `kept` [2, width]: mean, 1 / sqrt(variance + epsilon).
struct Norm {
    Reference kept;
    const float *gamma, *beta;

    __device__ BatchNormColumns columns(const StepBlock* step, int column, int width) const {
        return BatchNormColumns(read(kept, step), gamma, beta, column, width, true);
    }
    // What this thread has copied of a tile whose first column of the matrix is `column`. Behind the width it stays 0; rows behind the matrix
    // do not.
    template <class Tile, int THREADS>
    __device__ __forceinline__ void ready(float* tile, const StepBlock* step, int column, int width, bool wide) const {
        if (!gamma) return;
        if (wide) {
            BatchNormColumns columns = this->columns(step, column + part_column<Tile, 4>(), width);
            each_part<Tile, THREADS, 4>([&](int e, int, int) {
                float4* at = reinterpret_cast<float4*>(tile + e);
                *at = columns.of(*at);
            });
        } else {
            const float* kept = read(this->kept, step);
            int c = column + part_column<Tile, 1>();
            if (c >= width) return;
            NormStatistics s{kept[c], kept[width + c]};
            float g = gamma[c], b = beta[c];
            each_part<Tile, THREADS, 1>([&](int e, int, int) { tile[e] = normalised(tile[e], s, g, b, true); });
        }
    }
};
