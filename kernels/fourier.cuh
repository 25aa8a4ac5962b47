// Fourier features of one column.
#pragma once
#include "row.cuh"

constexpr float TAU = 6.28318530717958647692f;

// y [rows, 2 bands + 1] = cos(2 pi v f), sin(2 pi v f), v with v = x[., channel].
struct FourierForward {
    const StepBlock* step;
    const float* frequencies;
    Reference x, y;
    Rows rows;
    int width, channel, bands, pad;
};
// One warp a row.
__device__ APART inline void fourier_forward(const FourierForward& a, Run run) {
    const float* x = read(a.x, a.step);
    int bands = a.bands;
    for (int row = run.first + warp(); row < run.end; row += 8) {
        float v = x[size_t(row) * a.width + a.channel];
        float* y = write(a.y) + size_t(row) * (2 * bands + 1);
        for (int band = lane(); band < bands; band += 32) sincospif(2 * (v * a.frequencies[band]), &y[bands + band], &y[band]);
        if (lane() == 0) y[2 * bands] = v;
    }
}

// partials [blocks, bands]: sum of 2 pi v (cos dsin - sin dcos) over a run of rows.
struct FourierBackward {
    const StepBlock* step;
    Reference x, y, dy;
    float* partials;
    Rows rows;
    int width, channel, bands, pad;
};
// Every eighth row a warp, 32 bands at a time.
__device__ APART inline void fourier_backward(const FourierBackward& a, Run run, int block) {
    __shared__ float sums[8][32];
    const float *x = read(a.x, a.step), *y = read(a.y, a.step), *dy = read(a.dy, a.step);
    int bands = a.bands;
    for (int first = 0; first < bands; first += 32) {
        int band = first + lane();
        float sum = 0;
        if (band < bands) {
#pragma unroll 4
            for (int row = run.first + warp(); row < run.end; row += 8) {
                size_t cosine = size_t(row) * (2 * bands + 1) + band, sine = cosine + bands;
                sum += TAU * x[size_t(row) * a.width + a.channel] * (y[cosine] * dy[sine] - y[sine] * dy[cosine]);
            }
        }
        sums[warp()][lane()] = sum;
        __syncthreads();
        if (warp() == 0 && band < bands) {
            float total = 0;
            for (int w = 0; w < 8; w++) total += sums[w][lane()];
            a.partials[size_t(block) * bands + band] = total;
        }
        __syncthreads();
    }
}
