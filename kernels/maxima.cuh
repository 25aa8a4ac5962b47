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
    bool ordered, wide; // no row has two segments; and columns can be read four at a time

    __device__ MaximaView(const Maxima& a, const StepBlock* step, const float* dy, int width) : dy(dy), width(width) {
        if (!a.segment_of) return;
        list = read(a.list, step), kept = read(a.kept, step), segment_of = a.segment_of, ordered = *a.ordered;
        segments = resolve(a.segments, step);
        wide = ordered && is_wide(dy, width) && reinterpret_cast<size_t>(kept) % 16 == 0;
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
};
