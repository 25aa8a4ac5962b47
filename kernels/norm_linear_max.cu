// Gradients through the batch norm with ReLU of a linear layer's operand: of maxima, so that d W is cheaper to compute twice than to keep.
#include "linear.cuh"
#include "normalise.cuh"

// With h = (x - mean) scale and g = d W where the norm's result was positive: `norm_sums`: partials [gridDim.y, 2 k] of sum(g h), then sum(g);
// `norm_dx`: dx (+)= gamma scale (g - sum(g) / rows - h sum(g h) / rows) with `totals` [2, k], or gamma scale g where null.
struct NormDx {
    LinearDx product;
    Reference x;
    Norm norm;
    float* partials;
    const float* totals;
};
static_assert(Large::N == CHUNK && Large::THREADS == 256, "a warp has a row, and there are 8");

// Calls f(row, h, g) for rows row .. of a tile of which this warp has columns column + 4 lane .. + 4; then the tile's memory is free.
template <Multiply MULTIPLY, class F>
__device__ __forceinline__ void norm_rows(const NormDx& a, const LinearDxTiles<true>& tiles, const BatchNormColumns& columns, float* memory,
                                          int row, int column, F f) {
    tiles.template multiply<MULTIPLY, Large>(memory, 1, Place{row, column}, [](Place&) {},
                                             [&](Large::Sums& sums, Place) { Large::lay_out(sums, memory); });
    constexpr int TOGETHER = 4; // rows that are read before the first is written
    int own = 4 * lane(), count = min(Large::M, tiles.rows - row);
    Stored(a.x, a.product.step, a.product.k).reading([&](auto load) {
        for (int first = warp(); first < count; first += 8 * TOGETHER) {
            float4 x[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) x[i] = load(row + first + 8 * i, column + own, first + 8 * i < count);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int r = first + 8 * i;
                if (r >= count) break;
                float4 g = *reinterpret_cast<const float4*>(memory + r * Large::STRIDE + own);
                float4 h = columns.back(x[i], g);
                f(row + r, h, g);
            }
        }
    });
    __syncthreads();
}
template <Multiply MULTIPLY> __device__ __forceinline__ void norm_sums(const NormDx& a) {
    SHARED(float, memory);
    LinearDxTiles<true> tiles(a.product, resolve(a.product.rows, a.product.step));
    int k = a.product.k, column = int(blockIdx.x) * Large::N;
    BatchNormColumns columns = a.norm.columns(a.product.step, column + 4 * lane(), k);
    BatchNormSums sums;
    for (int row = int(blockIdx.y) * Large::M; row < tiles.rows; row += int(gridDim.y) * Large::M)
        norm_rows<MULTIPLY>(a, tiles, columns, memory, row, column, [&](int, float4 h, float4 g) { sums.add(h, g); });
    float sum = join_warps(sums.products, sums.sums);
    int out = column + int(threadIdx.x) % CHUNK;
    if (out < k) a.partials[(size_t(blockIdx.y) * 2 + threadIdx.x / CHUNK) * k + out] = sum;
}
template <Multiply MULTIPLY> __device__ __forceinline__ void norm_dx(const NormDx& a) {
    SHARED(float, memory);
    LinearDxTiles<true> tiles(a.product, resolve(a.product.rows, a.product.step));
    int k = a.product.k, column = int(blockIdx.x) * Large::N, own = column + 4 * lane();
    BatchNormColumns columns = a.norm.columns(a.product.step, own, k);
    BatchNormSlope slope(columns, a.totals, own, k, tiles.rows);
    Stored dx(a.product.dx, a.product.step, k);
    for (int row = int(blockIdx.y) * Large::M; row < tiles.rows; row += int(gridDim.y) * Large::M) {
        norm_rows<MULTIPLY>(a, tiles, columns, memory, row, column, [&](int r, float4 h, float4 g) {
            dx.put(r, own, slope.of(h, g), a.product.accumulate);
        });
    }
}
#define NORM_KERNELS(mode, MODE)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) norm_sums_##mode(NormDx a) { norm_sums<MODE>(a); }                   \
    KERNEL(norm_sums_##mode, NormDx)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) norm_dx_##mode(NormDx a) { norm_dx<MODE>(a); }                       \
    KERNEL(norm_dx_##mode, NormDx)
NORM_KERNELS(tf32x3, TF32X3)
NORM_KERNELS(tf32, TF32)
NORM_KERNELS(bf16, BF16)
NORM_KERNELS(f16, F16)
