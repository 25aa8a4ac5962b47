// Operations that move or add rows. A group of `lanes` threads has a row; `accumulate` adds to what is there.
#include "rows.cuh"

// Calls f(row, lane) for every row; the grid strides over them.
template <class F>
__device__ inline void for_rows(int rows, int lanes, F f) {
    int lane = int(threadIdx.x) % lanes, groups = global_threads() / lanes;
    for (int row = global_thread() / lanes; row < rows; row += groups) f(row, lane);
}

// y = value.
struct Fill {
    Reference y;
    const StepBlock* step;
    Rows rows;
    int width;
    float value;
};
extern "C" __global__ void __launch_bounds__(256) fill(Fill a) {
    float* y = write(a.y);
    int count = resolve(a.rows, a.step) * a.width;
    for (int i = global_thread(); i < count; i += global_threads()) y[i] = a.value;
}
KERNEL(fill, Fill)

// Copies scalars from wherever they are to one place: to[i] = *from[i].
struct Collect {
    const float* const* from;
    float* to;
    int count, pad;
};
extern "C" __global__ void __launch_bounds__(256) collect(Collect a) {
    for (int i = global_thread(); i < a.count; i += global_threads()) a.to[i] = *a.from[i];
}
KERNEL(collect, Collect)

// dz[z] (+)= sum over i below `count` of dy[z * row_step + i * item_step], [rows, width]. With `chunks` > 1, block row k of the grid
// sums a share of the items, and writes it to dz[k * chunk_rows + z].
struct SumRows {
    Reference dy, dz;
    const StepBlock* step;
    Rows rows, count;
    int row_step, item_step, width, lanes, accumulate, chunks, chunk_rows, pad;
};
extern "C" __global__ void __launch_bounds__(256) sum_rows(SumRows a) {
    const float* dy = read(a.dy, a.step);
    int count = resolve(a.count, a.step), share = (count + a.chunks - 1) / a.chunks;
    int from = int(blockIdx.y) * share, to = min(count, from + share);
    float* dz = write(a.dz) + size_t(blockIdx.y) * a.chunk_rows * a.width;
    for_rows(resolve(a.rows, a.step), a.lanes, [&](int z, int lane) {
        for (int c = lane; c < a.width; c += a.lanes) {
            float sum = 0.0f;
            for (int i = from; i < to; i++) sum += dy[size_t(z * a.row_step + i * a.item_step) * a.width + c];
            put(dz + size_t(z) * a.width + c, sum, a.accumulate);
        }
    });
}
KERNEL(sum_rows, SumRows)

// *sorted = 1 if the list never falls. One block.
struct IsSorted {
    IndexReference index;
    int* sorted;
    const StepBlock* step;
    Rows rows;
};
extern "C" __global__ void __launch_bounds__(256) is_sorted(IsSorted a) {
    const int* index = read(a.index, a.step);
    int rows = resolve(a.rows, a.step);
    float falls = 0.0f;
    for (int i = threadIdx.x + 1; i < rows; i += blockDim.x) falls += index[i] < index[i - 1] ? 1.0f : 0.0f;
    falls = block_sum(falls);
    if (threadIdx.x == 0) *a.sorted = falls == 0.0f;
}
KERNEL(is_sorted, IsSorted)

// First position of `list` whose entry is not below `value`.
__device__ inline int lower_bound(const int* list, int count, int value) {
    int from = 0;
    while (count > 0) {
        int half = count / 2;
        if (list[from + half] < value) {
            from += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return from;
}

// dx[index[i]] (+)= dy[i] in the order of i: dy [rows, width], dx [targets, width]. A warp has a row of dx and looks for its entries in
// the list; in a sorted one it knows where they are. With `chunks` > 1, block row k of the grid looks at a share of the list, and writes
// to dx[k * chunk_rows + ..].
struct ScatterAdd {
    Reference dy, dx;
    IndexReference index;
    const int* sorted;
    const StepBlock* step;
    Rows rows, targets;
    int width, accumulate, chunks, chunk_rows;
};
extern "C" __global__ void __launch_bounds__(256) scatter_add(ScatterAdd a) {
    constexpr int WARPS = 8, TILE = 256, COLUMNS = 4;
    __shared__ int tile[TILE];
    const float* dy = read(a.dy, a.step);
    const int* index = read(a.index, a.step);
    float* dx = write(a.dx) + size_t(blockIdx.y) * a.chunk_rows * a.width;
    int rows = resolve(a.rows, a.step), targets = resolve(a.targets, a.step), share = (rows + a.chunks - 1) / a.chunks;
    int begin = min(rows, int(blockIdx.y) * share), end = min(rows, begin + share);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool sorted = *a.sorted != 0;
    for (int first = int(blockIdx.x) * WARPS; first < targets; first += int(gridDim.x) * WARPS) {
        int target = first + warp;
        for (int column = 0; column < a.width; column += 32 * COLUMNS) {
            float sum[COLUMNS] = {};
            auto add = [&](int row) {
                const float* from = dy + size_t(row) * a.width + column;
                for (int k = 0; k < COLUMNS; k++) {
                    int c = lane + 32 * k;
                    if (column + c < a.width) sum[k] += from[c];
                }
            };
            if (sorted) {
                int from = begin + lower_bound(index + begin, end - begin, target);
                int to = from + lower_bound(index + from, end - from, target + 1);
                for (int row = from; row < to; row++) add(row);
            } else {
                for (int start = begin; start < end; start += TILE) {
                    __syncthreads();
                    if (start + int(threadIdx.x) < end) tile[threadIdx.x] = index[start + threadIdx.x];
                    __syncthreads();
                    for (int i = 0; i < TILE && start + i < end; i += 32) {
                        bool mine = start + i + lane < end && tile[i + lane] == target;
                        for (unsigned found = __ballot_sync(FULL_WARP, mine); found != 0; found &= found - 1) add(start + i + __ffs(found) - 1);
                    }
                }
            }
            for (int k = 0; k < COLUMNS; k++) {
                int c = column + lane + 32 * k;
                if (target < targets && c < a.width) put(dx + size_t(target) * a.width + c, sum[k], a.accumulate);
            }
        }
    }
}
KERNEL(scatter_add, ScatterAdd)

// Rows of the parts one below the other.
__device__ inline void concat(const Parts& a, bool backward) {
    int start = 0;
    for (int part = 0; part < a.count; part++) {
        int rows = resolve(a.rows[part], a.step);
        for_rows(rows, a.lanes, [&](int row, int lane) {
            for (int c = lane; c < a.width; c += a.lanes) move(a, part, size_t(row) * a.width + c, size_t(start + row) * a.width + c, backward);
        });
        start += rows;
    }
}
extern "C" __global__ void __launch_bounds__(256) concat_forward(Parts a) { concat(a, false); }
KERNEL(concat_forward, Parts)
extern "C" __global__ void __launch_bounds__(256) concat_backward(Parts a) { concat(a, true); }
KERNEL(concat_backward, Parts)
