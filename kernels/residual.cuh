// Dropout of elements, and the residual sum with dropout and drop path. A thread has four columns of a row: one block of random numbers.
#pragma once
#include "dropout.cuh"
#include "row.cuh"

// y = x f, or y += x f: forward, and backward with dy in place of x.
struct Dropout {
    const StepBlock* step;
    Reference x, y;
    Rows rows;
    int width, accumulate;
    Mask mask;
    int pad;
};
__device__ inline void dropout(const Dropout& a, Run run) {
    const float* x = read(a.x, a.step);
    float* y = write(a.y);
    int width = a.width;
    bool wide = is_wide(x, width) && is_wide(y, width);
    for_blocks(run, width, [&](int row, int column) {
        size_t place = size_t(row) * width;
        float4 v = load4(x + place, column, width, wide), f = factors(a.mask, a.step, row, column / 4);
        store4(y + place, column, width, wide, make_float4(v.x * f.x, v.y * f.y, v.z * f.z, v.w * f.w), a.accumulate);
    });
}

// The branch of a residual sum: factors of elements and of groups of rows; the group of row i is i / group, or groups[i] if that is a list.
struct Dropped {
    IndexReference groups;
    Mask elements, paths;
    int group, pad;

    __device__ float4 at(const StepBlock* step, int row, int block) const {
        int of = groups.data ? read(groups, step)[row] : row / group;
        float path = path_factor(paths, step, of);
        float4 f = factors(elements, step, row, block);
        return make_float4(f.x * path, f.y * path, f.z * path, f.w * path);
    }
};

// y = x + z f.
struct ResidualForward {
    const StepBlock* step;
    Reference x, z, y;
    Dropped branch;
    Rows rows;
    int width, pad;
};
__device__ inline void residual_forward(const ResidualForward& a, Run run) {
    const float *x = read(a.x, a.step), *z = read(a.z, a.step);
    float* y = write(a.y);
    int width = a.width;
    bool wide = is_wide(x, width) && is_wide(z, width) && is_wide(y, width);
    for_blocks(run, width, [&](int row, int column) {
        size_t place = size_t(row) * width;
        float4 v = load4(x + place, column, width, wide), w = load4(z + place, column, width, wide), f = a.branch.at(a.step, row, column / 4);
        store4(y + place, column, width, wide, make_float4(v.x + w.x * f.x, v.y + w.y * f.y, v.z + w.z * f.z, v.w + w.w * f.w));
    });
}

// dx = dy and dz = dy f, or added; either may be null.
struct ResidualBackward {
    const StepBlock* step;
    Reference dy, dx, dz;
    Dropped branch;
    Rows rows;
    int width, accumulate_x, accumulate_z, pad;
};
__device__ inline void residual_backward(const ResidualBackward& a, Run run) {
    const float* dy = read(a.dy, a.step);
    float *dx = write(a.dx), *dz = write(a.dz);
    int width = a.width;
    bool wide = is_wide(dy, width) && is_wide(dx, width) && is_wide(dz, width);
    for_blocks(run, width, [&](int row, int column) {
        size_t place = size_t(row) * width;
        float4 d = load4(dy + place, column, width, wide);
        if (dx) store4(dx + place, column, width, wide, d, a.accumulate_x);
        if (!dz) return;
        float4 f = a.branch.at(a.step, row, column / 4);
        store4(dz + place, column, width, wide, make_float4(d.x * f.x, d.y * f.y, d.z * f.z, d.w * f.w), a.accumulate_z);
    });
}
