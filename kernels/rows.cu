// Operations that move or add rows. A group of `lanes` threads has a row; `accumulate` adds to what is there.
#include "rows.cuh"
#include "storage.cuh"

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

// First positions of a sorted list whose entries are not below `value`, and not below the next; both are looked for at the same time.
__device__ inline int2 bounds(const int* list, int count, int value) {
    int2 at = make_int2(0, 0);
    int step = 1;
    while (2 * step <= count) step *= 2;
    for (; step > 0; step /= 2) {
        int first = at.x + step, second = at.y + step;
        bool below = first <= count && list[first - 1] < value, not_above = second <= count && list[second - 1] <= value;
        if (below) at.x = first;
        if (not_above) at.y = second;
    }
    return at;
}

// dx[index[i]] (+)= dy[i] in the order of i: dy [rows, width], dx [targets, width]. A warp has 128 columns of a row of dx, by the grid's
// second axis, and looks for its entries in the list; in a sorted one it knows where they are.
struct ScatterAdd {
    Reference dy, dx;
    IndexReference index;
    const StepBlock* step;
    Rows rows, targets;
    int width, accumulate;
};
extern "C" __global__ void __launch_bounds__(256) scatter_add(ScatterAdd a) {
    constexpr int WARPS = 8, TILE = 256;
    __shared__ int tile[TILE];
    Stored dy(a.dy, a.step, a.width);
    const int* index = read(a.index, a.step);
    float* dx = write(a.dx);
    int rows = resolve(a.rows, a.step), targets = resolve(a.targets, a.step), column = int(blockIdx.y) * CHUNK + 4 * lane();
    bool sorted = is_sorted(a.index, a.step), wide = is_wide(dx, a.width);
    for (int first = int(blockIdx.x) * WARPS; first < targets; first += int(gridDim.x) * WARPS) {
        int target = first + warp();
        float4 sum = make_float4(0, 0, 0, 0);
        dy.reading([&](auto load) {
            auto add = [&](int row) { sum = sum + load(row, column); };
            if (sorted) {
                int2 own = bounds(index, rows, target);
#pragma unroll 8
                for (int row = own.x; row < own.y; row++) add(row);
                return;
            }
            for (int start = 0; start < rows; start += TILE) {
                __syncthreads();
                if (start + int(threadIdx.x) < rows) tile[threadIdx.x] = index[start + threadIdx.x];
                __syncthreads();
                for (int i = 0; i < TILE && start + i < rows; i += 32) {
                    bool mine = start + i + lane() < rows && tile[i + lane()] == target;
                    for (unsigned found = __ballot_sync(FULL_WARP, mine); found != 0; found &= found - 1) add(start + i + __ffs(found) - 1);
                }
            }
        });
        if (target < targets) store4(dx + size_t(target) * a.width, column, a.width, wide, sum, a.accumulate);
    }
}
KERNEL(scatter_add, ScatterAdd)

// Copies between a part and the whole: to the whole, or (+)= to the part.
__device__ inline void move(const Parts& a, int part, size_t at, size_t in_whole, bool backward) {
    if (a.data[part].data == nullptr) return;
    if (backward)
        put(write(a.data[part]) + at, read(a.whole, a.step)[in_whole], a.accumulate[part]);
    else
        write(a.whole)[in_whole] = read(a.data[part], a.step)[at];
}
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
