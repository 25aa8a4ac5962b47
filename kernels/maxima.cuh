// Gradients of column maxima: which element of x a maximum came from.
#pragma once
#include "row.cuh"

// Segments of consecutive rows, three numbers each: start, count, flag; the rows of the maxima `kept` [segments, width], -1 for none.
// `segment_of` [rows] is the first segment that holds a row, -1 for none; *ordered tells that there is no second one.
struct Maxima {
    IndexReference list, kept;
    const int *segment_of, *ordered;
    Rows segments;
};

struct Segment {
    int start, count;
    bool zeros; // take part in the comparison
    __device__ Segment(const int* list, int s) : start(max(list[3 * s], 0)), count(max(list[3 * s + 1], 0)), zeros(list[3 * s + 2] != 0 || count == 0) {}
    __device__ bool holds(int row) const { return row >= start && row < start + count; }
};

// The gradient of the rows, given that of the maxima, dy [segments, width].
struct MaximaView {
    const float* dy;
    const int *list, *kept, *segment_of;
    int segments, width;
    bool ordered, wide;

    __device__ MaximaView(const Maxima& a, const StepBlock* step, const float* dy, int width) : dy(dy), width(width) {
        if (!a.segment_of) return;
        list = read(a.list, step), kept = read(a.kept, step), segment_of = a.segment_of, ordered = *a.ordered;
        segments = resolve(a.segments, step);
        wide = is_wide(dy, width) && width % 4 == 0 && reinterpret_cast<size_t>(kept) % 16 == 0;
    }
    // Calls f(segment) for those that hold a row, in their order.
    template <class F> __device__ __forceinline__ void each(int row, F f) const {
        int s = segment_of[row];
        if (s < 0) return;
        f(s);
        if (ordered) return;
        while (++s < segments)
            if (Segment(list, s).holds(row)) f(s);
    }
    __device__ __forceinline__ float one(int row, int column) const {
        float sum = 0;
        each(row, [&](int s) {
            size_t place = size_t(s) * width + column;
            if (kept[place] == row) sum += dy[place];
        });
        return sum;
    }
    // Columns column .. + 4 of rows; negative ones have zeros. Where a row has one segment at most, no load waits for another row's.
    template <int COUNT> __device__ __forceinline__ void four(const int (&rows)[COUNT], int column, float4 (&sums)[COUNT]) const {
        auto of = [&](int row, int4 k, float4 d) {
            return make_float4(k.x == row ? d.x : 0, k.y == row ? d.y : 0, k.z == row ? d.z : 0, k.w == row ? d.w : 0);
        };
        auto read = [&](int s, int4& k, float4& d) {
            bool held = s >= 0;
            size_t place = size_t(held ? s : 0) * width + column;
            k = held ? *reinterpret_cast<const int4*>(kept + place) : make_int4(-1, -1, -1, -1);
            d = held ? *reinterpret_cast<const float4*>(dy + place) : make_float4(0, 0, 0, 0);
        };
        if (ordered) {
            int s[COUNT];
            int4 k[COUNT];
            float4 d[COUNT];
#pragma unroll
            for (int i = 0; i < COUNT; i++) s[i] = rows[i] >= 0 ? segment_of[rows[i]] : -1;
#pragma unroll
            for (int i = 0; i < COUNT; i++) read(s[i], k[i], d[i]);
#pragma unroll
            for (int i = 0; i < COUNT; i++) sums[i] = of(rows[i], k[i], d[i]);
            return;
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            float4 sum = make_float4(0, 0, 0, 0);
            if (rows[i] >= 0)
                each(rows[i], [&](int s) {
                    int4 k;
                    float4 d;
                    read(s, k, d);
                    sum = sum + of(rows[i], k, d);
                });
            sums[i] = sum;
        }
    }
};
