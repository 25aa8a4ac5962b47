// What operations that move or add rows do with a run of rows; `accumulate` adds to what is there.
#pragma once
#include "row.cuh"

// y[i] = x[index[i]], [rows, width].
struct GatherForward {
    Reference x, y;
    IndexReference index;
    const StepBlock* step;
    Rows rows;
    int width, pad;
};
__device__ APART inline void gather_forward(const GatherForward& a, Run run) {
    const float* x = read(a.x, a.step);
    const int* index = read(a.index, a.step);
    float* y = write(a.y);
    int width = a.width;
    known(is_wide(x, width) && is_wide(y, width), [&](auto wide) {
        for_blocks(run, width, [&](int row, int column) { return load4(x + size_t(index[row]) * width, column, width, wide); },
                   [&](int row, int column, float4 v) { store4(y + size_t(row) * width, column, width, wide, v); });
    });
}

// dx[i] (+)= sum over k below `count` of dy[i * count + k], [rows, width]; a copy where `count` is 1.
struct SumGroups {
    Reference dy, dx;
    const StepBlock* step;
    Rows rows;
    int count, width, accumulate, pad;
};
__device__ APART inline void sum_groups(const SumGroups& a, Run run) {
    const float* dy = read(a.dy, a.step);
    float* dx = write(a.dx);
    int width = a.width;
    known(is_wide(dy, width) && is_wide(dx, width), [&](auto wide) {
        struct Values {
            float4 sum, old;
        };
        for_blocks(run, width,
                   [&](int row, int column) {
                       const float* from = dy + size_t(row) * a.count * width;
                       Values v{load4(from, column, width, wide), load4(dx + size_t(row) * width, column, a.accumulate ? width : 0, wide)};
                       for (int k = 1; k < a.count; k++) v.sum = v.sum + load4(from + size_t(k) * width, column, width, wide);
                       return v;
                   },
                   [&](int row, int column, const Values& v) { store4(dx + size_t(row) * width, column, width, wide, v.old + v.sum); });
    });
}

// partials [blocks, period, width]: sums of the rows of a run whose number modulo `period` is the same. Runs begin at multiples of it.
struct SumPeriods {
    Reference dy;
    float* partials;
    const StepBlock* step;
    Rows rows;
    int period, width;
};
__device__ APART inline void sum_periods(const SumPeriods& a, Run run, int block) {
    const float* dy = read(a.dy, a.step);
    int count = a.period * a.width;
    for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
        float sum = 0;
        for (int row = run.first + i / a.width; row < run.end; row += a.period) sum += dy[size_t(row) * a.width + i % a.width];
        a.partials[size_t(block) * count + i] = sum;
    }
}

// partials [blocks, table, width]: sums of the rows of a run with the same index.
struct SumTable {
    Reference dy;
    float* partials;
    IndexReference index;
    const StepBlock* step;
    Rows rows;
    int table, width;
};
__device__ APART inline void sum_table(const SumTable& a, Run run, int block) {
    const float* dy = read(a.dy, a.step);
    const int* index = read(a.index, a.step);
    int count = a.table * a.width;
    for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
        float sum = 0;
#pragma unroll 4 // all rows are read, so that no read waits for an index
        for (int row = run.first; row < run.end; row++) {
            float value = dy[size_t(row) * a.width + i % a.width];
            sum += index[row] == i / a.width ? value : 0;
        }
        a.partials[size_t(block) * count + i] = sum;
    }
}

constexpr int MOST_PARTS = 8;

// The operands of an operation that puts several together.
struct Parts {
    Reference data[MOST_PARTS]; // null: has no gradient
    const StepBlock* step;
    Reference whole;
    Rows rows[MOST_PARTS];
    int accumulate[MOST_PARTS];
    int count, width, lanes, pad; // width of the whole
};

// Copies between parts and the whole, to the whole, or (+)= to the parts, in a run of rows of the whole; place(row, column, part, at) says where a
// column is.
template <class F> __device__ __forceinline__ void move_all(const Parts& a, Run run, bool backward, F place) {
    auto in_whole = [&](int row, int column) { return size_t(row) * a.width + column; };
    for_parts(
        run, a.width,
        [&](int row, int column) {
            int part;
            size_t at;
            place(row, column, part, at);
            bool moves = a.data[part].data != nullptr;
            float value = !moves ? 0 : backward ? read(a.whole, a.step)[in_whole(row, column)] : read(a.data[part], a.step)[at];
            return moves && backward && a.accumulate[part] ? value + write(a.data[part])[at] : value;
        },
        [&](int row, int column, float value) {
            int part;
            size_t at;
            place(row, column, part, at);
            if (a.data[part].data == nullptr) return;
            float* to = backward ? write(a.data[part]) + at : write(a.whole) + in_whole(row, column);
            *to = value;
        });
}

// Row i of part k is row i * count + k of the whole.
__device__ APART inline void interleave(const Parts& a, Run run, bool backward) {
    move_all(a, run.times(a.count), backward, [&](int row, int column, int& part, size_t& at) {
        part = row % a.count, at = size_t(row / a.count) * a.width + column;
    });
}

// Pair s of part k is in columns s * 2 count + 2 k of the whole.
__device__ APART inline void join_steps(const Parts& a, Run run, bool backward) {
    int size = 2 * a.count;
    move_all(a, run, backward, [&](int row, int column, int& part, size_t& at) {
        part = column % size / 2, at = size_t(row) * (a.width / a.count) + 2 * (column / size) + column % 2;
    });
}

// y[i] = x[i / x_divide] + z[i / z_divide % z_period], [rows, width].
struct AddForward {
    Reference x, z, y;
    const StepBlock* step;
    Rows rows;
    int x_divide, z_divide, z_period, width;
};
__device__ APART inline void add_forward(const AddForward& a, Run run) {
    const float *x = read(a.x, a.step), *z = read(a.z, a.step);
    float* y = write(a.y);
    int width = a.width;
    known(is_wide(x, width) && is_wide(z, width) && is_wide(y, width), [&](auto wide) {
        for_blocks(run, width,
                   [&](int row, int column) {
                       const float *from = x + size_t(row / a.x_divide) * width, *plus = z + size_t(row / a.z_divide % a.z_period) * width;
                       return load4(from, column, width, wide) + load4(plus, column, width, wide);
                   },
                   [&](int row, int column, float4 v) { store4(y + size_t(row) * width, column, width, wide, v); });
    });
}

// Rows of a convolution with kernel 3 and padding 1 at some positions p of each sequence: y[sequence, p][3 c + tap] = x[p - 1 + tap][c].
// `rows` counts sequences; x [rows, length, width], y [rows, count, 3 width].
struct Unfold {
    Reference x, y;
    const int* positions;
    const StepBlock* step;
    Rows rows;
    int length, count, width, accumulate;
};
__device__ APART inline void unfold_forward(const Unfold& a, Run run) {
    const float* x = read(a.x, a.step);
    float* y = write(a.y);
    int width = 3 * a.width;
    for_parts(
        run.times(a.count), width,
        [&](int row, int c) {
            int source = a.positions[row % a.count] - 1 + c % 3;
            bool inside = source >= 0 && source < a.length;
            return inside ? x[(size_t(row / a.count) * a.length + source) * a.width + c / 3] : 0.0f;
        },
        [&](int row, int c, float value) { y[size_t(row) * width + c] = value; });
}

// The gradient of unfold: x is dx, y is dy.
__device__ APART inline void unfold_backward(const Unfold& a, Run run) {
    float* dx = write(a.x);
    const float* dy = read(a.y, a.step);
    auto to = [&](int row, int c) { return dx + size_t(row) * a.width + c; };
    for_parts(
        run.times(a.length), a.width,
        [&](int row, int c) {
            int source = row % a.length;
            const float* from = dy + size_t(row / a.length) * a.count * 3 * a.width;
            float sum = 0.0f;
            for (int p = 0; p < a.count; p++) {
                int tap = source + 1 - a.positions[p];
                if (tap >= 0 && tap < 3) sum += from[size_t(p) * 3 * a.width + 3 * c + tap];
            }
            return a.accumulate ? *to(row, c) + sum : sum;
        },
        [&](int row, int c, float value) { *to(row, c) = value; });
}

// y[sequence, o] (+)= sum over k from starts[o] to starts[o + 1] of weights[k] x[sequence, sources[k]]; `rows` counts sequences;
// x [rows, from, width], y [rows, to, width]. The gradient is the same with the transposed weights.
struct Mix {
    Reference x, y;
    const int *starts, *sources;
    const float* weights;
    const StepBlock* step;
    Rows rows;
    int from, to, width, accumulate;
};
__device__ APART inline void mix(const Mix& a, Run run) {
    const float* x = read(a.x, a.step);
    float* y = write(a.y);
    auto to = [&](int row, int c) { return y + size_t(row) * a.width + c; };
    for_parts(
        run.times(a.to), a.width,
        [&](int row, int c) {
            int o = row % a.to;
            const float* from = x + size_t(row / a.to) * a.from * a.width;
            float sum = 0.0f;
            for (int k = a.starts[o]; k < a.starts[o + 1]; k++) sum += a.weights[k] * from[size_t(a.sources[k]) * a.width + c];
            return a.accumulate ? *to(row, c) + sum : sum;
        },
        [&](int row, int c, float value) { *to(row, c) = value; });
}

// y[i, j] += u[i] v[j], [rows, width], rows of y `stride` apart.
struct OuterSum {
    const float *u, *v;
    float* y;
    Rows rows;
    int width, stride;
};
__device__ APART inline void outer_sum(const OuterSum& a, Run run) {
    for_rows(run, 32, [&](int row, int lane) {
        for (int c = lane; c < a.width; c += 32) a.y[size_t(row) * a.stride + c] += a.u[row] * a.v[c];
    });
}

// s = B a + b of a pair of layers: B [rows, width], rows `stride` apart.
struct PairBias {
    const float *outer, *inner_bias, *outer_bias;
    float* s;
    Rows rows;
    int width, stride;
};
__device__ APART inline void pair_bias(const PairBias& a, Run run) {
    for_rows(run, 32, [&](int row, int lane) {
        float sum = 0;
        for (int c = lane; c < a.width; c += 32) sum += a.outer[size_t(row) * a.stride + c] * a.inner_bias[c];
        sum = warp_sum(sum);
        if (lane == 0) a.s[row] = sum + a.outer_bias[row];
    });
}
