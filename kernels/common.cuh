// What all kernels share: what changes from step to step, tensors, random numbers, sums over warps and blocks.
//
// Storage is f32 and i32, row-major [rows, width]; some tensors are in 16 bits (storage.cuh). Sums have a fixed order, so
// that a step repeats bit for bit.
// Compiled by nvcc for the device and by the host's compiler for the tests (tests/emulator).
#pragma once
#ifdef __CUDACC__
// Dynamic shared memory as an array, aligned to 128 bytes.
#define SHARED(Type, name)                                                                                         \
    extern __shared__ __align__(128) unsigned char shared_memory[];                                                \
    Type* name = reinterpret_cast<Type*>(shared_memory)
// Stands behind `extern "C" __global__ void name(Arguments)`; the emulator registers the kernel by it.
#define KERNEL(name, Arguments)
// A function of its own, whose registers do not add up with those of its callers.
#define APART __noinline__
#else
#include "emulator.h"
#define APART __attribute__((noinline))
#endif

constexpr unsigned FULL_WARP = 0xffffffffu;

// Everything that differs between steps; lies in device memory, so that a captured graph stays valid.
struct StepBlock {
    unsigned long long seed;
    unsigned long long sorted; // bit i: list i never falls; of those that scatter_add reads
    unsigned step;
    unsigned gathered; // there are gradients of earlier batches
    int counts[16];         // rows of each symbol
    int real_slots[64];     // first element of each input in the feed's reals
    int index_slots[64][2]; // first element and length of each list in the feed's indexes
};

// Number of rows: counts[symbol] * times, or `times` where symbol < 0.
struct Rows {
    int symbol, times;
};
__device__ inline int resolve(Rows rows, const StepBlock* step) { return rows.symbol < 0 ? rows.times : step->counts[rows.symbol] * rows.times; }

// How the elements of a tensor are stored.
enum Format { IN_F32, IN_BF16, IN_F16 };
// A tensor; slot >= 0: an input, `data` is the start of the feed's reals.
struct Reference {
    float* data;
    int slot, format;
};
__device__ inline const float* read(Reference tensor, const StepBlock* step) {
    return tensor.slot < 0 ? tensor.data : tensor.data + step->real_slots[tensor.slot];
}
__device__ inline float* write(Reference tensor) { return tensor.data; }

// A list of rows; slot >= 0: of the feed, `data` is the start of the feed's indexes.
struct IndexReference {
    const int* data;
    int slot, pad;
};
__device__ inline const int* read(IndexReference list, const StepBlock* step) {
    return list.slot < 0 ? list.data : list.data + step->index_slots[list.slot][0];
}
// Whether such a list of the feed never falls.
__device__ inline bool is_sorted(IndexReference list, const StepBlock* step) { return step->sorted >> list.slot & 1; }
// Elements of such a list of the feed.
__device__ inline int length(IndexReference list, const StepBlock* step) { return step->index_slots[list.slot][1]; }

// Position in the warp, of the warp in the block, and in the grid, for loops over more elements than threads.
__device__ inline int lane() { return int(threadIdx.x % 32); }
__device__ inline int warp() { return int(threadIdx.x / 32); }
__device__ inline int global_thread() { return int(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ inline int global_threads() { return int(gridDim.x * blockDim.x); }

// Ten rounds of Philox4x32, as src/graph/random.rs.
__device__ inline uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        if (round > 0) key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
        unsigned a_high = __umulhi(counter.x, 0xD2511F53u), a_low = counter.x * 0xD2511F53u;
        unsigned b_high = __umulhi(counter.z, 0xCD9E8D57u), b_low = counter.z * 0xCD9E8D57u;
        counter = make_uint4(b_high ^ counter.y ^ key.x, b_low, a_high ^ counter.w ^ key.y, a_low);
    }
    return counter;
}
// Four words for columns 4 block .. 4 block + 4 of a row.
__device__ inline uint4 random_words(const StepBlock* step, unsigned stream, unsigned row, unsigned block) {
    return philox(make_uint4(block, row, stream, step->step), make_uint2(unsigned(step->seed), unsigned(step->seed >> 32)));
}
// The word of one element.
__device__ inline unsigned random_word(const StepBlock* step, unsigned stream, unsigned row, unsigned column) {
    uint4 words = random_words(step, stream, row, column / 4);
    unsigned low = column & 1 ? words.y : words.x, high = column & 1 ? words.w : words.z;
    return column & 2 ? high : low;
}

// Sum and maximum over the warp, the same bits in every lane. All 32 lanes must call.
template <class T> __device__ inline T warp_sum(T x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}
// Sum over the block (a multiple of 32 threads), the same bits in every thread. All threads must call.
__device__ inline float block_sum(float x) {
    __shared__ float partial[32];
    x = warp_sum(x);
    if (lane() == 0) partial[warp()] = x;
    __syncthreads();
    x = warp_sum(lane() < int(blockDim.x / 32) ? partial[lane()] : 0.0f);
    __syncthreads();
    return x;
}
