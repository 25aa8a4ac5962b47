// Largest value of each column in each segment of rows of a linear layer's result, whose rows are not kept.
#include "maxima.cuh"
#include "normalise.cuh"

// A largest value and its row; -1 for the zeros.
struct Largest {
    float value;
    int row;

    __device__ static Largest begin(bool zeros) { return {zeros ? 0 : -INFINITY, -1}; }
    // The first of equals wins; what is not a number wins and stays.
    __device__ __forceinline__ void take(float x, int at) {
        bool larger = x > value || x != x;
        value = larger ? x : value, row = larger ? at : row;
    }
};

// ---- What `Maxima` wants to know: segment_of [rows], and whether segments follow one another; of the list of the grid's second axis.
struct SegmentOf {
    IndexReference list;
    int *segment_of, *ordered;
    Rows rows, segments;
};
struct LookUp {
    const StepBlock* step;
    const SegmentOf* lists;
};
extern "C" __global__ void __launch_bounds__(256) segment_of(LookUp all) {
    SegmentOf a = all.lists[blockIdx.y];
    const int* list = read(a.list, all.step);
    int rows = resolve(a.rows, all.step), segments = resolve(a.segments, all.step);
    float apart = 0; // every block looks at the whole list
    for (int s = int(threadIdx.x) + 1; s < segments; s += int(blockDim.x)) {
        Segment before(list, s - 1);
        apart += Segment(list, s).start < before.start + before.count ? 1.0f : 0.0f;
    }
    bool ordered = block_sum(apart) == 0;
    if (global_thread() == 0) *a.ordered = ordered;
    for (int row = global_thread(); row < rows; row += global_threads()) {
        int found = -1;
        if (ordered) {
            int first = 0, count = segments; // the last that does not begin behind the row
            while (count > 0) {
                int half = count / 2;
                bool later = Segment(list, first + half).start <= row;
                first = later ? first + half + 1 : first;
                count = later ? count - half - 1 : half;
            }
            if (first > 0 && Segment(list, first - 1).holds(row)) found = first - 1;
        } else {
            for (int s = 0; s < segments && found < 0; s++)
                if (Segment(list, s).holds(row)) found = s;
        }
        a.segment_of[row] = found;
    }
}
KERNEL(segment_of, LookUp)

// ---- y, kept [segments, n] of x Wᵀ + b with x [rows, k], normalised if there is a norm, W [n, k]. A block has column tile x of the grid and
// `group` segments at a time, whose rows, one segment's behind the other's, are the rows of its tiles.
constexpr int MOST_SEGMENTS = 32;
struct LinearMaxForward {
    const StepBlock* step;
    const float *weight, *bias;
    Reference x;
    Norm norm;
    Reference y;
    IndexReference list;
    int* kept;
    Rows segments;
    int k, n, weight_stride, group;
};
template <Multiply MULTIPLY> __device__ __forceinline__ void linear_max(const LinearMaxForward& a) {
    using Shape = Large<MULTIPLY>;
    using A = Operand<Shape::M, true, Shape::DEPTH>;
    using B = Weights<MULTIPLY, Shape::N, true, Shape::DEPTH>;
    constexpr int M = Shape::M, N = Shape::N, DEPTH = Shape::DEPTH;
    SHARED(float, memory); // stages of tiles, then the product [M, N]
    __shared__ int begins[MOST_SEGMENTS + 1], starts[MOST_SEGMENTS], zeros[MOST_SEGMENTS]; // place of the first row among the tiles' rows
    __shared__ int row_of[M];
    __shared__ Largest open[2][N]; // of the segment that goes on in the next tile
    int thread = int(threadIdx.x), column = int(blockIdx.x) * N, segments = resolve(a.segments, a.step);
    const int* list = read(a.list, a.step);
    float* y = write(a.y);
    View x(read(a.x, a.step), 0x7fffffff, a.k, a.k, a.x.format), w(a.weight, a.n, a.k, a.weight_stride);
    for (int first = int(blockIdx.y) * a.group; first < segments; first += int(gridDim.y) * a.group) {
        int group = min(a.group, segments - first);
        __syncthreads();
        if (warp() == 0) {
            int own = lane(), count = 0;
            if (own < group) {
                Segment segment(list, first + own);
                count = segment.count, starts[own] = segment.start, zeros[own] = segment.zeros;
            }
            for (int offset = 1; offset < 32; offset *= 2) {
                int before = __shfl_up_sync(FULL_WARP, count, unsigned(offset));
                if (own >= offset) count += before;
            }
            if (own == 0) begins[0] = 0;
            begins[own + 1] = count;
        }
        __syncthreads();
        int rows = begins[group];
        for (int base = 0, tile = 0; base < rows || tile == 0; base += M, tile++) {
            if (thread < M) {
                int place = base + thread, s = 0;
                while (s < group && begins[s + 1] <= place) s++;
                row_of[thread] = s < group ? starts[s] + place - begins[s] : -1;
            }
            __syncthreads();
            Copies<B, Shape::THREADS> w_copies;
            typename Shape::Sums sums;
            product<MULTIPLY, Shape, A, B>(
                sums, memory, A::FLOATS + B::FLOATS, (a.k + DEPTH - 1) / DEPTH,
                [&](float* left, float* right, int step) {
                    if (step == 0) w_copies.begin(w, column, 0);
                    copy_tile<A, Shape::THREADS>(left, x, step * DEPTH, [&](int r) { return row_of[r]; });
                    w_copies.next(right, w, column, step * DEPTH);
                },
                [&](float* left, int step) {
                    x.ready<A, Shape::THREADS>(left);
                    a.norm.ready<A, Shape::THREADS>(left, a.step, step * DEPTH, a.k, x.wide);
                },
                [](const float*, int) {});
            Shape::lay_out(sums, memory);
            int c = thread % N;
            float bias = column + c < a.n ? a.bias[column + c] : 0;
            for (int s = thread / N; s < group; s += Shape::THREADS / N) {
                int from = begins[s], to = begins[s + 1];
                bool empty = from == to && tile == 0, here = from < base + M && to > base && from < to;
                if (!empty && !here) continue;
                Largest largest = from < base ? open[tile % 2][c] : Largest::begin(zeros[s]);
                int end = min(to, base + M);
                for (int place = max(from, base); place < end; place++)
                    largest.take(memory[(place - base) * Shape::STRIDE + c] + bias, starts[s] + place - from);
                if (to > base + M) {
                    open[(tile + 1) % 2][c] = largest;
                } else if (column + c < a.n) {
                    size_t at = size_t(first + s) * a.n + column + c;
                    y[at] = largest.value, a.kept[at] = largest.row;
                }
            }
            __syncthreads();
        }
    }
}
#define LINEAR_MAX_KERNEL(mode, MODE)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(Large<MODE>::THREADS, Large<MODE>::BLOCKS) linear_max_forward_##mode(LinearMaxForward a) { \
        linear_max<MODE>(a);                                                                                                              \
    }                                                                                                                                     \
    KERNEL(linear_max_forward_##mode, LinearMaxForward)
LINEAR_MAX_KERNEL(tf32x3, TF32X3)
LINEAR_MAX_KERNEL(tf32, TF32)
LINEAR_MAX_KERNEL(bf16, BF16)
LINEAR_MAX_KERNEL(f16, F16)
