// Batch normalisation with the ReLU that may follow, and layer normalisation of rows that are too wide for chains.
#include "batch_norm.cuh"
#include "storage.cuh"

// ---- Layer norm of up to 1024 columns.

extern "C" __global__ void __launch_bounds__(256) layer_norm_forward(LayerNormForward a) { layer_norm_forward<8>(a, Run(resolve(a.rows, a.step))); }
KERNEL(layer_norm_forward, LayerNormForward)
extern "C" __global__ void __launch_bounds__(256) layer_norm_backward(LayerNormBackward a) {
    layer_norm_backward<8>(a, Run(resolve(a.rows, a.step)), [] { return int(blockIdx.x); });
}
KERNEL(layer_norm_backward, LayerNormBackward)

// ---- Batch norm: a block has a run of rows of 128 columns, a warp every eighth of them.

// Columns of a block's tile that a lane has; the grid's second axis counts tiles.
__device__ inline int tile_column() { return int(blockIdx.y) * CHUNK + 4 * lane(); }

// Mean of each column over the rows of each block, and sum of squares about it: partials [blocks, 2 width].
struct BatchNormStatistics {
    const StepBlock* step;
    Reference x;
    float* partials;
    Rows rows;
    int width, pad;
};
// Each warp goes by Welford's method; warps are joined by their means.
extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics(BatchNormStatistics a) {
    int width = a.width, column = tile_column();
    Run run(resolve(a.rows, a.step));
    float4 mean = make_float4(0, 0, 0, 0), squares = mean;
    int count = 0;
    auto take = [](float x, float& mean, float& squares, float share) {
        float d = x - mean;
        mean += d * share;
        squares += d * (x - mean);
    };
    Stored(a.x, a.step, width).reading([&](auto load) {
#pragma unroll 4
        for (int row = run.first + warp(); row < run.end; row += 8) {
            float4 v = load(row, column);
            float share = 1 / float(++count);
            take(v.x, mean.x, squares.x, share);
            take(v.y, mean.y, squares.y, share);
            take(v.z, mean.z, squares.z, share);
            take(v.w, mean.w, squares.w, share);
        }
    });
    __shared__ float4 means[8][32];
    means[warp()][lane()] = mean;
    __syncthreads();
    int thread = int(threadIdx.x) % CHUNK, size = run.size();
    auto rows_of = [&](int w) { return float((size - w + 7) / 8); }; // of warp w
    auto mean_of = [&](int w) { return reinterpret_cast<const float*>(means[w])[thread]; };
    float joined = 0;
    for (int w = 0; w < 8; w++) joined += rows_of(w) * mean_of(w);
    joined /= float(max(size, 1));
    float between = 0;
    for (int w = 0; w < 8; w++) between += rows_of(w) * (mean_of(w) - joined) * (mean_of(w) - joined);
    float* partial = a.partials + size_t(blockIdx.x) * 2 * width;
    int first = int(blockIdx.y) * CHUNK;
    join_warps(squares, squares, [&](int row, int own, float within) {
        if (first + own < width) partial[row * width + first + own] = row == 0 ? joined : within + between;
    });
}
KERNEL(batch_norm_statistics, BatchNormStatistics)

// Joins the partials of `blocks` runs of rows, each of `run` rows (0: what `Run` gives a block) but for the last: kept [2, width]: mean,
// 1 / sqrt(variance + 1e-5), and moves the pending running statistics by a tenth (of the unbiased variance). Without rows they stay, and `kept`
// is 0.
struct BatchNormJoin {
    const StepBlock* step;
    const float* partials;
    Reference kept;
    float *pending_mean, *pending_variance;
    Rows rows;
    int width, blocks, run, pad;
};
// 32 columns a block, a share of the partials a warp.
extern "C" __global__ void __launch_bounds__(1024) batch_norm_join(BatchNormJoin a) {
    constexpr int WARPS = 32;
    __shared__ double sums[WARPS][32];
    int rows = resolve(a.rows, a.step), width = a.width, column = int(blockIdx.x) * 32 + lane();
    if (rows == 0) {
        if (warp() < 2 && column < width) write(a.kept)[warp() * width + column] = 0.0f;
        return;
    }
    int length = a.run ? a.run : (rows + a.blocks - 1) / a.blocks, blocks = (rows + length - 1) / length;
    auto joined = [&](auto term) {
        double sum = 0;
        if (column < width) {
#pragma unroll 4
            for (int i = warp(); i < blocks; i += WARPS) {
                int size = min(rows - i * length, length);
                const float* partial = a.partials + size_t(i) * 2 * width + column;
                sum += term(double(size), double(partial[0]), double(partial[width]));
            }
        }
        sums[warp()][lane()] = sum;
        __syncthreads();
        double total = 0;
        for (int w = 0; w < WARPS; w++) total += sums[w][lane()];
        __syncthreads();
        return total;
    };
    double mean = joined([](double size, double mean, double) { return size * mean; }) / rows;
    double squares = joined([&](double size, double m, double squares) { return squares + size * (m - mean) * (m - mean); });
    if (warp() > 0 || column >= width) return;
    float* kept = write(a.kept);
    kept[column] = float(mean);
    kept[width + column] = float(1 / sqrt(squares / rows + 1e-5));
    a.pending_mean[column] = float(0.9 * a.pending_mean[column] + 0.1 * mean);
    a.pending_variance[column] = float(0.9 * a.pending_variance[column] + 0.1 * squares / (max(rows, 2) - 1));
}
KERNEL(batch_norm_join, BatchNormJoin)

// y = relu?((x - mean) scale gamma + beta) with mean and scale of `kept`; with `variance`, with those of the running statistics, which
// are then kept; without y that is all.
struct BatchNormForward {
    const StepBlock* step;
    const float *gamma, *beta, *mean, *variance;
    Reference x, y, kept;
    Rows rows;
    int width, relu;
};
extern "C" __global__ void __launch_bounds__(256) batch_norm_forward(BatchNormForward a) {
    const float* x = read(a.x, a.step);
    float *y = write(a.y), *kept = write(a.kept);
    int width = a.width, column = tile_column();
    bool wide = is_wide(x, width) && is_wide(y, width), wide_kept = is_wide(kept, width);
    Run run(resolve(a.rows, a.step));
    float4 mean, scale;
    if (a.variance) {
        mean = load4(a.mean, column, width, false), scale = load4(a.variance, column, width, false);
        auto root = [](float variance) { return 1 / sqrtf(variance + NORM_EPSILON); };
        scale = make_float4(root(scale.x), root(scale.y), root(scale.z), root(scale.w));
        if (blockIdx.x == 0 && warp() == 0) {
            store4(kept, column, width, wide_kept, mean);
            store4(kept + width, column, width, wide_kept, scale);
        }
    } else {
        mean = load4(kept, column, width, wide_kept), scale = load4(kept + width, column, width, wide_kept);
    }
    if (!y) return;
    BatchNormColumns columns(mean, scale, a.gamma, a.beta, column, width, a.relu);
#pragma unroll 4
    for (int row = run.first + warp(); row < run.end; row += 8)
        store4(y + size_t(row) * width, column, width, wide, columns.of(load4(x + size_t(row) * width, column, width, wide)));
}
KERNEL(batch_norm_forward, BatchNormForward)

// With h = (x - mean) scale and g = dy where the result was positive (or no ReLU follows):
// `batch_norm_sums`: partials [blocks, 2 width] of sum(g h), then sum(g).
// `batch_norm_backward`: dx = gamma scale (g - sum(g) / rows - h sum(g h) / rows) with `totals` [2, width], or gamma scale g where null.
struct BatchNormBackward {
    const StepBlock* step;
    const float *gamma, *beta, *totals;
    Reference x, kept, dy, dx;
    float* partials;
    Rows rows;
    int width, relu, accumulate, pad;
};
// Calls f(row, h, g) for the rows of a run of which this warp has the columns.
template <class F> __device__ inline void batch_norm_rows(const BatchNormBackward& a, const BatchNormColumns& columns, Run run, F f) {
    const float *x = read(a.x, a.step), *dy = read(a.dy, a.step);
    int width = a.width, column = tile_column();
    bool wide = is_wide(x, width) && is_wide(dy, width);
#pragma unroll 4
    for (int row = run.first + warp(); row < run.end; row += 8) {
        float4 g = load4(dy + size_t(row) * width, column, width, wide);
        float4 h = columns.back(load4(x + size_t(row) * width, column, width, wide), g);
        f(row, h, g);
    }
}
extern "C" __global__ void __launch_bounds__(256) batch_norm_sums(BatchNormBackward a) {
    Run run(resolve(a.rows, a.step));
    BatchNormSums sums;
    if (run.size() > 0) {
        BatchNormColumns columns(read(a.kept, a.step), a.gamma, a.beta, tile_column(), a.width, a.relu);
        batch_norm_rows(a, columns, run, [&](int, float4 h, float4 g) { sums.add(h, g); });
    }
    float* partial = a.partials + size_t(blockIdx.x) * 2 * a.width;
    int first = int(blockIdx.y) * CHUNK;
    join_warps(sums.products, sums.sums, [&](int row, int column, float sum) {
        if (first + column < a.width) partial[row * a.width + first + column] = sum;
    });
}
KERNEL(batch_norm_sums, BatchNormBackward)

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward(BatchNormBackward a) {
    int rows = resolve(a.rows, a.step);
    Run run(rows);
    if (run.size() == 0) return;
    float* dx = write(a.dx);
    int width = a.width, column = tile_column();
    bool wide = is_wide(dx, width);
    BatchNormColumns columns(read(a.kept, a.step), a.gamma, a.beta, column, width, a.relu);
    BatchNormSlope slope(columns, a.totals, column, width, rows);
    batch_norm_rows(a, columns, run,
                    [&](int row, float4 h, float4 g) { store4(dx + size_t(row) * width, column, width, wide, slope.of(h, g), a.accumulate); });
}
KERNEL(batch_norm_backward, BatchNormBackward)
