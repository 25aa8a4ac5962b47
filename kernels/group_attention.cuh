// Attention within groups of few consecutive rows, each a segment: y = softmax(q kᵀ scale) v, with dropout of the softmax. A warp has a head of
// a group. Scores and what follows from them are matrices [query, key] in shared memory, of which a lane has some elements, then a row; for
// products with q, k and v a lane has columns of these.
#pragma once
#include "heads.cuh"
#include "row.cuh"

constexpr int MOST_GROUP = 16;

struct GroupAttention : Heads {
    Rows rows;
    int size, pad; // rows of a group

    // Columns of a head in a row.
    __device__ size_t at(int operand, int row, int head) const { return size_t(row) * strides[operand] + columns[operand] + head * width; }
    // Calls f(first row, head) for what this warp has of units(), the block's `Share`.
    template <class Units, class F> __device__ void each(Units units, F f) const {
        for (int item = warp(); item < units()[rows].size() / size * heads; item += int(blockDim.x / 32))
            f(units()[rows].first + item / heads * size, item % heads);
    }
    // Calls f(query, key, whether there is such a key) for this lane's elements of a matrix.
    template <class F> __device__ __forceinline__ void pairs(F f) const {
#pragma unroll 2
        for (int query = lane() / MOST_GROUP; query < size; query += 32 / MOST_GROUP) f(query, lane() % MOST_GROUP, lane() % MOST_GROUP < size);
    }
    // 0 where the weight of a key of a query is dropped.
    __device__ float factor(int query, int head, int key) const {
        bool gone = dropout.below > 0 && random_word(step, dropout.stream, unsigned(head + heads * query), unsigned(key)) < dropout.below;
        return gone ? 0 : dropout.scale;
    }
    // A lane's column of a head, 0 where there is none.
    __device__ __forceinline__ void column(float (&values)[MOST_GROUP], const float* data, int operand, int first, int head, int c) const {
#pragma unroll
        for (int i = 0; i < MOST_GROUP; i++) values[i] = i < size && c < width ? data[at(operand, first + i, head) + c] : 0;
    }
    __device__ __forceinline__ void put_column(float* data, int operand, int first, int head, int c, const float (&values)[MOST_GROUP],
                                               bool accumulate) const {
#pragma unroll
        for (int i = 0; i < MOST_GROUP; i++)
            if (i < size) put(data + at(operand, first + i, head) + c, values[i], accumulate);
    }
};
// A matrix [query, key] of a warp.
struct Scores {
    float* data;
    static constexpr int FLOATS = MOST_GROUP * MOST_GROUP;

    __device__ float& operator()(int query, int key) const { return data[query * MOST_GROUP + key]; }
    // Calls f(key, element) for a row, in registers.
    template <class F> __device__ __forceinline__ void row(int query, F f) const {
#pragma unroll
        for (int k = 0; k < MOST_GROUP; k += 4) {
            float4 part = *reinterpret_cast<const float4*>(data + query * MOST_GROUP + k);
            f(k, part.x), f(k + 1, part.y), f(k + 2, part.z), f(k + 3, part.w);
        }
    }
};
__device__ inline float dot(const float* a, const float* b, int width) {
    float sum = 0;
    if (is_wide(a, width) && is_wide(b, width)) {
#pragma unroll 2
        for (int c = 0; c < width; c += 4) {
            float4 u = *reinterpret_cast<const float4*>(a + c), v = *reinterpret_cast<const float4*>(b + c);
            sum += u.x * v.x + u.y * v.y + u.z * v.z + u.w * v.w;
        }
    } else {
        for (int c = 0; c < width; c++) sum += a[c] * b[c];
    }
    return sum;
}

// lse [rows, heads]: log of the softmax's denominator. `memory`: a matrix a warp.
struct GroupAttentionForward {
    GroupAttention of;
    Reference y, lse;
};
template <class Units> __device__ APART void group_attention_forward(const GroupAttentionForward& args, Units units, float* memory) {
    const GroupAttention& a = args.of;
    const float *q = read(a.operands[0], a.step), *k = read(a.operands[1], a.step), *v = read(a.operands[2], a.step);
    float *y = write(args.y), *lse = write(args.lse);
    Scores weights{memory + warp() * Scores::FLOATS};
    a.each(units, [&](int first, int head) {
        a.pairs([&](int query, int key, bool there) {
            weights(query, key) = there ? dot(q + a.at(0, first + query, head), k + a.at(1, first + key, head), a.width) * a.scale : -INFINITY;
        });
        __syncwarp();
        int own = lane(), query = a.heads * (first + own) + head;
        if (own < a.size) {
            float row[MOST_GROUP], most = -INFINITY, total = 0;
            weights.row(own, [&](int key, float score) { row[key] = score, most = fmaxf(most, score); });
#pragma unroll
            for (int i = 0; i < MOST_GROUP; i++) total += row[i] = expf(row[i] - most);
#pragma unroll
            for (int i = 0; i < MOST_GROUP; i += 4) {
                float4 factor = factors(a.dropout, a.step, query, i / 4);
                float4 part = make_float4(row[i], row[i + 1], row[i + 2], row[i + 3]) * factor;
                *reinterpret_cast<float4*>(&weights(own, i)) = make_float4(part.x / total, part.y / total, part.z / total, part.w / total);
            }
            lse[query] = most + logf(total);
        }
        __syncwarp();
        for (int c = lane(); c < (a.width + 31) / 32 * 32; c += 32) {
            float values[MOST_GROUP];
            a.column(values, v, 2, first, head, c);
            for (int i = 0; i < a.size; i++) {
                float sum = 0;
                weights.row(i, [&](int key, float weight) { sum += weight * values[key]; });
                if (c < a.width) y[(size_t(first + i) * a.heads + head) * a.width + c] = sum;
            }
        }
        __syncwarp();
    });
}

// Gradients of q, k and v overwrite what is there, or are added to it; null: none. Those that share a matrix have columns of their own.
// `memory`: three matrices a warp.
struct GroupAttentionBackward {
    GroupAttention of;
    Reference lse, dy, gradients[3];
    int accumulate[3], pad;
};
template <class Units> __device__ APART void group_attention_backward(const GroupAttentionBackward& args, Units units, float* memory) {
    const GroupAttention& a = args.of;
    const float *q = read(a.operands[0], a.step), *k = read(a.operands[1], a.step), *v = read(a.operands[2], a.step);
    const float *lse = read(args.lse, a.step), *dy = read(args.dy, a.step);
    auto gradient = [&](int i) { return write(args.gradients[i]); }; // read where it is used: no registers for three pointers
    float* own = memory + warp() * 3 * Scores::FLOATS;
    // Probabilities p, then the slopes of the scores; p times dropout's factor; the slopes of p. Zeros behind the keys.
    Scores slopes{own}, weights{own + Scores::FLOATS}, of_weights{own + 2 * Scores::FLOATS};
    a.each(units, [&](int first, int head) {
        auto row_of_dy = [&](int query) { return dy + (size_t(first + query) * a.heads + head) * a.width; };
        a.pairs([&](int query, int key, bool there) {
            slopes(query, key) = weights(query, key) = of_weights(query, key) = 0;
            if (!there) return;
            float score = dot(q + a.at(0, first + query, head), k + a.at(1, first + key, head), a.width) * a.scale;
            float p = expf(score - lse[size_t(first + query) * a.heads + head]);
            float slope = dot(row_of_dy(query), v + a.at(2, first + key, head), a.width), factor = a.factor(first + query, head, key);
            slopes(query, key) = p, weights(query, key) = p * factor, of_weights(query, key) = slope * factor;
        });
        __syncwarp();
        if (lane() < a.size) {
            float p[MOST_GROUP], mean = 0;
            slopes.row(lane(), [&](int key, float x) { p[key] = x; });
            of_weights.row(lane(), [&](int key, float slope) { mean += p[key] * slope; });
            of_weights.row(lane(), [&](int key, float slope) { slopes(lane(), key) = p[key] * (slope - mean) * a.scale; });
        }
        __syncwarp();
        for (int c = lane(); c < (a.width + 31) / 32 * 32; c += 32) {
            bool inside = c < a.width;
            {
                float keys[MOST_GROUP], sums[MOST_GROUP] = {};
                a.column(keys, k, 1, first, head, c);
#pragma unroll 2
                for (int i = 0; i < a.size; i++) {
                    float of_query = 0, query = inside ? q[a.at(0, first + i, head) + c] : 0;
                    slopes.row(i, [&](int key, float slope) { of_query += slope * keys[key], sums[key] += slope * query; });
                    if (gradient(0) && inside) put(gradient(0) + a.at(0, first + i, head) + c, of_query, args.accumulate[0]);
                }
                if (gradient(1) && inside) a.put_column(gradient(1), 1, first, head, c, sums, args.accumulate[1]);
            }
            float sums[MOST_GROUP] = {};
#pragma unroll 2
            for (int i = 0; i < a.size; i++) {
                float slope = inside ? row_of_dy(i)[c] : 0;
                weights.row(i, [&](int key, float weight) { sums[key] += weight * slope; });
            }
            if (gradient(2) && inside) a.put_column(gradient(2), 2, first, head, c, sums, args.accumulate[2]);
        }
        __syncwarp();
    });
}
