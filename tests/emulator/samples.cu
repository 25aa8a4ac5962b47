// Kernels that test the emulator: correct ones, and under `BUG` ones with a fault that the checker must find.
#include "mma.cuh"

enum Kind { TF32, BF16, F16 };
enum Bug { NONE, NO_BARRIER_BEFORE_USE, NO_BARRIER_AFTER_USE, NO_WAIT };

struct Add {
    const float *x, *y;
    float* sum;
    int count, pad;
};
extern "C" __global__ void __launch_bounds__(128) sample_add(Add a) {
    for (int i = global_thread(); i < a.count; i += global_threads()) a.sum[i] = a.x[i] + a.y[i];
}
KERNEL(sample_add, Add)

// Sum of each run of 256 values.
struct Sums {
    const float* x;
    float* sums;
    int count, pad;
};
extern "C" __global__ void __launch_bounds__(256) sample_block_sum(Sums a) {
    int i = global_thread();
    float sum = block_sum(i < a.count ? a.x[i] : 0);
    if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
}
KERNEL(sample_block_sum, Sums)

// Philox words of 4 columns a row, as the host draws them.
struct Words {
    const StepBlock* step;
    unsigned* words;
    Rows rows;
    int stream, pad;
};
extern "C" __global__ void __launch_bounds__(128) sample_words(Words a) {
    int rows = resolve(a.rows, a.step);
    for (int row = global_thread(); row < rows; row += global_threads()) {
        uint4 words = random_words(a.step, unsigned(a.stream), unsigned(row), 1);
        unsigned* out = a.words + 4 * row;
        out[0] = words.x, out[1] = words.y, out[2] = words.z, out[3] = random_word(a.step, unsigned(a.stream), unsigned(row), 7);
    }
}
KERNEL(sample_words, Words)

// y (m x n) = a (m x k) b (n x k) transposed; k is a multiple of 4. 32 x 32 tiles, double-buffered, 4 warps of 16 x 16.
struct Product {
    const float *a, *b;
    float* y;
    int m, n, k, pad;
};
template <Kind KIND, Bug BUG> __device__ void product(const Product& p) {
    constexpr int TILE = 32, DEPTH = 16, STRIDE = DEPTH + 4;
    SHARED(float, stages); // [2][2 * TILE][STRIDE]: rows of a, then of b
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int m0 = int(blockIdx.y) * TILE, n0 = int(blockIdx.x) * TILE, wm = warp % 2 * 16, wn = warp / 2 * 16;
    float sums[2][4] = {};
    auto load = [&](int stage, int k0) {
        for (int i = threadIdx.x; i < 2 * TILE * DEPTH / 4; i += 128) {
            int row = i / (DEPTH / 4), column = i % (DEPTH / 4) * 4;
            bool of_a = row < TILE;
            int source = of_a ? m0 + row : n0 + row - TILE, k = k0 + column;
            bool valid = source < (of_a ? p.m : p.n) && k < p.k;
            const float* from = (of_a ? p.a : p.b) + (valid ? source * p.k + k : 0);
            cp_async16(stages + (stage * 2 * TILE + row) * STRIDE + column, from, valid);
        }
        cp_async_commit();
    };
    load(0, 0);
    for (int k0 = 0, stage = 0; k0 < p.k; k0 += DEPTH, stage ^= 1) {
        if (k0 + DEPTH < p.k) {
            load(stage ^ 1, k0 + DEPTH);
            if (BUG != NO_WAIT) cp_async_wait<1>();
        } else if (BUG != NO_WAIT) {
            cp_async_wait<0>();
        }
        if (BUG != NO_BARRIER_BEFORE_USE) __syncthreads();
        const float *a = stages + (stage * 2 * TILE + wm) * STRIDE, *b = stages + (stage * 2 * TILE + TILE + wn) * STRIDE;
        if (KIND != TF32) {
            auto pair = [](const float* x) { return KIND == F16 ? pack_f16(x[0], x[1]) : pack_bf16(x[0], x[1]); };
            const float* at = a + g * STRIDE + 2 * t;
            unsigned fa[4] = {pair(at), pair(at + 8 * STRIDE), pair(at + 8), pair(at + 8 * STRIDE + 8)};
            for (int j = 0; j < 2; j++) {
                const float* bt = b + (8 * j + g) * STRIDE + 2 * t;
                unsigned fb[2] = {pair(bt), pair(bt + 8)};
                if (KIND == F16) mma_m16n8k16_f16(sums[j], fa, fb);
                else mma_m16n8k16_bf16(sums[j], fa, fb);
            }
        } else {
            for (int k = 0; k < DEPTH; k += 8) {
                // A matrix of 8 rows of 4 floats each: rows 0..8 and 8..16 of columns k..k + 4, then of k + 4..k + 8.
                unsigned fa[4];
                ldmatrix_x4(fa, a + lane % 16 * STRIDE + k + lane / 16 * 4);
                for (unsigned& x : fa) x = to_tf32(__uint_as_float(x));
                // Of each 8 columns of the result: columns k..k + 4, then k + 4..k + 8.
                unsigned fb[4];
                ldmatrix_x4(fb, b + (lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 4);
                for (unsigned& x : fb) x = to_tf32(__uint_as_float(x));
                for (int j = 0; j < 2; j++) mma_m16n8k8_tf32(sums[j], fa, {fb[2 * j], fb[2 * j + 1]});
            }
        }
        if (BUG != NO_BARRIER_AFTER_USE) __syncthreads();
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++) {
            int row = m0 + wm + g + i / 2 * 8, column = n0 + wn + 8 * j + 2 * t + i % 2;
            if (row < p.m && column < p.n) p.y[row * p.n + column] = sums[j][i];
        }
}
extern "C" __global__ void __launch_bounds__(128) sample_product_bf16(Product p) { product<BF16, NONE>(p); }
KERNEL(sample_product_bf16, Product)
extern "C" __global__ void __launch_bounds__(128) sample_product_f16(Product p) { product<F16, NONE>(p); }
KERNEL(sample_product_f16, Product)
extern "C" __global__ void __launch_bounds__(128) sample_product_tf32(Product p) { product<TF32, NONE>(p); }
KERNEL(sample_product_tf32, Product)

// y (rows x 8) of 16-bit x (8 x rows): transposing loads. One warp a matrix of 8 x 8.
struct Transpose {
    const unsigned* x; // pairs of 16 bits
    unsigned* y;
    int matrices, pad;
};
extern "C" __global__ void __launch_bounds__(32) sample_transpose(Transpose a) {
    __shared__ __align__(16) unsigned tile[32];
    for (int m = blockIdx.x; m < a.matrices; m += gridDim.x) {
        tile[threadIdx.x] = a.x[32 * m + threadIdx.x];
        __syncwarp();
        unsigned r[4]; // the same matrix four times
        ldmatrix_x4_trans(r, tile + threadIdx.x % 8 * 4);
        a.y[32 * m + threadIdx.x] = r[0];
        __syncwarp();
    }
}
KERNEL(sample_transpose, Transpose)

// ---------------------------------------------------------------------------------------------------- planted faults
extern "C" __global__ void __launch_bounds__(128) bug_no_barrier_before_use(Product p) { product<TF32, NO_BARRIER_BEFORE_USE>(p); }
KERNEL(bug_no_barrier_before_use, Product)
extern "C" __global__ void __launch_bounds__(128) bug_no_barrier_after_use(Product p) { product<BF16, NO_BARRIER_AFTER_USE>(p); }
KERNEL(bug_no_barrier_after_use, Product)
extern "C" __global__ void __launch_bounds__(128) bug_no_wait(Product p) { product<BF16, NO_WAIT>(p); }
KERNEL(bug_no_wait, Product)

// Writes one value too many.
extern "C" __global__ void __launch_bounds__(128) bug_overrun(Add a) {
    for (int i = global_thread(); i <= a.count; i += global_threads()) a.sum[i] = 1;
}
KERNEL(bug_overrun, Add)
// The upper half of the warp never comes.
extern "C" __global__ void __launch_bounds__(128) bug_half_warp(Add a) {
    if (threadIdx.x % 32 < 16) a.sum[global_thread()] = warp_sum(1);
    __syncthreads();
}
KERNEL(bug_half_warp, Add)
extern "C" __global__ void __launch_bounds__(128) bug_two_barriers(Add a) {
    if (threadIdx.x < 32) __syncthreads();
    a.sum[global_thread()] = 1;
    __syncthreads();
}
KERNEL(bug_two_barriers, Add)
// Reads what no one has written: shared memory of the block before.
extern "C" __global__ void __launch_bounds__(128) bug_uninitialised(Add a) {
    __shared__ float left[128];
    a.sum[global_thread()] = left[threadIdx.x];
    __syncthreads();
    left[threadIdx.x] = 1;
}
KERNEL(bug_uninitialised, Add)
// Two blocks write the same place.
extern "C" __global__ void __launch_bounds__(128) bug_two_blocks(Add a) { a.sum[threadIdx.x] = float(blockIdx.x); }
KERNEL(bug_two_blocks, Add)
// Lanes read what others have written, without __syncwarp.
extern "C" __global__ void __launch_bounds__(128) bug_no_syncwarp(Add a) {
    __shared__ float values[128];
    values[threadIdx.x] = float(threadIdx.x);
    a.sum[global_thread()] = values[threadIdx.x ^ 1];
}
KERNEL(bug_no_syncwarp, Add)
// A shuffle lies between, which orders nothing.
extern "C" __global__ void __launch_bounds__(128) bug_only_a_shuffle(Add a) {
    __shared__ float values[128];
    values[threadIdx.x] = float(threadIdx.x);
    float own = __shfl_xor_sync(FULL_WARP, float(threadIdx.x), 1);
    a.sum[global_thread()] = values[threadIdx.x ^ 1] - own;
}
KERNEL(bug_only_a_shuffle, Add)
// Half of the warp at one product, half at another.
extern "C" __global__ void __launch_bounds__(32) bug_two_products(Add a) {
    float sums[4] = {};
    unsigned left[4] = {}, right[2] = {};
    if (threadIdx.x < 16) mma_m16n8k8_tf32(sums, left, right);
    else mma_m16n8k8_tf32(sums, left, right);
    a.sum[threadIdx.x] = sums[0];
}
KERNEL(bug_two_products, Add)
// Columns of a matrix 32 wide: every lane another sector, and all of them the same bank.
extern "C" __global__ void __launch_bounds__(32) sample_strided(Add a) {
    __shared__ float tile[32 * 32];
    for (int i = 0; i < 32; i++) tile[32 * threadIdx.x + i] = a.x[32 * threadIdx.x + i];
    __syncwarp();
    for (int i = 0; i < 32; i++) a.sum[32 * i + threadIdx.x] = tile[32 * i + threadIdx.x];
}
KERNEL(sample_strided, Add)
// 16 bytes at an address that is a multiple of 4.
extern "C" __global__ void __launch_bounds__(128) bug_misaligned(Add a) {
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(a.sum + 1) = *reinterpret_cast<const float4*>(a.x + 4);
}
KERNEL(bug_misaligned, Add)
extern "C" __global__ void __launch_bounds__(128) bug_null(Add a) { a.sum[global_thread()] = *static_cast<volatile const float*>(a.x); }
KERNEL(bug_null, Add)
