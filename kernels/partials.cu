// Sums of what blocks have left, in the order of blocks.
#include "common.cuh"

// Adds the sum of `count` partials [length], which begin `room` floats apart, to gradients: those below `split` to `first`, a matrix of
// `columns` columns whose rows begin `stride` apart, the others to `second`. Null gradients are left out. `totals` [length], unless null,
// is overwritten with the sum alone.
struct PartialSum {
    const float* partials;
    float *first, *second, *totals;
    int count, length, room, split, columns, stride;
};
// A block has 32 columns of one of many sums: tiles [blocks]: which, and its first column.
struct SumPartials {
    const PartialSum* sums;
    const int2* tiles;
};
// Each of 8 warps adds every eighth partial, then the 8 sums are added.
extern "C" __global__ void __launch_bounds__(256) sum_partials(SumPartials a) {
    __shared__ float shares[8][32];
    int2 tile = a.tiles[blockIdx.x];
    PartialSum of = a.sums[tile.x];
    int column = tile.y + lane();
    float share = 0;
    if (column < of.length) {
#pragma unroll 8
        for (int i = warp(); i < of.count; i += 8) share += of.partials[size_t(i) * of.room + column];
    }
    shares[warp()][lane()] = share;
    __syncthreads();
    if (warp() > 0 || column >= of.length) return;
    float total = 0;
    for (int w = 0; w < 8; w++) total += shares[w][lane()];
    if (column >= of.split) {
        if (of.second) of.second[column - of.split] += total;
    } else if (of.first) {
        of.first[size_t(column / of.columns) * of.stride + column % of.columns] += total;
    }
    if (of.totals) of.totals[column] = total;
}
KERNEL(sum_partials, SumPartials)
