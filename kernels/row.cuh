// Rows of matrices in the registers of a warp, and sums of columns over the warps of a block.
//
// Lane l holds columns 128 c + 4 l .. + 4 of each chunk c of 128 columns; zeros behind the width.
#pragma once
#include "common.cuh"

constexpr int CHUNK = 128;

// Calls f with a truth that is a constant in it: a loop in f has no branch about it.
template <bool VALUE> struct Known {
    __device__ constexpr operator bool() const { return VALUE; }
};
template <class F> __device__ __forceinline__ void known(bool value, F f) {
    if (value) f(Known<true>());
    else f(Known<false>());
}

// Whether the rows of a matrix can be read 16 bytes at a time.
__device__ inline bool is_wide(const float* matrix, int width) { return width % 4 == 0 && reinterpret_cast<size_t>(matrix) % 16 == 0; }

// Columns column .. + 4 of a row.
__device__ inline float4 load4(const float* row, int column, int width, bool wide) {
    if (wide) return column < width ? *reinterpret_cast<const float4*>(row + column) : make_float4(0, 0, 0, 0);
    return make_float4(column < width ? row[column] : 0, column + 1 < width ? row[column + 1] : 0, column + 2 < width ? row[column + 2] : 0,
                       column + 3 < width ? row[column + 3] : 0);
}
__device__ inline float4 operator+(float4 x, float4 y) { return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w); }
__device__ inline float4 operator*(float4 x, float4 y) { return make_float4(x.x * y.x, x.y * y.y, x.z * y.z, x.w * y.w); }
// Overwrites or adds to columns column .. + 4 of a row.
__device__ inline void store4(float* row, int column, int width, bool wide, float4 x, bool accumulate = false) {
    if (accumulate) x = load4(row, column, width, wide) + x;
    if (wide) {
        if (column < width) *reinterpret_cast<float4*>(row + column) = x;
        return;
    }
    if (column < width) row[column] = x.x;
    if (column + 1 < width) row[column + 1] = x.y;
    if (column + 2 < width) row[column + 2] = x.z;
    if (column + 3 < width) row[column + 3] = x.w;
}

// A row of up to CHUNKS * 128 columns.
template <int CHUNKS> struct Row {
    float at[CHUNKS][4];

    __device__ static int column(int chunk) { return chunk * CHUNK + 4 * lane(); }

    __device__ static Row load(const float* row, int width, bool wide) {
        Row x;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            float4 v = load4(row, column(c), width, wide);
            x.at[c][0] = v.x, x.at[c][1] = v.y, x.at[c][2] = v.z, x.at[c][3] = v.w;
        }
        return x;
    }
    __device__ void store(float* row, int width, bool wide, bool accumulate = false) const {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) store4(row, column(c), width, wide, chunk(c), accumulate);
    }
    __device__ float4 chunk(int c) const { return make_float4(at[c][0], at[c][1], at[c][2], at[c][3]); }

    // Calls f(chunk, element) for every column of this lane.
    template <class F> __device__ static void each(F f) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int i = 0; i < 4; i++) f(c, i);
    }
};

// Room for two rows of 128 columns from each warp, the same for all that call.
template <int WARPS> __device__ inline float4 (&room_of_warps())[WARPS][64] {
    __shared__ float4 room[WARPS][64];
    return room;
}
// Sums of 4 columns of each of two rows over the warps of a block: put(row, column, sum) for each. All threads must call.
template <int WARPS = 8, class F> __device__ __forceinline__ void join_warps(float4 first, float4 second, F put) {
    float4(&sums)[WARPS][64] = room_of_warps<WARPS>();
    sums[warp()][lane()] = first;
    sums[warp()][32 + lane()] = second;
    __syncthreads();
#pragma unroll
    for (int i = int(threadIdx.x); i < 2 * CHUNK; i += 32 * WARPS) {
        const float* column = reinterpret_cast<const float*>(sums) + i;
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += column[2 * CHUNK * w];
        put(i / CHUNK, i % CHUNK, total);
    }
    __syncthreads();
}

// Rows of a block: a run of equal length for each block of the grid's first axis.
struct Run {
    int first, end;
    __device__ Run(int rows, int block = int(blockIdx.x), int blocks = int(gridDim.x)) {
        int length = (rows + blocks - 1) / blocks;
        first = min(rows, block * length), end = min(rows, first + length);
    }
    __device__ static Run between(int first, int end) {
        Run run(0, 0, 1);
        run.first = first, run.end = end;
        return run;
    }
    // Of as many rows for each of these.
    __device__ Run times(int n) const { return between(first * n, end * n); }
    __device__ int size() const { return end - first; }
};

// Calls f(row, lane) for the rows of a run; a group of `lanes` threads has a row.
template <class F> __device__ inline void for_rows(Run run, int lanes, F f) {
    int lane = int(threadIdx.x) % lanes, groups = int(blockDim.x) / lanes;
    for (int row = run.first + int(threadIdx.x) / lanes; row < run.end; row += groups) f(row, lane);
}
// For every one of `parts` parts of the rows of a run: use(row, part, read(row, part)). A thread has a part, and reads some before it uses the first:
// reads wait for no write. Behind the last it reads its first once more.
template <class Read, class Use> __device__ __forceinline__ void for_parts(Run run, int parts, Read read, Use use) {
    constexpr int TOGETHER = 4;
    int count = run.size() * parts, threads = int(blockDim.x);
    auto at = [=](int i, auto f) { return f(run.first + i / parts, i % parts); };
    for (int first = int(threadIdx.x); first < count; first += TOGETHER * threads) {
        decltype(read(0, 0)) values[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) values[i] = at(first + i * threads < count ? first + i * threads : first, read);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++)
            if (first + i * threads < count) at(first + i * threads, [&](int row, int part) { use(row, part, values[i]); });
    }
}
// The same for blocks of four columns, column .. column + 4.
template <class Read, class Use> __device__ __forceinline__ void for_blocks(Run run, int width, Read read, Use use) {
    for_parts(run, (width + 3) / 4, [=](int row, int part) { return read(row, 4 * part); },
              [=](int row, int part, const auto& values) { use(row, 4 * part, values); });
}
__device__ inline void put(float* to, float value, int accumulate) { *to = accumulate ? *to + value : value; }
