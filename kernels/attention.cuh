// What attention's kernels share: segments, a head's rows in shared memory and in registers, their products, what is dropped.
//
// A block has one head of a tile of 64 queries (or keys, for their gradients), a warp 16 of them. Scores are sums of products in registers,
// where they become factors of the next product: a thread has columns 2t and 2t + 1 of each 8 as sums and gives them as its columns t and
// t + 4 of the summed dimension, so the other factor's rows are read in that order.
#pragma once
#include "heads.cuh"
#include "product.cuh"

constexpr int TILE = 64, THREADS = 128;
// In place of the log of a denominator without keys: probabilities that follow from it are 0.
constexpr float NO_KEYS = 3.4028234664e38f;

struct Attention : Heads {
    IndexReference list; // of segments: query start, count, stride; key start, count, stride
    Mask key_dropout;
    int masked_from; // the first key that key_dropout may mask
};

struct Rows3 {
    int start, count, stride;
    __device__ Rows3(const int* list) : start(max(list[0], 0)), count(max(list[1], 0)), stride(max(list[2], 0)) {}
    __device__ int operator[](int i) const { return start + i * stride; }
    __device__ int last() const { return start + (count - 1) * stride; }
    // Position of a row, -1 if it is not among them.
    __device__ int find(int row) const {
        int d = row - start, i = stride > 0 ? d / stride : 0;
        return d >= 0 && i < count && start + i * stride == row ? i : -1;
    }
};
struct Segment {
    int number;
    Rows3 query, key;
    __device__ Segment(const int* list, int s) : number(s), query(list + 6 * s), key(list + 6 * s + 3) {}
};

// Tile `item` of the queries (part 0) or keys (part 1) of all segments: its segment, negative if there is none, and its first row's position.
struct Item {
    int segment, first;
};
__device__ inline Item find_item(const int* list, int segments, int part, int item) {
    constexpr int OWN = 4; // segments of a lane: their lengths come at the same time
    for (int base = 0; base < segments; base += 32 * OWN) {
        int tiles[OWN], sum = 0;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int s = base + OWN * lane() + i;
            tiles[i] = s < segments ? (max(list[6 * s + 3 * part + 1], 0) + TILE - 1) / TILE : 0;
            sum += tiles[i];
        }
        int end = sum; // of the lane's tiles
        for (int offset = 1; offset < 32; offset *= 2) {
            int before = __shfl_up_sync(FULL_WARP, end, unsigned(offset));
            if (lane() >= offset) end += before;
        }
        unsigned behind = __ballot_sync(FULL_WARP, end > item);
        if (behind) {
            int found = __ffs(int(behind)) - 1, rest = item - (end - sum), own = 0;
#pragma unroll
            for (int i = 0; i + 1 < OWN; i++)
                if (own == i && rest >= tiles[i]) rest -= tiles[i], own++;
            return {base + OWN * found + __shfl_sync(FULL_WARP, own, found), __shfl_sync(FULL_WARP, rest, found) * TILE};
        }
        item -= __shfl_sync(FULL_WARP, end, 31);
    }
    return {-1, 0};
}

// Columns of a head in an operand.
__device__ inline View head_of(const float* data, int stride, int column, int width) {
    View m(data + column, 0x7fffffff, width, stride);
    m.wide = m.wide && width % 4 == 0;
    return m;
}
__device__ inline View head_of(const Attention& a, int i, int head) {
    return head_of(read(a.operands[i], a.step), a.strides[i], a.columns[i] + head * a.width, a.width);
}

// A tile of rows of a head in shared memory, HEAD columns with zeros behind the head's width.
template <int HEAD> struct HeadTile {
    static constexpr bool ALONG = true;
    static constexpr int ROWS = TILE, COLUMNS = HEAD, STRIDE = HEAD + 4, FLOATS = TILE * STRIDE;

    static __device__ __forceinline__ int at(int row, int column) { return row * STRIDE + column; }

    static __device__ __forceinline__ void copy(float* tile, const View& m, Rows3 rows, int first) {
        copy_tile<HeadTile, THREADS>(tile, m, 0, [&](int i) { return first + i < rows.count ? rows[first + i] : -1; });
    }
};

// 16 rows of a head in registers, as left factors: part p is columns 8p .. + 8.
template <int HEAD> struct HeadRows {
    Left at[HEAD / 8];

    __device__ __forceinline__ void operator()(Left& a, int part) const {
#pragma unroll
        for (int e = 0; e < 4; e++) a[e] = at[part][e];
    }

    // rows[0], rows[1]: rows g and g + 8, negative for none.
    __device__ __forceinline__ void load(const View& m, const int (&rows)[2]) {
#pragma unroll
        for (int p = 0; p < HEAD / 8; p++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int row = rows[e % 2], column = 8 * p + lane() % 4 + e / 2 * 4;
                at[p][e] = row >= 0 && column < m.columns ? m.data[size_t(row) * m.stride + column] : 0;
            }
    }
};

// A warp's rows of a tile in shared memory, as left factors.
template <int HEAD> __device__ __forceinline__ auto own_tile(const float* tile) {
    return [tile](Left& a, int part) { left_fragment<HeadTile<HEAD>>(a, tile, 16 * warp(), 8 * part); };
}

// sums [16, 8 COLUMNS] = rows · tile[first ..]ᵀ. `left_of(fragment, part)` gives columns 8 part .. + 8 of the rows.
template <Multiply MULTIPLY, int HEAD, int COLUMNS, class LeftOf>
__device__ __forceinline__ void scores(float (&sums)[1][COLUMNS][4], LeftOf left_of, const float* tile, int first) {
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums[0][c][e] = 0;
#pragma unroll
    for (int depth = 0; depth < HEAD; depth += 16)
        multiply<MULTIPLY>(
            sums, [&](Left& a, int, int half) { left_of(a, depth / 8 + half); },
            [&](Right& b, Right& next, int j, int half) {
                right_fragments<HeadTile<HEAD>>(b, next, tile, first + 8 * j, depth + 8 * half);
            });
}
// sums [16, HEAD] += weights [16, 8 COLUMNS] · tile[first ..].
template <Multiply MULTIPLY, int HEAD, int COLUMNS>
__device__ __forceinline__ void weigh(float (&sums)[1][HEAD / 8][4], const float (&weights)[1][COLUMNS][4], const float* tile, int first) {
    constexpr int STRIDE = HeadTile<HEAD>::STRIDE;
    const float* from = tile + (first + lane() % 4 * 2) * STRIDE + lane() / 4;
#pragma unroll
    for (int c = 0; c < COLUMNS; c += 2)
        multiply<MULTIPLY>(
            sums,
            [&](Left& a, int, int half) {
                const float(&w)[4] = weights[0][c + half];
                a[0] = w[0], a[2] = w[1], a[1] = w[2], a[3] = w[3];
            },
            [&](Right& b, Right& next, int j, int half) {
                const float* p = from + (8 * c + 8 * half) * STRIDE + 8 * j;
                b[0] = p[0], b[1] = p[STRIDE], next[0] = p[8], next[1] = p[STRIDE + 8];
            });
}

// Bit i: whether the weight of key 4 block + i of a query is dropped.
__device__ __forceinline__ unsigned dropped(const Attention& a, int head, int query, int block) {
    uint4 words = random_words(a.step, a.dropout.stream, unsigned(head + a.heads * query), unsigned(block));
    unsigned below = a.dropout.below;
    return unsigned(words.x < below) | unsigned(words.y < below) << 1 | unsigned(words.z < below) << 2 | unsigned(words.w < below) << 3;
}
// Factors of weights [2 queries g and g + 8, 2 keys 2t and 2t + 1 of the 8 from `key` on]. All lanes must call.
__device__ __forceinline__ void query_factors(float (&f)[4], const Attention& a, int head, const int (&queries)[2], int key) {
    int t = lane() % 4, first = queries[0], second = queries[1];
    unsigned own = dropped(a, head, t % 2 ? second : first, key / 4 + t / 2), other = __shfl_xor_sync(FULL_WARP, own, 1);
#pragma unroll
    for (int row = 0; row < 2; row++)
#pragma unroll
        for (int i = 0; i < 2; i++) f[2 * row + i] = ((row == t % 2 ? own : other) >> (t % 2 * 2 + i) & 1) ? 0 : a.dropout.scale;
}
__device__ inline bool masked(const Attention& a, int segment, int key) {
    return a.key_dropout.below > 0 && key >= a.masked_from &&
           random_word(a.step, a.key_dropout.stream, unsigned(segment), unsigned(key)) < a.key_dropout.below;
}

// Sum and maximum over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(FULL_WARP, x, 1);
    return x + __shfl_xor_sync(FULL_WARP, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

// This thread's rows of a tile, -1 for none.
__device__ __forceinline__ void own_rows(int (&own)[2], Rows3 rows, int first) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int place = first + 16 * warp() + lane() / 4 + 8 * i;
        own[i] = place < rows.count ? rows[place] : -1;
    }
}
// Writes sums [16, HEAD] times `factor` to a head's columns of this thread's rows.
template <int HEAD>
__device__ __forceinline__ void put_rows(const Pairs& out, const int (&rows)[2], const float (&sums)[1][HEAD / 8][4], float first, float second) {
    out.visit([&](auto load, auto store) {
#pragma unroll
        for (int c = 0; c < HEAD / 8; c++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = rows[i], column = 8 * c + lane() % 4 * 2;
                float factor = i == 0 ? first : second;
                if (row < 0 || column >= out.columns) continue;
                float2 old = load(row, column, out.accumulate);
                store(row, column, old.x + sums[0][c][2 * i] * factor, old.y + sums[0][c][2 * i + 1] * factor);
            }
    });
}

// Calls f(row) with all lanes for what a block has of the rows that are no query (part 0) or key (part 1) of any segment.
template <class F>
__device__ __forceinline__ void for_free_rows(const int* list, int segments, int part, int rows, int block, int blocks, F f) {
    constexpr int WARPS = THREADS / 32;
    for (int row = block * WARPS + warp(); row < rows; row += blocks * WARPS) {
        bool held = false;
#pragma unroll 4
        for (int s = lane(); s < segments; s += 32) held |= Rows3(list + 6 * s + 3 * part).find(row) >= 0;
        if (!__any_sync(FULL_WARP, held)) f(row);
    }
}
// Zeros in a row. All lanes must call.
__device__ __forceinline__ void clear_row(const Pairs& out, int row) {
    for (int column = 2 * lane(); column < out.columns; column += 64) out.put(row, column, 0, 0);
}

// Keys of a segment pass through shared memory, two tiles at a time. Calls f(key tile, value tile, whether keys are not to be seen, first
// key) for each.
template <int HEAD, class F>
__device__ __forceinline__ void for_keys(const Attention& a, const Segment& segment, int head, float* memory, F f) {
    using Tile = HeadTile<HEAD>;
    __shared__ int hidden[2][TILE];
    View k = head_of(a, 1, head), v = head_of(a, 2, head);
    int keys = segment.key.count, thread = int(threadIdx.x);
    auto begin = [&](int first) {
        int stage = first / TILE % 2;
        if (first < keys) {
            float* tile = memory + stage * 2 * Tile::FLOATS;
            Tile::copy(tile, k, segment.key, first);
            Tile::copy(tile + Tile::FLOATS, v, segment.key, first);
            if (thread < TILE) hidden[stage][thread] = first + thread >= keys || masked(a, segment.number, first + thread);
        }
        cp_async_commit();
    };
    begin(0);
    for (int first = 0; first < keys; first += TILE) {
        begin(first + TILE);
        cp_async_wait<1>();
        __syncthreads();
        const float* tile = memory + first / TILE % 2 * 2 * Tile::FLOATS;
        f(tile, tile + Tile::FLOATS, hidden[first / TILE % 2], first);
        __syncthreads();
    }
}
