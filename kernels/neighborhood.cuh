// 1-D neighborhood attention in sequences of `length` rows: x [n * length, 3 C] holds q, k, v with heads inside each, y [n * length, C].
//
// A group of lanes, a power of two, has a head of a token: lane l columns l, l + lanes, .. of it.
#pragma once
#include "row.cuh"

constexpr int HEAD_COLUMNS = 4; // most columns of a lane

struct Neighborhood {
    const StepBlock* step;
    const float* bias; // [heads, 2 window - 1], by the other token's position from window - 1 before to window - 1 behind
    Reference x;
    Rows rows;
    int length, heads, window, size, lanes; // size: columns of a head
    float scale;

    __device__ int width() const { return heads * size; }
    // First token that token i sees.
    __device__ int first(int i) const { return min(max(i - window / 2, 0), length - window); }
};

// A lane's columns of a head.
struct Part {
    float at[HEAD_COLUMNS];

    __device__ Part() {
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) at[c] = 0;
    }
    __device__ Part(const Neighborhood& a, const float* head) {
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) {
            int column = lane() % a.lanes + c * a.lanes;
            at[c] = column < a.size ? head[column] : 0;
        }
    }
    __device__ void store(const Neighborhood& a, float* head, bool accumulate) const {
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) {
            int column = lane() % a.lanes + c * a.lanes;
            if (column < a.size) head[column] = accumulate ? head[column] + at[c] : at[c];
        }
    }
    __device__ void scale(float factor) {
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) at[c] *= factor;
    }
    __device__ void add(const Part& other, float factor) {
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) at[c] += other.at[c] * factor;
    }
    // Sum of products over the group. All lanes of the warp must call.
    __device__ float dot(const Neighborhood& a, const Part& other) const {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < HEAD_COLUMNS; c++) sum += at[c] * other.at[c];
        for (int offset = a.lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
        return sum;
    }
};

// Softmax of scores that come one by one: the largest, and the sum of e^(score - largest).
struct Softmax {
    float most = -INFINITY, total = 0;
    // Factors of what has been summed up so far, and of what comes with the score.
    __device__ float2 take(float score) {
        float next = fmaxf(most, score), old = expf(most - next), weight = expf(score - next);
        most = next, total = total * old + weight;
        return make_float2(old, weight);
    }
};

// ---- y of token i: sum over the tokens j that it sees of softmax(q_i k_j scale + bias) v_j.
struct NeighborhoodForward {
    Neighborhood a;
    Reference y;
};
__device__ APART inline void neighborhood_forward(const NeighborhoodForward& args, Run run) {
    const Neighborhood& a = args.a;
    const float* x = read(a.x, a.step);
    float* y = write(args.y);
    int width = a.width(), count = run.end * a.heads, groups = 32 / a.lanes;
    for (int base = run.first * a.heads + warp() * groups; base < count; base += 8 * groups) {
        int item = base + lane() / a.lanes;
        bool inside = item < count;
        item = inside ? item : count - 1;
        int row = item / a.heads, head = item % a.heads, i = row % a.length, first = a.first(i);
        const float *own = x + size_t(row) * 3 * width + head * a.size, *bias = a.bias + head * (2 * a.window - 1) + a.window - 1 - i;
        Part q(a, own), sum;
        Softmax softmax;
        for (int j = first; j < first + a.window; j++) {
            const float* other = own + (j - i) * 3 * width;
            Part k(a, other + width), v(a, other + 2 * width);
            float2 factors = softmax.take(q.dot(a, k) * a.scale + bias[j]);
            sum.scale(factors.x);
            sum.add(v, factors.y);
        }
        sum.scale(1 / softmax.total);
        if (inside) sum.store(a, y + size_t(row) * width + head * a.size, false);
    }
}

// ---- With p the probabilities: dp_ij = dy_i v_j, ds_ij = p_ij (dp_ij - sum over j of p dp); dq_i = scale sum of ds_ij k_j,
// dk_j = scale sum of ds_ij q_i, dv_j = sum of p_ij dy_i, dbias = sum of ds_ij. A block has a run of sequences; it leaves its sums for the
// bias in partials [blocks, heads * (2 window - 1)]. dx null: none.
struct NeighborhoodBackward {
    Neighborhood a;
    Reference dy, dx;
    float* partials;
    int accumulate, pad;
};
// `memory` has p and ds [length, heads, window] of a sequence, and sums for the bias.
__device__ APART inline void neighborhood_backward(const NeighborhoodBackward& args, Run run, int block, float* memory) {
    const Neighborhood& a = args.a;
    const float *x = read(a.x, a.step), *dy = read(args.dy, a.step);
    float* dx = write(args.dx);
    int width = a.width(), items = a.length * a.heads, table = a.heads * (2 * a.window - 1);
    float *p = memory, *ds = p + items * a.window, *sums = ds + items * a.window;
    int per_warp = 32 / a.lanes, step = int(blockDim.x) / 32 * per_warp;
    int from = run.first / a.length, to = run.end / a.length;
    for (int i = int(threadIdx.x); i < table; i += int(blockDim.x)) sums[i] = 0;
    // Calls f(token, head, whether this is no repetition) for every token and head; all lanes take part.
    auto each = [&](auto f) {
        for (int base = warp() * per_warp; base < items; base += step) {
            int item = base + lane() / a.lanes;
            bool inside = item < items;
            item = inside ? item : items - 1;
            f(item / a.heads, item % a.heads, inside);
        }
    };
    for (int sequence = from; sequence < to; sequence++) {
        const float *rows = x + size_t(sequence) * a.length * 3 * width, *slopes = dy + size_t(sequence) * a.length * width;
        float* out = dx ? dx + size_t(sequence) * a.length * 3 * width : nullptr;
        each([&](int i, int head, bool inside) {
            const float* own = rows + i * 3 * width + head * a.size;
            const float* bias = a.bias + head * (2 * a.window - 1) + a.window - 1 - i;
            int first = a.first(i);
            Part q(a, own), slope(a, slopes + i * width + head * a.size), dq;
            Softmax softmax;
            float mean = 0;
            for (int j = first; j < first + a.window; j++) {
                const float* other = own + (j - i) * 3 * width;
                float2 factors = softmax.take(q.dot(a, Part(a, other + width)) * a.scale + bias[j]);
                mean = mean * factors.x + slope.dot(a, Part(a, other + 2 * width)) * factors.y;
            }
            float inverse = 1 / softmax.total;
            mean *= inverse;
            for (int j = first; j < first + a.window; j++) {
                const float* other = own + (j - i) * 3 * width;
                Part k(a, other + width);
                float probability = expf(q.dot(a, k) * a.scale + bias[j] - softmax.most) * inverse;
                float d = probability * (slope.dot(a, Part(a, other + 2 * width)) - mean);
                dq.add(k, d * a.scale);
                if (inside && lane() % a.lanes == 0) {
                    int place = (i * a.heads + head) * a.window + j - first;
                    p[place] = probability, ds[place] = d;
                }
            }
            if (inside && out) dq.store(a, out + i * 3 * width + head * a.size, args.accumulate);
        });
        __syncthreads();
        if (out) {
            each([&](int j, int head, bool inside) {
                Part dk, dv;
                for (int i = 0; i < a.length; i++) {
                    int seen = j - a.first(i);
                    if (seen < 0 || seen >= a.window) continue;
                    int place = (i * a.heads + head) * a.window + seen;
                    dk.add(Part(a, rows + i * 3 * width + head * a.size), ds[place] * a.scale);
                    dv.add(Part(a, slopes + i * width + head * a.size), p[place]);
                }
                float* to = out + j * 3 * width + head * a.size;
                if (!inside) return;
                dk.store(a, to + width, args.accumulate);
                dv.store(a, to + 2 * width, args.accumulate);
            });
        }
        for (int t = int(threadIdx.x); t < table; t += int(blockDim.x)) {
            int head = t / (2 * a.window - 1), distance = t % (2 * a.window - 1) - (a.window - 1);
            float sum = 0;
            for (int i = 0; i < a.length; i++) {
                int seen = i + distance - a.first(i);
                if (seen >= 0 && seen < a.window) sum += ds[(i * a.heads + head) * a.window + seen];
            }
            sums[t] += sum;
        }
        __syncthreads();
    }
    for (int t = int(threadIdx.x); t < table; t += int(blockDim.x)) args.partials[size_t(block) * table + t] = sums[t];
}
