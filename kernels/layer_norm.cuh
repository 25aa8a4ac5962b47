// Layer normalisation: a warp has a row, a block of 8 warps a run of rows.
#pragma once
#include "mma.cuh"
#include "storage.cuh"

constexpr float NORM_EPSILON = 1e-5f;

struct NormStatistics {
    float mean, scale; // 1 / sqrt(variance + epsilon)
};

// Of a row of `width` columns; the variance is taken about the mean.
template <int CHUNKS> __device__ NormStatistics row_statistics(const Row<CHUNKS>& x, int width) {
    float sum = 0, squares = 0, share = 1 / float(width); // the same for all rows, unlike a quotient
    Row<CHUNKS>::each([&](int c, int i) { sum += x.at[c][i]; });
    float mean = warp_sum(sum) * share;
    Row<CHUNKS>::each([&](int c, int i) {
        float d = Row<CHUNKS>::column(c) + i < width ? x.at[c][i] - mean : 0;
        squares += d * d;
    });
    return {mean, reciprocal_root(warp_sum(squares) * share + NORM_EPSILON)};
}

// (x - mean) scale gamma + beta, and ReLU of it where `relu`; NaN stays.
__device__ inline float normalised(float x, NormStatistics s, float gamma, float beta, bool relu) {
    float y = (x - s.mean) * s.scale * gamma + beta;
    return relu && y < 0 ? 0 : y;
}

// Wide rows that a warp reads before it writes the first, so that reads wait for no write.
template <int CHUNKS> __device__ constexpr int rows_together() { return CHUNKS == 1 ? 4 : CHUNKS == 2 ? 2 : 1; }

// 128 columns of gamma and beta.
struct NormWeights {
    Row<1> gamma, beta;
    __device__ NormWeights(const float* gamma, const float* beta, int chunk, int width, bool wide)
        : gamma(part(gamma, chunk, width, wide)), beta(part(beta, chunk, width, wide)) {}
    __device__ static Row<1> part(const float* row, int chunk, int width, bool wide) {
        return Row<1>::load(row + chunk * CHUNK, width - chunk * CHUNK, wide);
    }
};

// With h = (x - mean) scale and g = gamma dy where the result was positive (or no ReLU follows), turns g, which is dy before, into
// dx = scale (g - mean(g) - h mean(g h)); adds dy h and dy to the sums for gamma and beta.
template <int CHUNKS, class Wide>
__device__ void layer_norm_gradient(const Row<CHUNKS>& x, Row<CHUNKS>& g, NormStatistics s, const float* gamma, const float* beta, bool relu,
                                    int width, Wide wide, Row<CHUNKS>& dgamma, Row<CHUNKS>& dbeta) {
    float sum = 0, product = 0, share = 1 / float(width);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        NormWeights weights(gamma, beta, c, width, wide);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float h = (x.at[c][i] - s.mean) * s.scale;
            float d = !relu || h * weights.gamma.at[0][i] + weights.beta.at[0][i] > 0 ? g.at[c][i] : 0;
            dgamma.at[c][i] += d * h;
            dbeta.at[c][i] += d;
            g.at[c][i] = d * weights.gamma.at[0][i]; // 0 behind the width, as gamma is
            sum += g.at[c][i], product += g.at[c][i] * h;
        }
    }
    float a = warp_sum(sum) * share, b = warp_sum(product) * share;
    Row<CHUNKS>::each([&](int c, int i) { g.at[c][i] = s.scale * (g.at[c][i] - a - (x.at[c][i] - s.mean) * s.scale * b); });
}

// y = relu?((x - mean) / sqrt(variance + 1e-5) gamma + beta); kept [rows, 2]: mean, 1 / sqrt(..).
struct LayerNormForward {
    const StepBlock* step;
    const float *gamma, *beta;
    Reference x, y, kept;
    Rows rows;
    int width, relu;
};
template <int CHUNKS> __device__ APART void layer_norm_forward(const LayerNormForward& a, Run run) {
    const float* x = read(a.x, a.step);
    float *y = write(a.y), *kept = write(a.kept);
    int width = a.width;
    Stored narrowed(a.y, a.step, width);
    known(is_wide(x, width) && is_wide(y, width) && is_wide(a.gamma, width) && is_wide(a.beta, width), [&](auto wide) {
        constexpr int TOGETHER = wide ? rows_together<CHUNKS>() : 1;
        for (int first = run.first + warp(); first < run.end; first += 8 * TOGETHER) {
            Row<CHUNKS> values[TOGETHER];
            NormStatistics s[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int row = first + 8 * i;
                values[i] = Row<CHUNKS>::load(x + size_t(row < run.end ? row : first) * width, width, wide);
            }
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) s[i] = row_statistics(values[i], width);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                NormWeights weights(a.gamma, a.beta, c, width, wide);
#pragma unroll
                for (int i = 0; i < TOGETHER; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        values[i].at[c][e] = normalised(values[i].at[c][e], s[i], weights.gamma.at[0][e], weights.beta.at[0][e], a.relu);
            }
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int row = first + 8 * i;
                if (row >= run.end) break;
                if (a.y.format == IN_F32) values[i].store(y + size_t(row) * width, width, wide);
                else narrowed.put_row(row, values[i]);
                if (lane() < 2) kept[2 * size_t(row) + lane()] = lane() == 0 ? s[i].mean : s[i].scale;
            }
        }
    });
}

// partials [blocks, 2 width]: sums for gamma, then for beta. dx null: none. block() is the number of the run.
struct LayerNormBackward {
    const StepBlock* step;
    const float *gamma, *beta;
    Reference x, kept, dy, dx;
    float* partials;
    Rows rows;
    int width, relu, accumulate, pad;
};
template <int CHUNKS, class Block> __device__ APART void layer_norm_backward(const LayerNormBackward& a, Run run, Block block) {
    const float *x = read(a.x, a.step), *dy = read(a.dy, a.step);
    int width = a.width;
    Row<CHUNKS> dgamma = {}, dbeta = {};
    bool weights_wide = is_wide(a.gamma, width) && is_wide(a.beta, width);
    known(weights_wide && is_wide(x, width) && is_wide(dy, width) && is_wide(write(a.dx), width), [&](auto wide) {
        // There are no registers for two of the widest rows.
        constexpr int TOGETHER = wide && CHUNKS == 1 ? rows_together<CHUNKS>() : 1;
        for (int first = run.first + warp(); first < run.end; first += 8 * TOGETHER) {
            const float* kept = write(a.kept);
            float* dx = write(a.dx);
            Row<CHUNKS> values[TOGETHER], g[TOGETHER], old[TOGETHER];
            NormStatistics s[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                // Rows behind the last are zeros, which add nothing to the sums.
                int row = first + 8 * i, valid = row < run.end ? width : 0, to_add = dx && a.accumulate ? valid : 0;
                size_t at = valid ? size_t(row) : size_t(first), place = at * width;
                values[i] = Row<CHUNKS>::load(x + place, valid, wide), g[i] = Row<CHUNKS>::load(dy + place, valid, wide);
                old[i] = Row<CHUNKS>::load(dx + place, to_add, wide);
                s[i] = {kept[2 * at], kept[2 * at + 1]};
            }
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) layer_norm_gradient(values[i], g[i], s[i], a.gamma, a.beta, a.relu, width, wide, dgamma, dbeta);
            forget(first); // no registers for the places of dx meanwhile
            dx = write(a.dx);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                int row = first + 8 * i;
                if (!dx || row >= run.end) break;
                Row<CHUNKS>::each([&](int c, int e) { g[i].at[c][e] += old[i].at[c][e]; });
                g[i].store(dx + size_t(row) * width, width, wide);
            }
        }
    });
    float* partial = a.partials + size_t(block()) * 2 * width;
    for (int c = 0; c < CHUNKS; c++)
        join_warps(dgamma.chunk(c), dbeta.chunk(c), [&](int row, int column, float sum) {
            if (c * CHUNK + column < width) partial[row * width + c * CHUNK + column] = sum;
        });
}
