// How losses are summed: in double precision, over blocks in their order.
#pragma once
#include "common.cuh"

// A sum, and a count by which it is divided.
struct Sum {
    double total, count;
};

// Where a loss goes: partials [blocks], and from one block to y; those of several are added up by `loss_join`. The divisor is
// max(count, least) + extra.
struct LossOutput {
    const StepBlock* step;
    Reference y;
    Sum* partials; // of every block, which the backward pass reads
    double least, extra;

    __device__ double divisor(double count) const { return (count < least ? least : count) + extra; }
};

// Sum over the block's warps, the same bits in every thread. All threads must call.
__device__ inline Sum block_sum(Sum x) {
    __shared__ Sum sums[8];
    x = {warp_sum(x.total), warp_sum(x.count)};
    if (lane() == 0) sums[warp()] = x;
    __syncthreads();
    Sum total = {0, 0};
    for (int w = 0; w < int(blockDim.x / 32); w++) total = {total.total + sums[w].total, total.count + sums[w].count};
    __syncthreads();
    return total;
}
// Ends a kernel that sums up.
__device__ inline void finish(const LossOutput& out, Sum own) {
    Sum sum = block_sum(own);
    if (threadIdx.x > 0) return;
    float* y = write(out.y);
    if (gridDim.x == 1) *y = float(sum.total / out.divisor(sum.count));
    out.partials[blockIdx.x] = sum;
}

// What the backward pass of a loss writes: dx of `width` columns, added to where `accumulate`; dy is the gradient of the loss. The divisor
// follows from the counts of the forward pass's partials [blocks].
struct LossGradient {
    const StepBlock* step;
    Reference dy, dx;
    const Sum* partials;
    double least, extra;
    int blocks, accumulate;

    // dy / divisor. All lanes of a warp must call.
    __device__ double scale() const {
        double count = 0;
        for (int i = lane(); i < blocks; i += 32) count += partials[i].count;
        count = warp_sum(count);
        return double(*read(dy, step)) / ((count < least ? least : count) + extra);
    }
    __device__ void put(float* dx, double value) const { *dx = accumulate ? *dx + float(value) : float(value); }
};
