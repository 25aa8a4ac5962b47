// The gradient of a product's result, as tiles of an operand: dy itself, or what follows from dy through an activation or a maximum.
#pragma once
#include "activation.cuh"
#include "maxima.cuh"
#include "product.cuh"

enum SlopeKind {
    PLAIN,    // d = dy
    OF_RELU,  // d = dy where `by`, the result, is positive
    OF_GELU,  // d = dy gelu'(by), `by` being the value before the activation
    OF_MAXIMA // d = dy of the segments whose maximum the element is
};
struct Slope {
    Reference dy, by;
    Maxima maxima;
    int kind, stride; // floats between rows of dy and by
};

// Copies of a slope's tiles.
template <class Tile, int THREADS, bool NEAR = false> struct SlopeCopies {
    Copies<Tile, THREADS, NEAR> dy, by;
};

// d [rows, columns]. ALONE in a launch, not as a link of a chain: also of maxima and of tensors in 16 bits.
template <bool ALONE> struct Slopes {
    int kind;
    View dy, by;
    MaximaView maxima;

    __device__ Slopes(const Slope& a, const StepBlock* step, int rows, int columns)
        : kind(a.kind), dy(read(a.dy, step), rows, columns, a.stride, ALONE ? a.dy.format : IN_F32),
          by(a.by.data ? read(a.by, step) : dy.data, rows, columns, a.stride, ALONE ? a.by.format : IN_F32),
          maxima(a.maxima, step, dy.data, columns) {
        dy.wide = by.wide = dy.wide && by.wide && (!ALONE || a.kind != OF_MAXIMA || maxima.wide);
    }
    // As those of `Copies`; `other` is room for a tile more, which all but PLAIN use.
    template <class Tile, int THREADS, bool NEAR>
    __device__ __forceinline__ void begin(SlopeCopies<Tile, THREADS, NEAR>& copies, int start, int depth) const {
        copies.dy.begin(dy, start, depth);
        if (kind != PLAIN) copies.by.begin(by, start, depth);
    }
    template <class Tile, int THREADS, bool NEAR>
    __device__ __forceinline__ void copy(SlopeCopies<Tile, THREADS, NEAR>& copies, float* tile, float* other, int start, int depth) const {
        if constexpr (ALONE)
            if (kind == OF_MAXIMA) return copy_maxima<Tile, THREADS>(tile, other, start, depth);
        copies.by.left = copies.dy.left, copies.by.others = copies.dy.others; // no registers for what is the same
        copies.dy.next(tile, dy, start, depth);
        if (kind != PLAIN) copies.by.next(other, by, start, depth);
    }
    // What this thread has copied becomes d.
    template <class Tile, int THREADS> __device__ __forceinline__ void ready(float* tile, float* other, int start, int depth) const {
        if constexpr (ALONE)
            if (kind == OF_MAXIMA) return ready_maxima<Tile, THREADS>(tile, other, Tile::ALONG ? start : depth);
        dy.template ready<Tile, THREADS>(tile);
        if (kind == PLAIN) return;
        by.template ready<Tile, THREADS>(other);
        auto slope = [&](float dy, float by) { return kind == OF_GELU ? dy * gelu_slope(by) : by > 0 ? dy : 0; };
        if (dy.wide) {
            each_part<Tile, THREADS, 4>([&](int e, int, int) {
                float4 d = *reinterpret_cast<float4*>(tile + e), b = *reinterpret_cast<const float4*>(other + e);
                *reinterpret_cast<float4*>(tile + e) = make_float4(slope(d.x, b.x), slope(d.y, b.y), slope(d.z, b.z), slope(d.w, b.w));
            });
        } else {
            each_part<Tile, THREADS, 1>(
                [&](int e, int, int) { tile[e] = slope(tile[e], other[e]); });
        }
    }

  private:
    // The gradients of the maxima of the rows' segments, and the rows where these came from: neighbouring rows have the same, near the multiprocessor.
    template <class Tile, int THREADS> __device__ __forceinline__ void copy_maxima(float* tile, float* kept, int start, int depth) const {
        int row = Tile::ALONG ? start : depth, column = Tile::ALONG ? depth : start;
        if (dy.wide) {
            constexpr int PARTS = Tile::ROWS * Tile::COLUMNS / 4 / THREADS;
            int segments[PARTS], i = 0;
            each_part<Tile, THREADS, 4>([&](int, int r, int c) {
                segments[i++] = row + r < dy.rows && column + c < dy.columns ? maxima.segment_of[row + r] : -1;
            });
            i = 0;
            each_part<Tile, THREADS, 4>([&](int e, int, int c) {
                int s = segments[i++];
                size_t place = s < 0 ? 0 : size_t(s) * maxima.width + column + c;
                cp_async16_near(tile + e, maxima.dy + place, s >= 0);
                cp_async16_near(kept + e, maxima.kept + place, s >= 0);
            });
        } else {
            each_part<Tile, THREADS, 1>([&](int e, int r, int c) {
                bool inside = row + r < dy.rows && column + c < dy.columns;
                tile[e] = inside ? maxima.one(row + r, column + c) : 0;
            });
        }
    }
    template <class Tile, int THREADS> __device__ __forceinline__ void ready_maxima(float* tile, const float* kept, int row) const {
        if (!dy.wide) return;
        each_part<Tile, THREADS, 4>([&](int e, int r, int) {
            float4 d = *reinterpret_cast<float4*>(tile + e);
            int4 k = *reinterpret_cast<const int4*>(kept + e);
            auto of = [&](float d, int kept) { return kept == row + r ? d : 0; };
            *reinterpret_cast<float4*>(tile + e) = make_float4(of(d.x, k.x), of(d.y, k.y), of(d.z, k.z), of(d.w, k.w));
        });
    }
};
