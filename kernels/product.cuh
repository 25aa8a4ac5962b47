// Matrix products on tensor cores: a block computes M x N elements of the result from tiles of two operands in shared memory, whose copies run some
// steps ahead.
#pragma once
#include "operand.cuh"
#include <type_traits>

// How products are computed; sums are f32 always.
enum Multiply {
    // tf32 parts of both factors, three products: as exact as f32
    TF32X3,
    TF32,
    BF16,
    F16, // what is too large for it is infinite
};

template <Multiply MULTIPLY> constexpr bool IN_HALVES = MULTIPLY == BF16 || MULTIPLY == F16;

// Tiles of weights: right factors.
template <Multiply MULTIPLY, int SIZE, bool ALONG, int DEPTH>
using Weights = std::conditional_t<IN_HALVES<MULTIPLY>, Packed<SIZE, ALONG, DEPTH>, Operand<SIZE, ALONG, DEPTH>>;

// Whether a matrix can be copied as packed tiles.
template <Multiply MULTIPLY> __device__ __forceinline__ bool are_packed(const Reference& m) { return IN_HALVES<MULTIPLY> && m.format != IN_F32; }

// Of 16 bits: two as one register, and d += a b.
template <Multiply MULTIPLY> __device__ __forceinline__ unsigned pack(float low, float high) {
    return MULTIPLY == F16 ? pack_f16(low, high) : pack_bf16(low, high);
}
template <Multiply MULTIPLY> __device__ __forceinline__ void multiply_packed(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (MULTIPLY == F16) mma_m16n8k16_f16(d, a, b);
    else mma_m16n8k16_bf16(d, a, b);
}

// sums += a b over 16 of the summed dimension, in two halves. `left_of(fragment, i, half)` and `right_of(fragment, next fragment, j, half)`
// give the factors of row tile i and column tiles j, j + 1. Any order of the summed dimension is right as long as both factors have the
// same: that is why the pairs of 16 bits may be columns t and t + 4.
// LONG sums of three products are added outside of the tensor cores, which round to zero (Ootomo & Yokota, "Recovering single precision accuracy
// from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022); their halves are a loop then, for want of registers, as with
// LOOP.
template <Multiply MULTIPLY, bool LONG = false, bool LOOP = false, int ROWS, int COLUMNS, class LeftOf, class RightOf>
__device__ __forceinline__ void multiply(float (&sums)[ROWS][COLUMNS][4], LeftOf left_of, RightOf right_of) {
    if constexpr (IN_HALVES<MULTIPLY>) {
        unsigned right[COLUMNS][2];
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 2)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Right b[2];
                right_of(b[0], b[1], j, half);
                right[j][half] = pack<MULTIPLY>(b[0][0], b[0][1]), right[j + 1][half] = pack<MULTIPLY>(b[1][0], b[1][1]);
            }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            unsigned left[4];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Left a;
                left_of(a, i, half);
                left[2 * half] = pack<MULTIPLY>(a[0], a[2]), left[2 * half + 1] = pack<MULTIPLY>(a[1], a[3]);
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) multiply_packed<MULTIPLY>(sums[i][j], left, right[j]);
        }
    } else {
        // x as tf32, and what is lost.
        auto split = [](float x, unsigned& main, unsigned& rest) {
            main = to_tf32(x);
            // The low bits are said to be no part of a tf32, not that they are 0.
            if constexpr (MULTIPLY == TF32X3) rest = to_tf32(x - __uint_as_float(main & 0xffffe000u));
        };
        constexpr bool OUTSIDE = LONG && MULTIPLY == TF32X3;
#pragma unroll(OUTSIDE || LOOP ? 1 : 2)
        for (int half = 0; half < 2; half++) {
            unsigned right[COLUMNS][2], right_rest[COLUMNS][2];
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2) {
                Right b[2];
                right_of(b[0], b[1], j, half);
#pragma unroll
                for (int e = 0; e < 4; e++) split(b[e / 2][e % 2], right[j + e / 2][e % 2], right_rest[j + e / 2][e % 2]);
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                unsigned left[4], left_rest[4];
                Left a;
                left_of(a, i, half);
#pragma unroll
                for (int e = 0; e < 4; e++) split(a[e], left[e], left_rest[e]);
                float parts[COLUMNS][4] = {};
                float(&to)[COLUMNS][4] = OUTSIDE ? parts : sums[i];
                if constexpr (MULTIPLY == TF32X3) {
#pragma unroll
                    for (int j = 0; j < COLUMNS; j++) mma_m16n8k8_tf32(to[j], left_rest, right[j]);
#pragma unroll
                    for (int j = 0; j < COLUMNS; j++) mma_m16n8k8_tf32(to[j], left, right_rest[j]);
                }
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) mma_m16n8k8_tf32(to[j], left, right[j]);
#pragma unroll
                for (int j = 0; OUTSIDE && j < COLUMNS; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) sums[i][j][e] += parts[j][e];
            }
        }
    }
}

// sums += a b, with b packed, of the tiles' parts for `Shape`'s warp, SLICE of the summed dimension from `depth` on.
template <Multiply MULTIPLY, class Shape, class A, class B>
__device__ __forceinline__ void multiply_by_packed(typename Shape::Sums& sums, const float* left, const float* right, int depth) {
    unsigned b[Shape::COLUMNS][2];
#pragma unroll
    for (int j = 0; j < Shape::COLUMNS; j += 2) B::template fragments<!A::ALONG>(b[j], b[j + 1], right, Shape::column() + 8 * j, depth);
    // Columns are exchanged in the same way every 8 rows.
    const float* begin = left + A::at(Shape::row() + lane() / 4, depth + lane() % 4 * 2);
    const float* second = left + A::at(Shape::row() + lane() / 4, depth + lane() % 4 * 2 + 8);
#pragma unroll
    for (int i = 0; i < Shape::ROWS; i++) {
        unsigned a[4];
        if constexpr (A::PACKED) {
            A::left_fragment(a, left, Shape::row() + 16 * i, depth);
        } else if constexpr (A::ALONG) {
            auto pair = [&](const float* column, int row) {
                float2 x = *reinterpret_cast<const float2*>(column + (16 * i + row) * A::STRIDE);
                return pack<MULTIPLY>(x.x, x.y);
            };
            a[0] = pair(begin, 0), a[1] = pair(begin, 8), a[2] = pair(second, 0), a[3] = pair(second, 8);
        } else {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Left x;
                left_fragment<A>(x, left, Shape::row() + 16 * i, depth + 8 * half);
                a[2 * half] = pack<MULTIPLY>(x[0], x[2]), a[2 * half + 1] = pack<MULTIPLY>(x[1], x[3]);
            }
        }
#pragma unroll
        for (int j = 0; j < Shape::COLUMNS; j++) multiply_packed<MULTIPLY>(sums[i][j], a, b[j]);
    }
}

// A block's tile of the result, how its warps share it, how many blocks' registers must fit on a multiprocessor, how many steps have their
// operands in shared memory: the one that is computed, those whose copies are under way; how much of the summed dimension a step has.
template <int M_, int N_, int WARPS_M, int WARPS_N, int BLOCKS_, int STAGES_ = 3, int DEPTH_ = SLICE> struct Shape {
    static constexpr int M = M_, N = N_, BLOCKS = BLOCKS_, STAGES = STAGES_, DEPTH = DEPTH_;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N, ROWS = M / WARPS_M / 16, COLUMNS = N / WARPS_N / 8;
    using Sums = float[ROWS][COLUMNS][4];

    static __device__ int row() { return warp() / WARPS_N * (M / WARPS_M); }
    static __device__ int column() { return warp() % WARPS_N * (N / WARPS_N); }
    static __device__ __forceinline__ void clear(Sums& sums) {
        each(sums, [](int, int, float& first, float& second) { first = second = 0; });
    }
    // The tile as rows in shared memory, between two barriers.
    static constexpr int STRIDE = N + 8;
    static __device__ __forceinline__ void lay_out(Sums& sums, float* memory) {
        __syncthreads();
        each(sums, [&](int r, int c, float value, float next) { *reinterpret_cast<float2*>(memory + r * STRIDE + c) = make_float2(value, next); });
        __syncthreads();
    }
    // put(column, mean, sum of squares about it) for each column, over the first `rows` rows of the tile, at least one. `memory` is used by no
    // thread any more and has 2 N floats for every WARPS_M; the caller needs a barrier before it uses it again.
    template <class F> static __device__ __forceinline__ void statistics(const Sums& sums, int rows, float* memory, F put) {
        float *totals = memory, *squares = memory + WARPS_M * N, share = 1 / float(rows);
        auto joined = [](const float* from, int c) {
            float sum = 0;
            for (int w = 0; w < WARPS_M; w++) sum += from[w * N + c];
            return sum;
        };
        auto add = [&](float* to, bool squared) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int c = column() + lane() % 4 * 2 + 8 * j + e;
                    float mean = squared ? joined(totals, c) * share : 0, sum = 0;
#pragma unroll
                    for (int i = 0; i < ROWS; i++)
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            float d = sums[i][j][2 * half + e] - mean;
                            if (row() + lane() / 4 + 16 * i + 8 * half < rows) sum += squared ? d * d : d;
                        }
                    for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
                    if (lane() < 4) to[warp() / WARPS_N * N + c] = sum;
                }
            __syncthreads();
        };
        add(totals, false);
        add(squares, true);
        for (int c = int(threadIdx.x); c < N; c += THREADS) put(c, joined(totals, c) * share, joined(squares, c));
    }
    // Calls f(row, column, sum, sum of the next column) for all of this thread's.
    template <class F> static __device__ __forceinline__ void each(Sums& sums, F f) {
        int r = row() + lane() / 4, c = column() + lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) f(r + 16 * i + 8 * half, c + 8 * j, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
    }
};
// Two blocks share a multiprocessor that has 164 KiB of shared memory or more; where three products need more registers, more warps share a tile.
template <Multiply MULTIPLY> using Large = Shape<128, 128, 2, MULTIPLY == TF32X3 ? 4 : 2, MULTIPLY == TF32X3 ? 1 : 2>;
template <Multiply> using Small = Shape<64, 64, 2, 2, 3>;

// First row and column of a tile of the result.
struct Place {
    int row, column;
};

// Tiles of a b, of `steps` steps each, one behind the other: copies for the next tile are under way when one is done. A and B are the operands'
// tiles. `first` is the first tile's place, next(place) makes it the following one's. `copy(left tile, right tile, place, step)` begins copies
// (or writes) of a step; `ready(left tile, place, step)` comes when this thread's are done, before other threads read them; `present(left tile, step)`
// when all threads' are; `start(sums, place)` gives what a tile is added to, `done(sums, place)` comes when it is complete. `memory` has `floats` for each
// stage: a left tile, a right tile, and more if the caller wants. No thread may still use it, and the caller needs a barrier before it uses it again.
template <Multiply MULTIPLY, class Shape, class A, class B, class Next, class Copy, class Ready, class Present, class Start, class Done>
__device__ __forceinline__ void products(float* memory, int floats, int tiles, int steps, Place first, Next next, Copy copy, Ready ready,
                                         Present present, Start start, Done done) {
    memory = held(memory);
    int to = 0, bytes = floats * int(sizeof(float)); // the stage that is copied to next, as what lies before it
    auto stage = [&](int at) { return reinterpret_cast<float*>(reinterpret_cast<unsigned char*>(memory) + at); };
    auto following = [&](int at) { return at == (Shape::STAGES - 1) * bytes ? 0 : at + bytes; };
    Place coming = first;
    int to_come = steps > 0 ? tiles : 0, coming_step = 0; // of what is copied next
    auto begin = [&] {
        if (to_come > 0) {
            copy(stage(to), stage(to) + A::FLOATS, coming, coming_step);
            if (++coming_step == steps) {
                coming_step = 0, to_come--;
                next(coming);
            }
        }
        cp_async_commit();
    };
#pragma unroll 1
    for (int i = 0; i < Shape::STAGES - 1; i++, to = following(to)) begin();
    Place place = first;
#pragma unroll 1
    for (; tiles > 0; tiles--) {
        typename Shape::Sums sums;
        start(sums, place);
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            int now = following(to); // the copies begun longest ago
            float *left = stage(now), *right = left + A::FLOATS;
            cp_async_wait<Shape::STAGES - 2>();
            ready(left, place, step);
            __syncthreads();
            begin(); // in the stage of the step before, which all threads have read
            to = now;
            present(left, step);
#pragma unroll
            for (int depth = 0; depth < Shape::DEPTH; depth += SLICE) {
                if constexpr (B::PACKED)
                    multiply_by_packed<MULTIPLY, Shape, A, B>(sums, left, right, depth);
                else
                    multiply<MULTIPLY, true, !A::ALONG && Shape::ROWS * Shape::COLUMNS == 32>(
                        sums, [&](Left& a, int i, int half) { left_fragment<A>(a, left, Shape::row() + 16 * i, depth + 8 * half); },
                        [&](Right& b, Right& next, int j, int half) {
                            right_fragments<B>(b, next, right, Shape::column() + 8 * j, depth + 8 * half);
                        });
            }
        }
        forget(place.row), forget(place.column);
        done(sums, place);
        next(place);
    }
}
// One tile: sums = a b.
template <Multiply MULTIPLY, class Shape, class A, class B, class Copy, class Ready, class Present>
__device__ __forceinline__ void product(typename Shape::Sums& sums, float* memory, int floats, int steps, Copy copy, Ready ready, Present present) {
    products<MULTIPLY, Shape, A, B>(
        memory, floats, 1, steps, Place{0, 0}, [](Place&) {},
        [&](float* left, float* right, Place, int step) { copy(left, right, step); },
        [&](float* left, Place, int step) { ready(left, step); }, present,
        [](typename Shape::Sums& own, Place) { Shape::clear(own); },
        [&](const typename Shape::Sums& own, Place) {
#pragma unroll
            for (int i = 0; i < Shape::ROWS; i++)
#pragma unroll
                for (int j = 0; j < Shape::COLUMNS; j++)
                    for (int e = 0; e < 4; e++) sums[i][j][e] = own[i][j][e];
        });
}

// A matrix whose neighbouring columns, of which the first is even, are read and written together, as sums of products lie in threads.
struct Pairs {
    float* data;
    int columns, stride, format;
    bool accumulate, even; // adds to what is there; pairs are whole and aligned

    __device__ Pairs(const float* data, int columns, int stride, bool accumulate, int format = IN_F32)
        : data(const_cast<float*>(data)), columns(columns), stride(stride), format(format), accumulate(accumulate),
          even(columns % 2 == 0 && stride % 2 == 0 && reinterpret_cast<size_t>(data) % 8 == 0) {}

    // Calls f(load, store) for columns column < columns and column + 1, if it is there: load(row, column, valid) gives them, or zeros if not
    // valid, store(row, column, x, y) writes them. A loop in f has no branch about how they lie, nor about loads that are not valid.
    template <class F> __device__ __forceinline__ void visit(F f) const {
        auto place = [=](int row, int column) { return size_t(row) * stride + column; };
        if (format != IN_F32) {
            auto at = [=](int row, int column) { return reinterpret_cast<unsigned*>(data) + place(row, column) / 2; };
            f([=](int row, int column, bool valid = true) { return widen(valid ? *at(row, column) : 0, format); },
              [=](int row, int column, float x, float y) { *at(row, column) = narrow(x, y, format); });
        } else if (even) {
            auto at = [=](int row, int column) { return reinterpret_cast<float2*>(data + place(row, column)); };
            f([=](int row, int column, bool valid = true) { return valid ? *at(row, column) : make_float2(0, 0); },
              [=](int row, int column, float x, float y) { *at(row, column) = make_float2(x, y); });
        } else {
            f([=](int row, int column, bool valid = true) {
                  const float* from = data + place(row, column);
                  return make_float2(valid ? from[0] : 0, valid && column + 1 < columns ? from[1] : 0);
              },
              [=](int row, int column, float x, float y) {
                  data[place(row, column)] = x;
                  if (column + 1 < columns) data[place(row, column) + 1] = y;
              });
        }
    }
    __device__ __forceinline__ void put(int row, int column, float x, float y) const {
        if (column >= columns) return;
        visit([&](auto load, auto store) {
            float2 old = load(row, column, accumulate);
            store(row, column, old.x + x, old.y + y);
        });
    }
    // A tile of sums that begins at a row and a column, of which `rows` rows are there: first what it is added to, then it is written.
    template <class Shape> __device__ __forceinline__ void start_tile(typename Shape::Sums& sums, int row, int column, int rows) const {
        if (!accumulate) return Shape::clear(sums);
        visit([&](auto load, auto) {
            Shape::each(sums, [&](int i, int j, float& x, float& y) {
                float2 old = load(row + i, column + j, i < rows && column + j < columns);
                x = old.x, y = old.y;
            });
        });
    }
    template <class Shape> __device__ __forceinline__ void put_tile(typename Shape::Sums& sums, int row, int column, int rows) const {
        visit([&](auto, auto store) {
            Shape::each(sums, [&](int i, int j, float x, float y) {
                if (i < rows && column + j < columns) store(row + i, column + j, x, y);
            });
        });
    }
};
