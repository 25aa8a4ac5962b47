// Operands of products: their tiles in shared memory, how these are copied, and the fragments that go to tensor cores.
//
// Operands pass through shared memory, some of the dimension that is summed over at a time, by copies in the background. An operand is "along" if
// the summed dimension is contiguous in it (x and W in x Wᵀ), else "across" (W in dy W, both in dyᵀ x).
#pragma once
#include "storage.cuh"

// Of the summed dimension: what is multiplied at a time. Tiles have a multiple of it.
constexpr int SLICE = 16;

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
    return int(threadIdx.x % (Tile::COLUMNS / PART)) * PART;
}
// Calls f(element of the tile, row, column) for the parts of a tile that this thread copies: PART columns of a row. Always
// the same parts, so that a thread can work on what it has copied before others see it.
template <class Tile, int THREADS, int PART, class F> __device__ __forceinline__ void each_part(F f) {
    constexpr int PARTS = Tile::COLUMNS / PART, STEP = THREADS / PARTS, OWN = (Tile::ROWS + STEP - 1) / STEP;
    static_assert(THREADS % PARTS == 0 && (Tile::ROWS % STEP == 0 || OWN == 1), "every thread has as many, or one or none");
    int first = int(threadIdx.x / PARTS), column = part_column<Tile, PART>();
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
    if (Tile::PACKED || format == IN_F32) return;
    each_part<Tile, THREADS, 4>([&](int e, int, int) {
        float4* at = reinterpret_cast<float4*>(tile + e);
        *at = widen(*reinterpret_cast<uint2*>(at), format);
    });
}

// A tile of an operand in shared memory: SIZE rows or columns of the result, DEPTH of the summed dimension. Neither copies nor fragments meet in a
// bank: pieces of 16 bytes of along tiles are exchanged within their row, in the same way every 8 rows; rows of across tiles are padded.
template <int SIZE, bool ALONG_, int DEPTH_> struct Operand {
    static constexpr bool ALONG = ALONG_, PACKED = false;
    static constexpr int DEPTH = DEPTH_, ROWS = ALONG ? SIZE : DEPTH, COLUMNS = ALONG ? DEPTH : SIZE;
    static constexpr int STRIDE = COLUMNS + (ALONG ? 0 : 8), FLOATS = ROWS * STRIDE, BYTES = 4; // of an element
    static_assert(!ALONG || DEPTH == 16 || DEPTH == 32, "other rows meet in banks");

    static __device__ __forceinline__ int at(int row, int column) {
        int exchange = (row & 4) + (DEPTH == 16 ? (row & 2) * 4 : (row & 3) * 8);
        return row * STRIDE + (ALONG ? column ^ exchange : column);
    }
};

// The same of matrices in 16 bits, in products of 16 bits: rows of the matrix are multiples of 16 bytes, with zeros behind the last column of weights
// (`pack_weights`).
template <int SIZE, bool ALONG_, int DEPTH_> struct Packed {
    static constexpr bool ALONG = ALONG_, PACKED = true;
    static constexpr int DEPTH = DEPTH_, ROWS = ALONG ? SIZE : DEPTH, COLUMNS = ALONG ? DEPTH : SIZE;
    static constexpr int STRIDE = COLUMNS + (ALONG ? 0 : 8), FLOATS = ROWS * STRIDE / 2, BYTES = 2;
    static_assert(!ALONG || DEPTH == 16 || DEPTH == 32, "other rows meet in banks");

    static __device__ __forceinline__ int at(int row, int column) {
        int exchange = DEPTH == 16 ? (row & 4) * 2 : (row & 6) * 4;
        return row * STRIDE + (ALONG ? column ^ exchange : column);
    }
    // Rows row .. + 16 of the result, SLICE of the summed dimension from `depth` on.
    static __device__ __forceinline__ void left_fragment(unsigned (&bits)[4], const float* tile, int row, int depth) {
        static_assert(ALONG, "of rows");
        ldmatrix_x4(bits, reinterpret_cast<const unsigned short*>(tile) + at(row + lane() % 16, depth + lane() / 16 * 8));
    }
    // Columns column .. + 16 of the result. SPREAD: pairs of the summed dimension are not 2t and 2t + 1 of each 8, but t and t + 4.
    template <bool SPREAD = false>
    static __device__ __forceinline__ void fragments(unsigned (&first)[2], unsigned (&second)[2], const float* tile, int column, int depth) {
        static_assert(!ALONG || !SPREAD, "pairs along rows are neighbours");
        const unsigned short* halves = reinterpret_cast<const unsigned short*>(tile);
        int own = lane() % 8, next = depth + lane() / 8 % 2 * 8, other = column + lane() / 16 * 8;
        if (SPREAD) own = own / 2 + own % 2 * 4;
        unsigned bits[4];
        if constexpr (ALONG) ldmatrix_x4(bits, halves + at(other + own, next));
        else ldmatrix_x4_trans(bits, halves + at(next + own, other));
        first[0] = bits[0], first[1] = bits[1], second[0] = bits[2], second[1] = bits[3];
    }
};

// This thread's copies of an operand's tiles, which follow each other along the summed dimension. Its place is kept from tile to tile, so that a
// step of a product has next to no addresses to find. NEAR: a block copies it for several tiles of the result, one behind the other: through the cache
// of the multiprocessor.
template <class Tile, int THREADS, bool NEAR = false> struct Copies {
    static constexpr int PART = Tile::PACKED ? 8 : 4, PARTS = Tile::COLUMNS / PART, STEP = THREADS / PARTS, OWN = (Tile::ROWS + STEP - 1) / STEP;
    static_assert(Tile::ROWS % STEP == 0 || OWN == 1, "every thread has as many, or one or none");
    static_assert(!Tile::ALONG || STEP % 8 == 0, "pieces of all parts are exchanged alike");

    // Of the first part; of matrices that are not wide nothing is kept.
    const unsigned char* from;
    int left, others; // of the matrix from there on: of the summed dimension, and of the other

    // The first tile has part `depth` of the summed dimension, part `start` of the other.
    __device__ __forceinline__ void begin(const View& m, int start, int depth) {
        if (!Tile::PACKED && !m.wide) return;
        int row = (Tile::ALONG ? start : depth) + int(threadIdx.x / PARTS), column = (Tile::ALONG ? depth : start) + part_column<Tile, PART>();
        int stride = m.stride;
        forget(stride); // or its extension to 64 bits is kept, and the product is one of 64 bits
        from = reinterpret_cast<const unsigned char*>(m.data) + (ptrdiff_t(row) * stride + column) * bytes(m);
        left = Tile::ALONG ? m.columns - column : m.rows - row, others = Tile::ALONG ? m.rows - row : m.columns - column;
        if (others <= 0) left = 0; // nor is any part after the first there
    }
    // Begins to copy the next tile, which has these parts; zeros outside of the matrix.
    __device__ __forceinline__ void next(float* tile, const View& m, int start, int depth) {
        auto copy16 = [](void* to, const void* from, bool valid) { NEAR ? cp_async16_near(to, from, valid) : cp_async16(to, from, valid); };
        if constexpr (Tile::PACKED) {
            parts(tile, m, copy16);
        } else if (m.format != IN_F32) { // half of its room
            parts(tile, m, [](void* to, const void* from, bool valid) { cp_async8(to, from, valid); });
        } else if (m.wide) {
            parts(tile, m, copy16);
        } else {
            int row = Tile::ALONG ? start : depth;
            copy_tile<Tile, THREADS>(tile, m, Tile::ALONG ? depth : start, [=](int r) { return row + r; });
        }
    }

  private:
    static __device__ __forceinline__ int bytes(const View& m) { return Tile::PACKED || m.format != IN_F32 ? 2 : 4; }
    template <class Copy> __device__ __forceinline__ void parts(float* tile, const View& m, Copy copy) {
        int first = int(threadIdx.x / PARTS), between = STEP * m.stride * bytes(m);
        if (Tile::ROWS >= STEP || first < Tile::ROWS) {
            unsigned char* to = reinterpret_cast<unsigned char*>(tile) + Tile::at(first, part_column<Tile, PART>()) * Tile::BYTES;
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                bool valid = Tile::ALONG ? left > 0 && (i == 0 || others > i * STEP) : left > i * STEP;
                copy(to + i * STEP * Tile::STRIDE * Tile::BYTES, from + ptrdiff_t(i) * between, valid);
            }
        }
        from += Tile::DEPTH * (Tile::ALONG ? 1 : m.stride) * bytes(m), left -= Tile::DEPTH;
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
