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

// Calls f(row, h, g) for rows row .. of a tile of which this warp has columns column + 4 lane .. + 4; then the tile's memory is free. `with(columns)`
// gives f when the product is there, so that it needs no registers before.
template <Multiply MULTIPLY, class With>
__device__ __forceinline__ void norm_rows(const NormDx& a, const LinearDxTiles<true>& tiles, float* memory, int row, int column, With with) {
    using Shape = Large<MULTIPLY>;
    tiles.template multiply<MULTIPLY, Shape>(memory, 1, Place{row, column}, [](Place&) {},
                                             [](typename Shape::Sums& sums, Place) { Shape::clear(sums); },
                                             [&](typename Shape::Sums& sums, Place) { Shape::lay_out(sums, memory); });
    static_assert(Shape::N == CHUNK, "a warp has a row");
    constexpr int WARPS = Shape::THREADS / 32, TOGETHER = 4; // rows that are read before the first is written
    int own = 4 * lane(), count = min(Shape::M, tiles.rows - row);
    BatchNormColumns columns = a.norm.columns(a.product.step, column + own, a.product.k);
    auto f = with(columns);
    Stored(a.x, a.product.step, a.product.k).reading([&](auto load) {
        for (int first = warp(); first < count; first += WARPS * TOGETHER) {
            float4 x[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) x[i] = load(row + first + WARPS * i, column + own, first + WARPS * i < count);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int r = first + WARPS * i;
                if (r >= count) break;
                float4 g = *reinterpret_cast<const float4*>(memory + r * Shape::STRIDE + own);
                float4 h = columns.back(x[i], g);
                f(row + r, h, g);
            }
        }
    });
    __syncthreads();
}
template <Multiply MULTIPLY> __device__ __forceinline__ void norm_sums(const NormDx& a) {
    using Shape = Large<MULTIPLY>;
    SHARED(float, memory);
    LinearDxTiles<true> tiles(a.product, resolve(a.product.rows, a.product.step));
    int k = a.product.k, column = int(blockIdx.x) * Shape::N;
    BatchNormSums sums;
    for (int row = int(blockIdx.y) * Shape::M; row < tiles.rows; row += int(gridDim.y) * Shape::M)
        norm_rows<MULTIPLY>(a, tiles, memory, row, column, [&](const BatchNormColumns&) {
            return [&](int, float4 h, float4 g) { sums.add(h, g); };
        });
    float* partial = a.partials + size_t(blockIdx.y) * 2 * k;
    join_warps<Shape::THREADS / 32>(sums.products, sums.sums, [&](int row, int own, float sum) {
        if (column + own < k) partial[row * k + column + own] = sum;
    });
}
template <Multiply MULTIPLY> __device__ __forceinline__ void norm_dx(const NormDx& a) {
    using Shape = Large<MULTIPLY>;
    SHARED(float, memory);
    LinearDxTiles<true> tiles(a.product, resolve(a.product.rows, a.product.step));
    int k = a.product.k, column = int(blockIdx.x) * Shape::N;
    for (int row = int(blockIdx.y) * Shape::M; row < tiles.rows; row += int(gridDim.y) * Shape::M)
        norm_rows<MULTIPLY>(a, tiles, memory, row, column, [&](const BatchNormColumns& columns) {
            int own = column + 4 * lane();
            Stored dx(a.product.dx, a.product.step, k);
            BatchNormSlope slope(columns, a.totals, own, k, tiles.rows);
            return [=](int r, float4 h, float4 g) { dx.put(r, own, slope.of(h, g), a.product.accumulate); };
        });
}
#define BOUNDS(MODE) __launch_bounds__(Large<MODE>::THREADS, Large<MODE>::BLOCKS)
#define NORM_KERNELS(mode, MODE)                                                                                            \
    extern "C" __global__ void BOUNDS(MODE) norm_sums_##mode(NormDx a) { norm_sums<MODE>(a); }                   \
    KERNEL(norm_sums_##mode, NormDx)                                                                                        \
    extern "C" __global__ void BOUNDS(MODE) norm_dx_##mode(NormDx a) { norm_dx<MODE>(a); }                       \
    KERNEL(norm_dx_##mode, NormDx)
NORM_KERNELS(tf32x3, TF32X3)
NORM_KERNELS(tf32, TF32)
NORM_KERNELS(bf16, BF16)
NORM_KERNELS(f16, F16)
