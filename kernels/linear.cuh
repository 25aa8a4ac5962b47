// Tiles of y = activation(x Wᵀ + b) and of the gradient of x. x [rows, k], W [n, k] (rows `weight_stride` apart), y [rows, n].
#pragma once
#include "slope.cuh"

// ---- y (+)= activation(x Wᵀ + bias + z[index]); each of the last two may be null. `before` keeps the value before GELU. What is added to has
// neither activation nor z: it is where the sums begin.
// `statistics` [row tiles, 2 n] get the mean of each column of y over a tile's rows, and the sum of squares about it.
struct LinearForward {
    const StepBlock* step;
    const float *weight, *bias;
    float* statistics;
    Reference x, y, before, z;
    IndexReference index;
    Rows rows;
    int k, n, weight_stride, y_stride, activation, accumulate;
};
// What is the same for all tiles; `rows` end the matrix. ALONE in a launch: with z and statistics. A: tiles of x.
template <bool ALONE, class A> struct LinearForwardTiles {
    const LinearForward& a;
    int rows;
    View x, w;

    __device__ LinearForwardTiles(const LinearForward& a, int rows)
        : a(a), rows(rows), x(read(a.x, a.step), rows, a.k, a.k, a.x.format),
          w(a.weight, a.n, a.k, a.weight_stride) {}

    // Tiles from the first one on, and what lies behind the stages in `memory`, for statistics; both may be used again after a barrier.
    template <Multiply MULTIPLY, class Shape, class Next>
    __device__ __forceinline__ void compute(float* memory, int tiles, Place first, Next next) const {
        using B = Weights<MULTIPLY, Shape::N, true, Shape::DEPTH>;
        constexpr int FLOATS = A::FLOATS + B::FLOATS;
        Copies<A, Shape::THREADS, !ALONE> x_copies;
        Copies<B, Shape::THREADS, !ALONE> w_copies;
        products<MULTIPLY, Shape, A, B>(
            memory, FLOATS, tiles, (a.k + Shape::DEPTH - 1) / Shape::DEPTH, first, next,
            [&](float* left, float* right, Place at, int step) {
                if (step == 0) x_copies.begin(x, at.row, 0), w_copies.begin(w, at.column, 0);
                x_copies.next(left, x, at.row, step * Shape::DEPTH), w_copies.next(right, w, at.column, step * Shape::DEPTH);
            },
            [&](float* left, Place, int) { x.template ready<A, Shape::THREADS>(left); }, [](const float*, int) {},
            [&](typename Shape::Sums& sums, Place at) { start<Shape>(sums, at.row, at.column); },
            [&](typename Shape::Sums& sums, Place at) { finish<Shape>(sums, at.row, at.column, memory + Shape::STAGES * FLOATS); });
    }

  private:
    __device__ __forceinline__ Pairs y() const { return Pairs(write(a.y), a.n, a.y_stride, a.accumulate, a.y.format); }

    template <class Shape> __device__ __forceinline__ void start(typename Shape::Sums& sums, int row, int column) const {
        if (!ALONE || !a.z.data) return y().template start_tile<Shape>(sums, row, column, rows - row);
        const int* index = read(a.index, a.step);
        Pairs(read(a.z, a.step), a.n, a.n, false).visit([&](auto load, auto) {
            Shape::each(sums, [&](int i, int j, float& first, float& second) {
                float2 z = load(index[min(row + i, rows - 1)], column + j < a.n ? column + j : 0);
                first = z.x, second = z.y;
            });
        });
    }
    template <class Shape> __device__ __forceinline__ void finish(typename Shape::Sums& sums, int row, int column, float* memory) const {
        if (a.bias) {
            const float* bias = a.bias + column;
            int last = a.n - 1 - column;
            known(last >= Shape::N - 1, [&](auto whole) { // most often: no column has to be looked at
                Shape::each(sums, [&](int, int j, float& first, float& second) {
                    first += bias[whole ? j : min(j, last)], second += bias[whole ? j + 1 : min(j + 1, last)];
                });
            });
        }
        if (a.activation == GELU) {
            Pairs(write(a.before), a.n, a.n, false).template put_tile<Shape>(sums, row, column, rows - row);
            Shape::each(sums, [&](int, int, float& first, float& second) { first = gelu(first), second = gelu(second); });
        } else if (a.activation == RELU) {
            Shape::each(sums, [&](int, int, float& first, float& second) { first = relu(first), second = relu(second); });
        }
        y().template put_tile<Shape>(sums, row, column, rows - row);
        if (ALONE && a.statistics) {
            float* partial = a.statistics + size_t(row / Shape::M) * 2 * a.n + column;
            Shape::statistics(sums, min(Shape::M, rows - row), memory, [&](int c, float mean, float squares) {
                if (column + c < a.n) partial[c] = mean, partial[a.n + c] = squares;
            });
            __syncthreads();
        }
    }
};

// ---- dx (+)= d W with d [rows, n].
struct LinearDx {
    const StepBlock* step;
    const float* weight;
    Slope slope;
    Reference dx;
    Rows rows;
    int k, n, weight_stride, accumulate;
};
template <bool ALONE> struct LinearDxTiles {
    const LinearDx& a;
    int rows;
    Slopes<ALONE> d;
    View w;

    __device__ LinearDxTiles(const LinearDx& a, int rows)
        : a(a), rows(rows), d(a.slope, a.step, rows, a.n), w(a.weight, a.n, a.k, a.weight_stride) {}

    // Tiles from the first one on; `memory` may be used again after a barrier.
    template <Multiply MULTIPLY, class Shape, class Next, class Start, class Done>
    __device__ __forceinline__ void multiply(float* memory, int tiles, Place first, Next next, Start start, Done done) const {
        using A = Operand<Shape::M, true, Shape::DEPTH>;
        using B = Weights<MULTIPLY, Shape::N, false, Shape::DEPTH>;
        constexpr int FLOATS = A::FLOATS + B::FLOATS;
        SlopeCopies<A, Shape::THREADS, !ALONE> d_copies;
        Copies<B, Shape::THREADS, !ALONE> w_copies;
        products<MULTIPLY, Shape, A, B>(
            memory, FLOATS + (a.slope.kind == PLAIN ? 0 : A::FLOATS), tiles, (a.n + Shape::DEPTH - 1) / Shape::DEPTH, first, next,
            [&](float* left, float* right, Place at, int step) {
                if (step == 0) d.begin(d_copies, at.row, 0), w_copies.begin(w, at.column, 0);
                d.copy(d_copies, left, left + FLOATS, at.row, step * Shape::DEPTH), w_copies.next(right, w, at.column, step * Shape::DEPTH);
            },
            [&](float* left, Place at, int step) { d.template ready<A, Shape::THREADS>(left, left + FLOATS, at.row, step * Shape::DEPTH); },
            [](const float*, int) {}, start, done);
    }
    template <Multiply MULTIPLY, class Shape, class Next>
    __device__ __forceinline__ void compute(float* memory, int tiles, Place first, Next next) const {
        Pairs dx(write(a.dx), a.k, a.k, a.accumulate, ALONE ? a.dx.format : IN_F32);
        multiply<MULTIPLY, Shape>(
            memory, tiles, first, next,
            [&](typename Shape::Sums& sums, Place at) { dx.template start_tile<Shape>(sums, at.row, at.column, rows - at.row); },
            [&](typename Shape::Sums& sums, Place at) { dx.template put_tile<Shape>(sums, at.row, at.column, rows - at.row); });
    }
};
