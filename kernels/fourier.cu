// Fourier features of one column.
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
extern "C" __global__ void __launch_bounds__(256) fourier_forward(FourierForward a) {
    const float* x = read(a.x, a.step);
    int rows = resolve(a.rows, a.step), bands = a.bands;
    for (int row = global_thread() / 32; row < rows; row += global_threads() / 32) {
        float v = x[size_t(row) * a.width + a.channel];
        float* y = write(a.y) + size_t(row) * (2 * bands + 1);
        for (int band = lane(); band < bands; band += 32) sincospif(2 * (v * a.frequencies[band]), &y[bands + band], &y[band]);
        if (lane() == 0) y[2 * bands] = v;
    }
}
KERNEL(fourier_forward, FourierForward)

// partials [blocks, bands]: sum of 2 pi v (cos dsin - sin dcos) over a run of rows.
struct FourierBackward {
    const StepBlock* step;
    Reference x, y, dy;
    float* partials;
    Rows rows;
    int width, channel, bands, pad;
};
// 32 bands a block, every eighth row of its run a warp.
extern "C" __global__ void __launch_bounds__(256) fourier_backward(FourierBackward a) {
    __shared__ float sums[8][32];
    const float *x = read(a.x, a.step), *y = read(a.y, a.step), *dy = read(a.dy, a.step);
    int bands = a.bands, band = int(blockIdx.y) * 32 + lane();
    Run run(resolve(a.rows, a.step));
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
    if (warp() > 0 || band >= bands) return;
    float total = 0;
    for (int w = 0; w < 8; w++) total += sums[w][lane()];
    a.partials[size_t(blockIdx.x) * bands + band] = total;
}
KERNEL(fourier_backward, FourierBackward)
