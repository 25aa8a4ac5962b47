// Linear layers: y = activation(x Wᵀ + b), and two layers as one product. x [rows, k], W [n, k] (rows `weight_stride` apart), y [rows, n].
// Tiles of `Large` and of `Small`, for many and for few rows; a block has column tile x of the grid and every gridDim.y-th row tile.
#include "linear.cuh"
#include "normalise.cuh"

// All tiles of a block, most often one.
template <Multiply MULTIPLY, class Shape, class Tiles> __device__ __forceinline__ void compute(const Tiles& tiles) {
    SHARED(float, memory);
    for (int row = int(blockIdx.y) * Shape::M; row < tiles.rows; row += int(gridDim.y) * Shape::M) {
        tiles.template compute<MULTIPLY, Shape>(memory, 1, Place{row, int(blockIdx.x) * Shape::N}, [](Place&) {});
        __syncthreads();
    }
}
template <Multiply MULTIPLY, class Shape> __device__ __forceinline__ void linear_forward(const LinearForward& a) {
    int rows = resolve(a.rows, a.step);
    if (are_packed<MULTIPLY>(a.x)) compute<MULTIPLY, Shape>(LinearForwardTiles<true, Packed<Shape::M, true, Shape::DEPTH>>(a, rows));
    else compute<MULTIPLY, Shape>(LinearForwardTiles<true, Operand<Shape::M, true, Shape::DEPTH>>(a, rows));
}
template <Multiply MULTIPLY, class Shape> __device__ __forceinline__ void linear_dx(const LinearDx& a) {
    compute<MULTIPLY, Shape>(LinearDxTiles<true>(a, resolve(a.rows, a.step)));
}

// ---- dW = dᵀ x (x normalised if there is a norm) and db = sum of the rows of d, each times its factor if there are any, of several layers. A
// block has a tile and a run of rows of one of them, and leaves its sums in partials[run]: dW [n, k], then db [n] if `biased`; `sum_partials`
// adds them up.
struct LinearDw {
    const StepBlock* step;
    const float* factors;
    Slope slope;
    Reference x;
    Norm norm;
    float* partials;
    Rows rows;
    int k, n, partial, biased; // partial: floats between the sums of two runs
};
struct LinearDwGroup {
    const LinearDw* problems;
    const int4* tiles; // by block: problem, tile, run, number of runs
};
// B: tiles of x.
template <Multiply MULTIPLY, class Shape, class B> __device__ __forceinline__ void linear_dw(const LinearDw& a, int4 of) {
    using A = Operand<Shape::M, false, Shape::DEPTH>;
    constexpr int DEPTH = Shape::DEPTH;
    SHARED(float, memory);
    Run run(resolve(a.rows, a.step), of.z, of.w);
    int tiles = (a.k + Shape::N - 1) / Shape::N, row = of.y / tiles * Shape::M, column = of.y % tiles * Shape::N;
    Slopes<true> d(a.slope, a.step, run.end, a.n);
    View x(read(a.x, a.step), run.end, a.k, a.k, a.x.format);
    bool biased = a.biased && column == 0;
    constexpr int FLOATS = A::FLOATS + B::FLOATS;
    SlopeCopies<A, Shape::THREADS> d_copies;
    Copies<B, Shape::THREADS> x_copies;
    float db = 0;
    typename Shape::Sums sums;
    product<MULTIPLY, Shape, A, B>(
        sums, memory, FLOATS + (a.slope.kind == PLAIN ? 0 : A::FLOATS), (run.size() + DEPTH - 1) / DEPTH,
        [&](float* left, float* right, int step) {
            if (step == 0) d.begin(d_copies, row, run.first), x_copies.begin(x, column, run.first);
            d.copy(d_copies, left, left + FLOATS, row, run.first + step * DEPTH), x_copies.next(right, x, column, run.first + step * DEPTH);
        },
        [&](float* left, int step) {
            d.template ready<A, Shape::THREADS>(left, left + FLOATS, row, run.first + step * DEPTH);
            x.template ready<B, Shape::THREADS>(left + A::FLOATS);
            if constexpr (!B::PACKED) a.norm.template ready<B, Shape::THREADS>(left + A::FLOATS, a.step, column, a.k, x.wide);
        },
        [&](const float* left, int step) {
            if (biased && int(threadIdx.x) < Shape::M) {
#pragma unroll
                for (int i = 0; i < DEPTH; i++) {
                    int r = run.first + step * DEPTH + i;
                    float factor = a.factors ? r < run.end ? a.factors[r] : 0 : 1;
                    db += left[A::at(i, int(threadIdx.x))] * factor;
                }
            }
        });
    float* partial = a.partials + size_t(of.z) * a.partial;
    Pairs(partial, a.k, a.k, false).template put_tile<Shape>(sums, row, column, a.n - row);
    int c = row + int(threadIdx.x);
    if (biased && int(threadIdx.x) < Shape::M && c < a.n) partial[a.n * a.k + c] = db;
}
template <Multiply MULTIPLY, class Shape> __device__ __forceinline__ void linear_dw(const LinearDwGroup& group) {
    int4 of = group.tiles[blockIdx.x];
    const LinearDw& a = group.problems[of.x];
    if (are_packed<MULTIPLY>(a.x) && !a.norm.gamma) linear_dw<MULTIPLY, Shape, Packed<Shape::N, false, Shape::DEPTH>>(a, of);
    else linear_dw<MULTIPLY, Shape, Operand<Shape::N, false, Shape::DEPTH>>(a, of);
}

#define LINEAR_KERNEL(name, function, Arguments, mode, MODE, size, Size)                                            \
    extern "C" __global__ void __launch_bounds__(Size<MODE>::THREADS, Size<MODE>::BLOCKS) name##_##size##_##mode(Arguments a) { \
        function<MODE, Size<MODE>>(a);                                                                              \
    }                                                                                                               \
    KERNEL(name##_##size##_##mode, Arguments)
#define LINEAR_KERNELS(mode, MODE, size, Size)                                   \
    LINEAR_KERNEL(linear_forward, linear_forward, LinearForward, mode, MODE, size, Size) \
    LINEAR_KERNEL(linear_dx, linear_dx, LinearDx, mode, MODE, size, Size)           \
    LINEAR_KERNEL(linear_dw, linear_dw, LinearDwGroup, mode, MODE, size, Size)
LINEAR_KERNELS(tf32x3, TF32X3, large, Large)
LINEAR_KERNELS(tf32, TF32, large, Large)
LINEAR_KERNELS(bf16, BF16, large, Large)
LINEAR_KERNELS(f16, F16, large, Large)
LINEAR_KERNELS(tf32x3, TF32X3, small, Small)
LINEAR_KERNELS(tf32, TF32, small, Small)
LINEAR_KERNELS(bf16, BF16, small, Small)
LINEAR_KERNELS(f16, F16, small, Small)
