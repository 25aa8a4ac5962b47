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
__device__ APART inline void dropout(const Dropout& a, Run run) {
    const float* x = read(a.x, a.step);
    float* y = write(a.y);
    int width = a.width;
    known(is_wide(x, width) && is_wide(y, width), [&](auto wide) {
        struct Values {
            float4 x, old;
        };
        for_blocks(run, width,
                   [&](int row, int column) {
                       size_t place = size_t(row) * width;
                       return Values{load4(x + place, column, width, wide), load4(y + place, column, a.accumulate ? width : 0, wide)};
                   },
                   [&](int row, int column, const Values& v) {
                       store4(y + size_t(row) * width, column, width, wide, v.old + v.x * factors(a.mask, a.step, row, column / 4));
                   });
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
__device__ APART inline void residual_forward(const ResidualForward& a, Run run) {
    const float *x = read(a.x, a.step), *z = read(a.z, a.step);
    float* y = write(a.y);
    int width = a.width;
    known(is_wide(x, width) && is_wide(z, width) && is_wide(y, width), [&](auto wide) {
        struct Values {
            float4 x, z;
        };
        for_blocks(run, width,
                   [&](int row, int column) {
                       size_t place = size_t(row) * width;
                       return Values{load4(x + place, column, width, wide), load4(z + place, column, width, wide)};
                   },
                   [&](int row, int column, const Values& v) {
                       store4(y + size_t(row) * width, column, width, wide, v.x + v.z * a.branch.at(a.step, row, column / 4));
                   });
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
__device__ APART inline void residual_backward(const ResidualBackward& a, Run run) {
    const float* dy = read(a.dy, a.step);
    float *dx = write(a.dx), *dz = write(a.dz);
    int width = a.width;
    known(is_wide(dy, width) && is_wide(dx, width) && is_wide(dz, width), [&](auto wide) {
        struct Values {
            float4 dy, old_x, old_z;
        };
        for_blocks(run, width,
                   [&](int row, int column) {
                       size_t place = size_t(row) * width;
                       return Values{load4(dy + place, column, width, wide), load4(dx + place, column, dx && a.accumulate_x ? width : 0, wide),
                                     load4(dz + place, column, dz && a.accumulate_z ? width : 0, wide)};
                   },
                   [&](int row, int column, const Values& v) {
                       size_t place = size_t(row) * width;
                       if (dx) store4(dx + place, column, width, wide, v.old_x + v.dy);
                       if (dz) store4(dz + place, column, width, wide, v.old_z + v.dy * a.branch.at(a.step, row, column / 4));
                   });
    });
}
