// Sums of what blocks have left, in the order of blocks.
#include "row.cuh"

// Adds the sum of `count` partials [length], which begin `room` floats apart, to gradients: those below `split` to `first`, a matrix of
// `columns` columns whose rows begin `stride` apart, the others to `second`. Null gradients are left out. `totals` [length], unless null,
// is overwritten with the sum alone.
struct PartialSum {
    const float* partials;
    float *first, *second, *totals;
    int count, length, room, split, columns, stride;

    __device__ void put(int column, float x) const {
        if (column >= length) return;
        if (totals) totals[column] = x;
        if (column >= split) {
            if (second) second[column - split] += x;
        } else if (first) {
            first[size_t(column / columns) * stride + column % columns] += x;
        }
    }
    __device__ void put(int column, float4 x) const {
        bool in_first = column < split;
        float* to = in_first ? first : second;
        int width = in_first ? columns : length - split, at = in_first ? column % columns : column - split;
        if (in_first && to) to += size_t(column / columns) * stride;
        bool whole = columns % 4 == 0 && split % 4 == 0 && length % 4 == 0;
        if (whole && is_wide(to, in_first ? stride : width) && is_wide(totals, length)) {
            if (totals) store4(totals, column, length, true, x);
            if (to) store4(to, at, width, true, x, true);
        } else {
            put(column, x.x), put(column + 1, x.y), put(column + 2, x.z), put(column + 3, x.w);
        }
    }
};
// A block has columns of one of many sums. Tiles [blocks]: which, the first column, and how many threads share four columns, a power of two: each
// has a share of the partials.
struct SumPartials {
    const PartialSum* sums;
    const int4* tiles;
};
extern "C" __global__ void __launch_bounds__(256) sum_partials(SumPartials a) {
    __shared__ float4 sums[256];
    int4 tile = a.tiles[blockIdx.x];
    PartialSum of = a.sums[tile.x];
    int shares = tile.z, threads = 256 / shares, share = int(threadIdx.x) / threads, column = tile.y + 4 * (int(threadIdx.x) % threads);
    float4 sum = make_float4(0, 0, 0, 0);
    known(of.length % 4 == 0 && is_wide(of.partials, of.room), [&](auto wide) {
#pragma unroll 4
        for (int i = share; i < of.count; i += shares) sum = sum + load4(of.partials + size_t(i) * of.room, column, of.length, wide);
    });
    if (shares > 1) {
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (share > 0) return;
        for (int other = 1; other < shares; other++) sum = sum + sums[other * threads + int(threadIdx.x)];
    }
    if (column < of.length) of.put(column, sum);
}
KERNEL(sum_partials, SumPartials)
