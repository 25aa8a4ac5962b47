// 1-D neighborhood attention in sequences of `length` rows: x [n * length, 3 C] holds q, k, v with heads inside each, y [n * length, C].
//
// A block has some sequences in shared memory at a time. A group of lanes, a power of two, has a head of a token: lane l columns 4 l .. + 4 of it.
#pragma once
#include "mma.cuh"
#include "row.cuh"

struct Neighborhood {
    const StepBlock* step;
    const float* bias; // [heads, 2 window - 1], by the other token's position from window - 1 before to window - 1 behind
    Reference x;
    Rows rows;
    int length, heads, window, size, lanes, together; // size: columns of a head; together: sequences in shared memory
    float scale;
    int pad;

    __device__ int width() const { return heads * size; }
    // First token that token i sees.
    __device__ int first(int i) const { return min(max(i - window / 2, 0), length - window); }

    // Calls f(row, token, head, whether this is no repetition) for every token and head of so many rows in shared memory; all lanes take part.
    template <class F> __device__ __forceinline__ void each(int rows, F f) const {
        int items = rows * heads, per_warp = 32 / lanes;
        for (int base = warp() * per_warp; base < items; base += int(blockDim.x) / 32 * per_warp) {
            int item = base + lane() / lanes;
            bool inside = item < items;
            item = inside ? item : items - 1;
            int row = item / heads;
            f(row, row % length, item % heads, inside);
        }
    }
};

// A matrix in shared memory, its rows a little longer so that heads of several rows lie in different banks.
struct Staged {
    float* data;
    int width, stride;

    __device__ Staged(float* data, int width) : data(data), width(width), stride((width + 3) / 4 * 4 + 4) {}
    __device__ float* row(int i) const { return data + i * stride; }
    // Begins to copy `rows` rows, zeros behind the width.
    __device__ __forceinline__ void copy(const float* from, int rows) const {
        bool wide = is_wide(from, width);
        int parts = stride / 4 - 1;
        for (int i = int(threadIdx.x); i < rows * parts; i += int(blockDim.x)) {
            int r = i / parts, column = i % parts * 4;
            const float* source = from + size_t(r) * width;
            if (wide) cp_async16(row(r) + column, source + column);
            else *reinterpret_cast<float4*>(row(r) + column) = load4(source, column, width, false);
        }
    }
};

// A lane's columns of a head.
struct Part {
    float4 at;

    __device__ Part() : at(make_float4(0, 0, 0, 0)) {}
    // Of a row in shared memory.
    __device__ Part(const Neighborhood& a, const float* row, int head) {
        int column = lane() % a.lanes * 4;
        row += head * a.size;
        at = load4(row, column, a.size, a.size % 4 == 0);
    }
    __device__ void store(const Neighborhood& a, float* row, int head, bool accumulate) const {
        store4(row + head * a.size, lane() % a.lanes * 4, a.size, is_wide(row + head * a.size, a.size), at, accumulate);
    }
    __device__ void scale(float factor) { at = make_float4(at.x * factor, at.y * factor, at.z * factor, at.w * factor); }
    __device__ void add(const Part& other, float factor) {
        at.x += other.at.x * factor, at.y += other.at.y * factor, at.z += other.at.z * factor, at.w += other.at.w * factor;
    }
    // Sum of products over the group. All lanes of the warp must call.
    __device__ float dot(const Neighborhood& a, const Part& other) const {
        float sum = at.x * other.at.x + at.y * other.at.y + at.z * other.at.z + at.w * other.at.w;
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
// `memory` has x of `together` sequences.
__device__ APART inline void neighborhood_forward(const NeighborhoodForward& args, Run run, float* memory) {
    const Neighborhood& a = args.a;
    const float* x = read(a.x, a.step);
    float* y = write(args.y);
    int width = a.width();
    Staged rows(memory, 3 * width);
    for (int start = run.first; start < run.end; start += a.together * a.length) {
        int count = min(run.end - start, a.together * a.length);
        rows.copy(x + size_t(start) * 3 * width, count);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        a.each(count, [&](int row, int i, int head, bool inside) {
            const float* bias = a.bias + head * (2 * a.window - 1) + a.window - 1 - i;
            int first = a.first(i);
            Part q(a, rows.row(row), head), sum;
            Softmax softmax;
            for (int j = first; j < first + a.window; j++) {
                const float* other = rows.row(row + j - i) + width;
                float2 factors = softmax.take(q.dot(a, Part(a, other, head)) * a.scale + bias[j]);
                sum.scale(factors.x);
                sum.add(Part(a, other + width, head), factors.y);
            }
            sum.scale(1 / softmax.total);
            if (inside) sum.store(a, y + size_t(start + row) * width, head, false);
        });
        __syncthreads();
    }
}

// ---- With p the probabilities: dp_ij = dy_i v_j, ds_ij = p_ij (dp_ij - sum over j of p dp); dq_i = scale sum of ds_ij k_j,
// dk_j = scale sum of ds_ij q_i, dv_j = sum of p_ij dy_i, dbias = sum of ds_ij. A block leaves its sums for the bias in
// partials [blocks, heads * (2 window - 1)]. dx null: none.
struct NeighborhoodBackward {
    Neighborhood a;
    Reference dy, dx;
    float* partials;
    int accumulate, pad;
};
// `memory` has x, dy, p and ds [rows, heads, window] of `together` sequences, and for each of them sums for the bias.
__device__ APART inline void neighborhood_backward(const NeighborhoodBackward& args, Run run, int block, float* memory) {
    const Neighborhood& a = args.a;
    const float *x = read(a.x, a.step), *dy = read(args.dy, a.step);
    float* dx = write(args.dx);
    int width = a.width(), most = a.together * a.length, distances = 2 * a.window - 1, table = a.heads * distances;
    Staged rows(memory, 3 * width), slopes(rows.row(most), width);
    float *p = slopes.row(most), *ds = p + most * a.heads * a.window, *sums = ds + most * a.heads * a.window;
    for (int t = int(threadIdx.x); t < a.together * table; t += int(blockDim.x)) sums[t] = 0;
    for (int start = run.first; start < run.end; start += most) {
        int count = min(run.end - start, most);
        float* out = dx ? dx + size_t(start) * 3 * width : nullptr;
        rows.copy(x + size_t(start) * 3 * width, count);
        slopes.copy(dy + size_t(start) * width, count);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        a.each(count, [&](int row, int i, int head, bool inside) {
            const float* bias = a.bias + head * distances + a.window - 1 - i;
            int first = a.first(i);
            Part q(a, rows.row(row), head), slope(a, slopes.row(row), head), dq;
            Softmax softmax;
            float mean = 0;
            for (int j = first; j < first + a.window; j++) {
                const float* other = rows.row(row + j - i) + width;
                float2 factors = softmax.take(q.dot(a, Part(a, other, head)) * a.scale + bias[j]);
                mean = mean * factors.x + slope.dot(a, Part(a, other + width, head)) * factors.y;
            }
            float inverse = 1 / softmax.total;
            mean *= inverse;
            for (int j = first; j < first + a.window; j++) {
                const float* other = rows.row(row + j - i) + width;
                Part k(a, other, head);
                float probability = expf(q.dot(a, k) * a.scale + bias[j] - softmax.most) * inverse;
                float d = probability * (slope.dot(a, Part(a, other + width, head)) - mean);
                dq.add(k, d * a.scale);
                if (inside && lane() % a.lanes == 0) {
                    int place = (row * a.heads + head) * a.window + j - first;
                    p[place] = probability, ds[place] = d;
                }
            }
            if (inside && out) dq.store(a, out + size_t(row) * 3 * width, head, args.accumulate);
        });
        __syncthreads();
        if (out) {
            a.each(count, [&](int row, int j, int head, bool inside) {
                Part dk, dv;
                // Those that see it: no further away than a window, as at the ends of a sequence.
                for (int i = max(j - a.window + 1, 0); i < min(j + a.window, a.length); i++) {
                    int seen = j - a.first(i), other = row + i - j;
                    if (seen < 0 || seen >= a.window) continue;
                    int place = (other * a.heads + head) * a.window + seen;
                    dk.add(Part(a, rows.row(other), head), ds[place] * a.scale);
                    dv.add(Part(a, slopes.row(other), head), p[place]);
                }
                float* to = out + size_t(row) * 3 * width;
                if (!inside) return;
                dk.store(a, to + width, head, args.accumulate);
                dv.store(a, to + 2 * width, head, args.accumulate);
            });
        }
        for (int t = int(threadIdx.x); t < count / a.length * table; t += int(blockDim.x)) {
            int sequence = t / table, head = t % table / distances, distance = t % distances - (a.window - 1);
            float sum = 0;
            for (int i = 0; i < a.length; i++) {
                int seen = i + distance - a.first(i);
                if (seen >= 0 && seen < a.window) sum += ds[((sequence * a.length + i) * a.heads + head) * a.window + seen];
            }
            sums[t] += sum;
        }
        __syncthreads();
    }
    __syncthreads(); // a block may have no sequence
    for (int t = int(threadIdx.x); t < table; t += int(blockDim.x)) {
        float sum = 0;
        for (int sequence = 0; sequence < a.together; sequence++) sum += sums[sequence * table + t];
        args.partials[size_t(block) * table + t] = sum;
    }
}
