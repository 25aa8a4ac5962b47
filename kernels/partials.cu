// Sums of what blocks have left, in the order of blocks.
#include "row.cuh"

// Adds the sum of `count` partials [count, length] to gradients: columns below `split` to `first`, the others to `second`. `totals`
// [length], unless null, is overwritten with the sum alone.
struct SumPartials {
    const float* partials;
    float *first, *second, *totals;
    int count, length, split, pad;
};
// 32 columns a block: each of 8 warps adds every eighth partial, then the 8 sums are added.
extern "C" __global__ void __launch_bounds__(256) sum_partials(SumPartials a) {
    __shared__ float sums[8][32];
    int column = int(blockIdx.x) * 32 + lane();
    float sum = 0;
    if (column < a.length) {
#pragma unroll 8
        for (int i = warp(); i < a.count; i += 8) sum += a.partials[size_t(i) * a.length + column];
    }
    sums[warp()][lane()] = sum;
    __syncthreads();
    if (warp() > 0 || column >= a.length) return;
    float total = 0;
    for (int w = 0; w < 8; w++) total += sums[w][lane()];
    float* to = column < a.split ? a.first + column : a.second + column - a.split;
    *to += total;
    if (a.totals) a.totals[column] = total;
}
KERNEL(sum_partials, SumPartials)
