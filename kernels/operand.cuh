// Operands of products: their tiles in shared memory, how these are copied, and the fragments that go to tensor cores.
//
// Operands pass through shared memory, DEPTH of the dimension that is summed over at a time, by copies in the background. An operand is "along" if
// the summed dimension is contiguous in it (x and W in x Wᵀ), else "across" (W in dy W, both in dyᵀ x).
#pragma once
#include "storage.cuh"

constexpr int DEPTH = 16;

// Fragments of the tf32 step m16n8k8, as f32.
using Left = float[4];
using Right = float[2];

// A matrix in global memory.
struct View {
    const float* data;
    int rows, columns, stride, format;
    bool wide; // four columns can be read at a time

    __device__ View(const float* data, int rows, int columns, int stride, int format = IN_F32)
        : data(data), rows(rows), columns(columns), stride(stride), format(format),
          wide(format != IN_F32 || (columns % 4 == 0 && is_wide(data, stride))) {}
    // What this thread has copied of a tile becomes f32.
    template <class Tile, int THREADS> __device__ __forceinline__ void ready(float* tile) const;
};

// The column of all parts of a tile that this thread copies; see `each_part`.
template <class Tile, int PART> __device__ __forceinline__ int part_column() {
    return int(threadIdx.x) % (Tile::COLUMNS / PART) * PART;
}
// Calls f(element of the tile, row, column) for the parts of a tile that this thread copies: PART columns of a row. Always
// the same parts, so that a thread can work on what it has copied before others see it.
template <class Tile, int THREADS, int PART, class F> __device__ __forceinline__ void each_part(F f) {
    constexpr int PARTS = Tile::COLUMNS / PART, STEP = THREADS / PARTS, OWN = (Tile::ROWS + STEP - 1) / STEP;
    static_assert(THREADS % PARTS == 0 && (Tile::ROWS % STEP == 0 || OWN == 1), "every thread has as many, or one or none");
    int first = int(threadIdx.x) / PARTS, column = part_column<Tile, PART>();
    if (Tile::ROWS < STEP && first >= Tile::ROWS) return;
#pragma unroll(PART > 1 ? OWN : 1) // matrices that are not aligned are rare and small: no registers for them
    for (int i = 0; i < OWN; i++) f(Tile::at(first + i * STEP, column), first + i * STEP, column);
}
// Begins to copy rows row_of(0 .. ROWS) (negative: zeros), columns column .. + COLUMNS, zeros outside of the matrix.
template <class Tile, int THREADS, class F> __device__ __forceinline__ void copy_tile(float* tile, const View& m, int column, F row_of) {
    auto place = [&](int r, int c, bool& valid) {
        int row = row_of(r);
        valid = row >= 0 && row < m.rows && column + c < m.columns;
        return valid ? size_t(row) * m.stride + column + c : 0;
    };
    bool valid;
    if (m.format != IN_F32) {
        each_part<Tile, THREADS, 4>([&](int e, int r, int c) {
            size_t from = place(r, c, valid);
            cp_async8(tile + e, reinterpret_cast<const unsigned short*>(m.data) + from, valid); // half of its room
        });
    } else if (m.wide) {
        each_part<Tile, THREADS, 4>([&](int e, int r, int c) {
            size_t from = place(r, c, valid);
            cp_async16(tile + e, m.data + from, valid);
        });
    } else {
        each_part<Tile, THREADS, 1>([&](int e, int r, int c) {
            size_t from = place(r, c, valid);
            cp_async4(tile + e, m.data + from, valid);
        });
    }
}
template <class Tile, int THREADS> __device__ __forceinline__ void View::ready(float* tile) const {
    if (format == IN_F32) return;
    each_part<Tile, THREADS, 4>([&](int e, int, int) {
        float4* at = reinterpret_cast<float4*>(tile + e);
        *at = widen(*reinterpret_cast<uint2*>(at), format);
    });
}

// A tile of an operand in shared memory: SIZE rows or columns of the result. Neither copies nor fragments meet in a bank: pieces of 16
// bytes of along tiles are exchanged within their row, rows of across tiles are padded.
template <int SIZE, bool ALONG_> struct Operand {
    static constexpr bool ALONG = ALONG_, PACKED = false;
    static constexpr int ROWS = ALONG ? SIZE : DEPTH, COLUMNS = ALONG ? DEPTH : SIZE, STRIDE = COLUMNS + (ALONG ? 0 : 8), FLOATS = ROWS * STRIDE;

    static __device__ __forceinline__ int at(int row, int column) {
        return ALONG ? row * STRIDE + (column ^ (row / 2 % 2 * 8 + row / 4 % 2 * 4)) : row * STRIDE + column;
    }
    // Part `depth` of the summed dimension, part `start` of the other.
    template <int THREADS> static __device__ __forceinline__ void copy(float* tile, const View& m, int start, int depth) {
        int row = ALONG ? start : depth;
        copy_tile<Operand, THREADS>(tile, m, ALONG ? depth : start, [&](int r) { return row + r; });
    }
};

// The same of weights in 16 bits, the right factors of products in 16 bits: rows of the matrix are multiples of 16 bytes, with zeros behind the last
// column (`pack_weights`).
template <int SIZE, bool ALONG_> struct Packed {
    static constexpr bool ALONG = ALONG_, PACKED = true;
    static constexpr int ROWS = ALONG ? SIZE : DEPTH, COLUMNS = ALONG ? DEPTH : SIZE, STRIDE = COLUMNS + (ALONG ? 0 : 8), FLOATS = ROWS * STRIDE / 2;

    static __device__ __forceinline__ int at(int row, int column) {
        return ALONG ? row * STRIDE + (column ^ (row / 4 % 2 * 8)) : row * STRIDE + column;
    }
    template <int THREADS> static __device__ __forceinline__ void copy(float* tile, const View& m, int start, int depth) {
        int row = ALONG ? start : depth, column = ALONG ? depth : start;
        each_part<Packed, THREADS, 8>([&](int e, int r, int c) {
            bool valid = row + r < m.rows && column + c < m.columns;
            size_t from = valid ? size_t(row + r) * m.stride + column + c : 0;
            cp_async16(reinterpret_cast<unsigned short*>(tile) + e, reinterpret_cast<const unsigned short*>(m.data) + from, valid);
        });
    }
    // Columns column .. + 16 of the result, all of the tile's summed dimension.
    static __device__ __forceinline__ void fragments(unsigned (&first)[2], unsigned (&second)[2], const float* tile, int column) {
        const unsigned short* halves = reinterpret_cast<const unsigned short*>(tile);
        int own = lane() % 8, next = lane() / 8 % 2 * 8, other = column + lane() / 16 * 8;
        unsigned bits[4];
        if constexpr (ALONG) ldmatrix_x4(bits, halves + at(other + own, next));
        else ldmatrix_x4_trans(bits, halves + at(next + own, other));
        first[0] = bits[0], first[1] = bits[1], second[0] = bits[2], second[1] = bits[3];
    }
};

// Fragments from a tile in shared memory: rows row .. + 16 of the result, or columns, 8 of the summed dimension from `depth` on.
template <class Tile> __device__ __forceinline__ void left_fragment(Left& a, const float* tile, int row, int depth) {
    if constexpr (Tile::ALONG) {
        unsigned bits[4];
        ldmatrix_x4(bits, tile + Tile::at(row + lane() % 16, depth + lane() / 16 * 4));
#pragma unroll
        for (int e = 0; e < 4; e++) a[e] = __uint_as_float(bits[e]);
    } else {
        const float* p = tile + Tile::at(depth + lane() % 4, row + lane() / 4);
        a[0] = p[0], a[1] = p[8], a[2] = p[4 * Tile::STRIDE], a[3] = p[4 * Tile::STRIDE + 8];
    }
}
template <class Tile> __device__ __forceinline__ void right_fragments(Right& first, Right& second, const float* tile, int row, int depth) {
    if constexpr (Tile::ALONG) {
        unsigned bits[4];
        ldmatrix_x4(bits, tile + Tile::at(row + lane() / 16 * 8 + lane() % 8, depth + lane() / 8 % 2 * 4));
        first[0] = __uint_as_float(bits[0]), first[1] = __uint_as_float(bits[1]);
        second[0] = __uint_as_float(bits[2]), second[1] = __uint_as_float(bits[3]);
    } else {
        const float* p = tile + Tile::at(depth + lane() % 4, row + lane() / 4);
        first[0] = p[0], first[1] = p[4 * Tile::STRIDE], second[0] = p[8], second[1] = p[4 * Tile::STRIDE + 8];
    }
}
