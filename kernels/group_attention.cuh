// Attention within groups of few consecutive rows, each a segment: y = softmax(q kᵀ scale) v, with dropout of the softmax. A warp has a head of
// a group; a lane has a key, and then columns.
#pragma once
#include "heads.cuh"
#include "row.cuh"

constexpr int MOST_GROUP = 16;

struct GroupAttention : Heads {
    Rows rows;
    int size, pad; // rows of a group

    // Columns of a head in a row.
    __device__ size_t at(int operand, int row, int head) const { return size_t(row) * strides[operand] + columns[operand] + head * width; }
    // Calls f(first row, head) for what this warp has of a run.
    template <class F> __device__ void each(Run run, F f) const {
        int items = run.size() / size * heads;
        for (int item = warp(); item < items; item += int(blockDim.x / 32)) f(run.first + item / heads * size, item % heads);
    }
    // 0 where the weight of key i of a query is dropped.
    __device__ float factor(int query, int head, int key) const {
        bool gone = dropout.below > 0 && random_word(step, dropout.stream, unsigned(head + heads * query), unsigned(key)) < dropout.below;
        return gone ? 0 : dropout.scale;
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

// lse [rows, heads]: log of the softmax's denominator.
struct GroupAttentionForward {
    GroupAttention of;
    Reference y, lse;
};
__device__ APART inline void group_attention_forward(const GroupAttentionForward& args, Run run) {
    const GroupAttention& a = args.of;
    const float *q = read(a.operands[0], a.step), *k = read(a.operands[1], a.step), *v = read(a.operands[2], a.step);
    float *y = write(args.y), *lse = write(args.lse);
    a.each(run, [&](int first, int head) {
        bool mine = lane() < a.size;
        const float* key = k + a.at(1, first + min(lane(), a.size - 1), head);
        for (int query = first; query < first + a.size; query++) {
            float score = mine ? dot(q + a.at(0, query, head), key, a.width) * a.scale : -INFINITY;
            float most = warp_max(score), weight = mine ? expf(score - most) : 0, total = warp_sum(weight);
            if (mine) weight *= a.factor(query, head, lane());
            for (int base = 0; base < a.width; base += 32) {
                int c = base + lane();
                float sum = 0;
                for (int i = 0; i < a.size; i++) sum += __shfl_sync(FULL_WARP, weight, i) * (c < a.width ? v[a.at(2, first + i, head) + c] : 0);
                if (c < a.width) y[(size_t(query) * a.heads + head) * a.width + c] = sum / total;
            }
            if (lane() == 0) lse[size_t(query) * a.heads + head] = most + logf(total);
        }
    });
}

// Gradients of q, k and v overwrite what is there, or are added to it; null: none. Those that share a matrix have columns of their own.
// `memory`: two matrices a warp.
struct GroupAttentionBackward {
    GroupAttention of;
    Reference y, lse, dy, gradients[3];
    int accumulate[3], pad;
};
__device__ APART inline void group_attention_backward(const GroupAttentionBackward& args, Run run, float* memory) {
    const GroupAttention& a = args.of;
    const float *q = read(a.operands[0], a.step), *k = read(a.operands[1], a.step), *v = read(a.operands[2], a.step);
    const float *y = read(args.y, a.step), *lse = read(args.lse, a.step), *dy = read(args.dy, a.step);
    float *dq = write(args.gradients[0]), *dk = write(args.gradients[1]), *dv = write(args.gradients[2]);
    float *slopes = memory + warp() * 2 * MOST_GROUP * MOST_GROUP, *weights = slopes + MOST_GROUP * MOST_GROUP; // [query, key]
    a.each(run, [&](int first, int head) {
        bool mine = lane() < a.size;
        int own = first + min(lane(), a.size - 1);
        for (int i = 0; i < a.size; i++) {
            int query = first + i;
            size_t place = size_t(query) * a.heads + head, row = place * a.width;
            float d = 0, weight = 0, slope = 0;
            for (int c = lane(); c < a.width; c += 32) d += y[row + c] * dy[row + c];
            d = warp_sum(d);
            if (mine) {
                float probability = expf(dot(q + a.at(0, query, head), k + a.at(1, own, head), a.width) * a.scale - lse[place]);
                float factor = a.factor(query, head, lane());
                weight = probability * factor;
                slope = probability * (dot(dy + row, v + a.at(2, own, head), a.width) * factor - d) * a.scale;
                slopes[i * MOST_GROUP + lane()] = slope, weights[i * MOST_GROUP + lane()] = weight;
            }
            for (int base = 0; dq && base < a.width; base += 32) {
                int c = base + lane();
                float sum = 0;
                for (int j = 0; j < a.size; j++) sum += __shfl_sync(FULL_WARP, slope, j) * (c < a.width ? k[a.at(1, first + j, head) + c] : 0);
                if (c < a.width) put(dq + a.at(0, query, head) + c, sum, args.accumulate[0]);
            }
        }
        __syncwarp();
        for (int j = 0; j < a.size; j++)
            for (int c = lane(); c < a.width; c += 32) {
                float of_key = 0, of_value = 0;
                for (int i = 0; i < a.size; i++) {
                    of_key += slopes[i * MOST_GROUP + j] * q[a.at(0, first + i, head) + c];
                    of_value += weights[i * MOST_GROUP + j] * dy[(size_t(first + i) * a.heads + head) * a.width + c];
                }
                if (dk) put(dk + a.at(1, first + j, head) + c, of_key, args.accumulate[1]);
                if (dv) put(dv + a.at(2, first + j, head) + c, of_value, args.accumulate[2]);
            }
        __syncwarp();
    });
}
