// Multi-head attention over segments of rows, without scores in memory.
#include "attention.cuh"

// ---- y [queries, heads * width] = softmax(q kᵀ scale) v, with dropout of the softmax; lse [queries, heads]: log of its denominator. Zeros
// and NO_KEYS where there are no keys, or all are masked; zeros in rows of no segment.
struct AttentionForward {
    Attention a;
    Reference y, lse;
    Rows rows;
};
template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_forward(const AttentionForward& args) {
    constexpr int COLUMNS = 4; // of 8 keys, whose scores are in registers at a time
    const Attention& a = args.a;
    SHARED(float, memory);
    const int* list = read(a.list, a.step);
    int segments = length(a.list, a.step) / 6, head = int(blockIdx.y), t = lane() % 4;
    float* lse = write(args.lse);
    Pairs y(write(args.y) + head * a.width, a.width, a.heads * a.width, false);
    View q = head_of(a, 0, head);
    for (int item = int(blockIdx.x);; item += int(gridDim.x)) {
        Item found = find_item(list, segments, 0, item);
        if (found.segment < 0) break;
        Segment segment(list, found.segment);
        int rows[2];
        own_rows(rows, segment.query, found.first);
        HeadRows<HEAD> queries;
        queries.load(q, rows);
        bool work = found.first + 16 * warp() < segment.query.count;
        float most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, sums[1][HEAD / 8][4] = {};
        auto take = [&](const float* k, const float* v, const int* hidden, int first) {
            float p[1][COLUMNS][4];
            scores<MULTIPLY, HEAD>(p, queries, k, 0);
            float top[2] = {most[0], most[1]};
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    p[0][c][e] = hidden[8 * c + 2 * t + e % 2] ? -INFINITY : p[0][c][e] * a.scale;
                    top[e / 2] = fmaxf(top[e / 2], p[0][c][e]);
                }
            float base[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                top[i] = row_max(top[i]);
                base[i] = top[i] == -INFINITY ? 0 : top[i]; // no key yet
                float factor = exponential(most[i] - base[i]);
                total[i] *= factor, most[i] = top[i];
#pragma unroll
                for (int c = 0; c < HEAD / 8; c++) sums[0][c][2 * i] *= factor, sums[0][c][2 * i + 1] *= factor;
            }
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    p[0][c][e] = exponential(p[0][c][e] - base[e / 2]);
                    total[e / 2] += p[0][c][e];
                }
                if (a.dropout.below > 0) {
                    float f[4];
                    query_factors(f, a, head, rows, first + 8 * c);
#pragma unroll
                    for (int e = 0; e < 4; e++) p[0][c][e] *= f[e];
                }
            }
            weigh<MULTIPLY, HEAD>(sums, p, v, 0);
        };
        for_keys<HEAD>(a, segment, head, memory, [&](const float* k, const float* v, const int* hidden, int first) {
#pragma unroll 1
            for (int part = 0; part < TILE && work && first + part < segment.key.count; part += 8 * COLUMNS)
                take(k + part * HeadTile<HEAD>::STRIDE, v + part * HeadTile<HEAD>::STRIDE, hidden + part, first + part);
        });
        float inverse[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            total[i] = row_sum(total[i]);
            inverse[i] = total[i] == 0 ? 0 : 1 / total[i];
            if (rows[i] >= 0 && t == 0) lse[size_t(rows[i]) * a.heads + head] = total[i] == 0 ? NO_KEYS : most[i] + logf(total[i]);
        }
        put_rows<HEAD>(y, rows, sums, inverse[0], inverse[1]);
    }
    for_free_rows(list, segments, 0, resolve(args.rows, a.step), int(blockIdx.x), int(gridDim.x), [&](int row) {
        clear_row(y, row);
        if (lane() == 0) lse[size_t(row) * a.heads + head] = 0;
    });
}

// ---- With P the probabilities, M the factors of dropout, O the result: dV = (P M)ᵀ dO; dP = M (dO Vᵀ); dS = P (dP - D) with D = rowsum(dO O);
// dQ = scale dS K; dK = scale dSᵀ Q. The first `query_blocks` blocks of a head make dQ, the others dK and dV. Gradients overwrite what is there,
// with zeros in rows of no segment, or are added to it; null: none. Those of a launch do not overlap.
struct AttentionBackward {
    Attention a;
    Reference y, lse, dy, gradients[3]; // of q, k, v
    Rows rows[2];                       // of queries, of keys
    int accumulate[3], query_blocks;
};
// Where gradient i of a head goes.
__device__ __forceinline__ Pairs gradient_of(const AttentionBackward& args, int i, int head) {
    float* to = write(args.gradients[i]);
    return Pairs(to ? to + args.a.columns[i] + head * args.a.width : nullptr, args.a.width, args.a.strides[i], args.accumulate[i]);
}
// Keys, or queries, whose scores are in registers at a time.
template <int HEAD> constexpr int PART = HEAD == 32 ? 32 : 16;

template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_dq(const AttentionBackward& args, int block, int blocks) {
    const Attention& a = args.a;
    SHARED(float, memory);
    const int* list = read(a.list, a.step);
    int segments = length(a.list, a.step) / 6, head = int(blockIdx.y), t = lane() % 4, out = a.heads * a.width;
    __shared__ const float *outputs, *log_sums; // y of the head and lse: no registers for them over the loops
    if (threadIdx.x == 0) outputs = read(args.y, a.step) + head * a.width, log_sums = read(args.lse, a.step);
    __syncthreads();
    View q = head_of(a, 0, head), dy = head_of(read(args.dy, a.step), out, head * a.width, a.width);
    float* slopes = memory + 4 * HeadTile<HEAD>::FLOATS;
    for (int item = block;; item += blocks) {
        Item found = find_item(list, segments, 0, item);
        if (found.segment < 0) break;
        Segment segment(list, found.segment);
        int rows[2];
        own_rows(rows, segment.query, found.first);
        float d[2] = {0, 0}, log_total[2], sums[1][HEAD / 8][4] = {};
        for (int column = t; column < a.width; column += 4)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                size_t place = size_t(rows[i]) * out + column;
                if (rows[i] >= 0) d[i] += outputs[place] * dy.data[place];
            }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            d[i] = row_sum(d[i]);
            log_total[i] = rows[i] < 0 ? NO_KEYS : log_sums[size_t(rows[i]) * a.heads + head];
        }
        HeadRows<HEAD> queries;
        queries.load(q, rows);
        HeadTile<HEAD>::copy(slopes, dy, segment.query, found.first); // there before the first keys are, whose group it belongs to
        bool work = found.first + 16 * warp() < segment.query.count;
        for_keys<HEAD>(a, segment, head, memory, [&](const float* k, const float* v, const int* hidden, int first) {
            if (!work) return;
#pragma unroll 1
            for (int part = 0; part < TILE && first + part < segment.key.count; part += PART<HEAD>) {
                float p[1][PART<HEAD> / 8][4], dp[1][PART<HEAD> / 8][4];
                scores<MULTIPLY, HEAD>(p, queries, k, part);
                scores<MULTIPLY, HEAD>(dp, own_tile<HEAD>(slopes), v, part);
#pragma unroll
                for (int c = 0; c < PART<HEAD> / 8; c++) {
                    float f[4] = {1, 1, 1, 1};
                    if (a.dropout.below > 0) query_factors(f, a, head, rows, first + part + 8 * c);
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        // Not `exponential`: there is no register left for it in tf32.
                        float probability = hidden[part + 8 * c + 2 * t + e % 2] ? 0 : expf(p[0][c][e] * a.scale - log_total[e / 2]);
                        dp[0][c][e] = probability * (dp[0][c][e] * f[e] - d[e / 2]);
                    }
                }
                weigh<MULTIPLY, HEAD>(sums, dp, k, part);
            }
        });
        put_rows<HEAD>(gradient_of(args, 0, head), rows, sums, a.scale, a.scale);
        cp_async_wait<0>();
    }
    if (args.accumulate[0]) return;
    for_free_rows(list, segments, 0, resolve(args.rows[0], a.step), block, blocks, [&](int row) { clear_row(gradient_of(args, 0, head), row); });
}

// Factors of weights [2 keys `keys`, 2 queries `queries`], a key's word being its position's. All lanes must call.
__device__ __forceinline__ void key_factors(float (&f)[4], const Attention& a, int head, const int (&keys)[2], const int (&queries)[2]) {
#pragma unroll
    for (int e = 0; e < 4; e++)
        f[e] = (dropped(a, head, queries[e % 2], keys[e / 2] >> 2) >> (keys[e / 2] & 3) & 1) ? 0 : a.dropout.scale;
}
// The same where keys are positions first + g and first + g + 8 with `first` a multiple of 8: the four lanes of a block of keys share the work.
__device__ __forceinline__ void aligned_key_factors(float (&f)[4], const Attention& a, int head, const int (&keys)[2], const int (&queries)[2]) {
    int own = lane() / 4 % 4, query = queries[0], next_query = queries[1], key = keys[0], next_key = keys[1];
    unsigned bits = dropped(a, head, own % 2 ? next_query : query, (own / 2 ? next_key : key) / 4);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        unsigned of = __shfl_sync(FULL_WARP, bits, (lane() & ~12) + 4 * e);
        f[e] = (of >> own & 1) ? 0 : a.dropout.scale;
    }
}

template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_dkv(const AttentionBackward& args, int block, int blocks) {
    using Tile = HeadTile<HEAD>;
    const Attention& a = args.a;
    SHARED(float, memory);
    __shared__ float log_totals[2][TILE], ds[2][TILE];
    __shared__ unsigned shared_by[THREADS / 32];
    __shared__ const float *outputs, *log_sums; // y of the head and lse: no registers for them over the loops
    const int* list = read(a.list, a.step);
    int segments = length(a.list, a.step) / 6, head = int(blockIdx.y), t = lane() % 4, out = a.heads * a.width, thread = int(threadIdx.x);
    View q = head_of(a, 0, head), dy = head_of(read(args.dy, a.step), out, head * a.width, a.width);
    float* values = memory + 4 * Tile::FLOATS;
    if (thread == 0) outputs = read(args.y, a.step) + head * a.width, log_sums = read(args.lse, a.step);
    __syncthreads();
    for (int item = block;; item += blocks) {
        Item found = find_item(list, segments, 1, item);
        if (found.segment < 0) break;
        Segment own(list, found.segment);
        Rows3 tile = own.key;
        tile.start = own.key[found.first], tile.count = min(TILE, own.key.count - found.first);
        int rows[2]; // of the keys; the first segment that holds a key sums up for all
        own_rows(rows, own.key, found.first);
        HeadRows<HEAD> keys;
        keys.load(head_of(a, 1, head), rows);
        Tile::copy(values, head_of(a, 2, head), own.key, found.first); // there before the first queries are, whose group it belongs to
        float dk_sums[1][HEAD / 8][4] = {}, dv_sums[1][HEAD / 8][4] = {};

        // The keys at these positions of a segment, negative for none, and all its queries; `aligned` if they are those of the tile.
        auto add = [&](const Segment& segment, const int (&places)[2], bool aligned) {
            bool seen[2];
#pragma unroll
            for (int i = 0; i < 2; i++) seen[i] = rows[i] >= 0 && places[i] >= 0 && !masked(a, segment.number, places[i]);
            bool work = __any_sync(FULL_WARP, seen[0] || seen[1]);
            int count = segment.query.count;
            auto begin = [&](int first) {
                int stage = first / TILE % 2;
                if (first < count) {
                    float* to = memory + stage * 2 * Tile::FLOATS;
                    Tile::copy(to, q, segment.query, first);
                    Tile::copy(to + Tile::FLOATS, dy, segment.query, first);
                    // D of a query: half of its columns each of two neighbours.
                    const float *y = outputs, *lse = log_sums;
                    int query = thread / 2;
                    bool inside = first + query < count;
                    size_t row = inside ? segment.query[first + query] : 0;
                    float d = 0;
#pragma unroll 4
                    for (int column = thread % 2; inside && column < a.width; column += 2) d += y[row * out + column] * dy.data[row * out + column];
                    d += __shfl_xor_sync(FULL_WARP, d, 1);
                    if (thread % 2 == 0) log_totals[stage][query] = inside ? lse[row * a.heads + head] : NO_KEYS, ds[stage][query] = d;
                }
                cp_async_commit();
            };
            begin(0);
            for (int first = 0; first < count; first += TILE) {
                begin(first + TILE);
                cp_async_wait<1>();
                __syncthreads();
                int stage = first / TILE % 2;
                const float *queries = memory + stage * 2 * Tile::FLOATS, *slopes = queries + Tile::FLOATS;
#pragma unroll 1
                for (int part = 0; part < TILE && work && first + part < count; part += PART<HEAD>) {
                    float p[1][PART<HEAD> / 8][4], dp[1][PART<HEAD> / 8][4];
                    scores<MULTIPLY, HEAD>(p, keys, queries, part);
                    scores<MULTIPLY, HEAD>(dp, own_tile<HEAD>(values), slopes, part);
#pragma unroll
                    for (int c = 0; c < PART<HEAD> / 8; c++) {
                        int column = part + 8 * c + 2 * t;
                        float f[4] = {1, 1, 1, 1};
                        if (a.dropout.below > 0) {
                            int pair[2] = {segment.query[first + column], segment.query[first + column + 1]};
                            if (aligned) aligned_key_factors(f, a, head, places, pair);
                            else key_factors(f, a, head, places, pair);
                        }
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            float probability = seen[e / 2] ? exponential(p[0][c][e] * a.scale - log_totals[stage][column + e % 2]) : 0;
                            p[0][c][e] = probability * f[e];
                            dp[0][c][e] = probability * (dp[0][c][e] * f[e] - ds[stage][column + e % 2]);
                        }
                    }
                    weigh<MULTIPLY, HEAD>(dv_sums, p, slopes, part);
                    weigh<MULTIPLY, HEAD>(dk_sums, dp, queries, part);
                }
                __syncthreads();
            }
        };

        // Other segments that hold keys of the tile.
        auto overlaps = [&](const Segment& s) {
            bool apart = s.key.last() < tile.start || tile.last() < s.key.start;
            bool interleaved = s.key.stride == tile.stride && tile.stride > 0 && (s.key.start - tile.start) % tile.stride != 0;
            return s.number != own.number && s.query.count > 0 && s.key.count > 0 && !apart && !interleaved;
        };
        bool other = false;
        for (int s = thread; s < segments; s += THREADS) other = other || overlaps(Segment(list, s));
        unsigned others = __ballot_sync(FULL_WARP, other);
        __syncthreads();
        if (lane() == 0) shared_by[warp()] = others;
        __syncthreads();
        others = 0;
        for (int w = 0; w < THREADS / 32; w++) others |= shared_by[w];

        int places[2];
        for (int s = 0; s < own.number && others != 0; s++) {
            Segment segment(list, s);
            if (overlaps(segment))
#pragma unroll
                for (int i = 0; i < 2; i++) rows[i] = rows[i] >= 0 && segment.key.find(rows[i]) < 0 ? rows[i] : -1;
        }
        for (int s = own.number; s < (others == 0 ? own.number + 1 : segments); s++) {
            Segment segment(list, s);
            bool mine = s == own.number;
            if (!mine && !overlaps(segment)) continue;
#pragma unroll
            for (int i = 0; i < 2; i++) places[i] = mine ? found.first + 16 * warp() + lane() / 4 + 8 * i : segment.key.find(rows[i]);
            add(segment, places, mine);
        }
        Pairs dk = gradient_of(args, 1, head), dv = gradient_of(args, 2, head);
        if (dk.data) put_rows<HEAD>(dk, rows, dk_sums, a.scale, a.scale);
        cp_async_wait<0>();
        if (dv.data) put_rows<HEAD>(dv, rows, dv_sums, 1, 1);
    }
    for (int i = 1; i < 3; i++) {
        Pairs to = gradient_of(args, i, head);
        if (!to.data || args.accumulate[i]) continue;
        for_free_rows(list, segments, 1, resolve(args.rows[1], a.step), block, blocks, [&](int row) { clear_row(to, row); });
    }
}
template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_backward(const AttentionBackward& args) {
    int block = int(blockIdx.x), queries = args.query_blocks;
    if (block < queries) attention_dq<MULTIPLY, HEAD>(args, block, queries);
    else attention_dkv<MULTIPLY, HEAD>(args, block - queries, int(gridDim.x) - queries);
}

// Blocks that must fit on a multiprocessor: as many as there are registers for, and shared memory (100 KiB on these).
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ == 1200)
constexpr int MOST_BLOCKS = 2;
#else
constexpr int MOST_BLOCKS = 3;
#endif
constexpr int blocks_of(Multiply multiply, int head) { return head == 32 && multiply != TF32X3 ? MOST_BLOCKS : 2; }
#define ATTENTION_KERNEL(name, Arguments, mode, MODE, head)                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, blocks_of(MODE, head)) name##_##head##_##mode(Arguments a) { \
        name<MODE, head>(a);                                                                                           \
    }                                                                                                                  \
    KERNEL(name##_##head##_##mode, Arguments)
// Wide heads leave no registers for a kernel with both parts of the backward pass.
template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_dq(const AttentionBackward& args) {
    attention_dq<MULTIPLY, HEAD>(args, int(blockIdx.x), int(gridDim.x));
}
template <Multiply MULTIPLY, int HEAD> __device__ __forceinline__ void attention_dkv(const AttentionBackward& args) {
    attention_dkv<MULTIPLY, HEAD>(args, int(blockIdx.x), int(gridDim.x));
}
#define ATTENTION_KERNELS(mode, MODE)                                         \
    ATTENTION_KERNEL(attention_forward, AttentionForward, mode, MODE, 32)     \
    ATTENTION_KERNEL(attention_forward, AttentionForward, mode, MODE, 64)     \
    ATTENTION_KERNEL(attention_backward, AttentionBackward, mode, MODE, 32)   \
    ATTENTION_KERNEL(attention_dq, AttentionBackward, mode, MODE, 64)         \
    ATTENTION_KERNEL(attention_dkv, AttentionBackward, mode, MODE, 64)
ATTENTION_KERNELS(tf32x3, TF32X3)
ATTENTION_KERNELS(tf32, TF32)
ATTENTION_KERNELS(bf16, BF16)
ATTENTION_KERNELS(f16, F16)
