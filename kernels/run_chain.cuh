// Kernels that run chains: one for each shape of the products' tiles and way to multiply; a file for each shape, as compilers take their time.
#pragma once
#include "activation.cuh"
#include "chain.cuh"
#include "fourier.cuh"
#include "group_attention.cuh"
#include "layer_norm.cuh"
#include "linear.cuh"
#include "neighborhood.cuh"
#include "residual.cuh"
#include "rows.cuh"

// As many rows as a block should have: `Square` for chains of many rows, of which two blocks share a multiprocessor. With fewer rows one step waits
// for the other and for its operands: wide tiles take fewer steps, more stages wait less. `Full` has a block for each multiprocessor, `Wide` is for
// chains of fewer rows than that. Products in 16 bits have few instructions for each step's barrier and copies: their steps are twice as deep.
template <Multiply MULTIPLY> constexpr int CHAIN_DEPTH = IN_HALVES<MULTIPLY> ? 2 * SLICE : SLICE;
// Warps along the rows of 64: each is to look at few rows of left factors that take twice the room of right ones, and are converted.
template <Multiply MULTIPLY> constexpr int ROW_WARPS = IN_HALVES<MULTIPLY> ? 4 : 2;
template <Multiply MULTIPLY> using Square = Shape<64, 64, ROW_WARPS<MULTIPLY>, 8 / ROW_WARPS<MULTIPLY>, 2, 3, CHAIN_DEPTH<MULTIPLY>>;
template <Multiply MULTIPLY>
using Full = Shape<64, 128, ROW_WARPS<MULTIPLY>, 8 / ROW_WARPS<MULTIPLY>, 1, IN_HALVES<MULTIPLY> ? 3 : 4, CHAIN_DEPTH<MULTIPLY>>;
template <Multiply MULTIPLY> using Wide = Shape<32, 128, 2, 4, 2, IN_HALVES<MULTIPLY> ? 3 : 4, CHAIN_DEPTH<MULTIPLY>>;
constexpr int THREADS = 256; // of each of them: links know one number

template <Multiply MULTIPLY, class Shape, class Tiles>
__device__ __forceinline__ void for_tiles(const Tiles& tiles, Run run, int columns, float* memory) {
    int count = (run.size() + Shape::M - 1) / Shape::M * ((columns + Shape::N - 1) / Shape::N);
    tiles.template compute<MULTIPLY, Shape>(memory, count, Place{run.first, 0}, [=](Place& at) {
        at.column += Shape::N;
        if (at.column >= columns) at.column = 0, at.row += Shape::M;
    });
    __syncthreads();
}
template <Multiply MULTIPLY, class Shape, class A> __device__ APART void linear_forward(const LinearForward& a, Run run, float* memory) {
    for_tiles<MULTIPLY, Shape>(LinearForwardTiles<false, A>(a, run.end), run, a.n, memory);
}
template <Multiply MULTIPLY, class Shape> __device__ __forceinline__ void linear_forward(const LinearForward& a, Run run, float* memory) {
    if (are_packed<MULTIPLY>(a.x)) linear_forward<MULTIPLY, Shape, Packed<Shape::M, true, Shape::DEPTH>>(a, run, memory);
    else linear_forward<MULTIPLY, Shape, Operand<Shape::M, true, Shape::DEPTH>>(a, run, memory);
}
template <Multiply MULTIPLY, class Shape> __device__ APART void linear_dx(const LinearDx& a, Run run, float* memory) {
    for_tiles<MULTIPLY, Shape>(LinearDxTiles<false>(a, run.end), run, a.k, memory);
}

template <Multiply MULTIPLY, class Shape> __device__ __forceinline__ void run_chain(const Chain& a) {
    static_assert(Shape::THREADS == THREADS, "links know one number");
    SHARED(float, memory);
    // Every thread has these, but no registers for them over the links.
    __shared__ Link links[2]; // the one that runs and the one that comes next
    __shared__ Share share;
    __shared__ int numbers[THREADS / 32], end; // of the link that each warp runs; behind the last
    auto number = [&]() -> int& {
        int mine = warp();
        forget(mine);
        return numbers[mine];
    };
    if (threadIdx.x == 0) {
        int own = 0;
        while (own + 1 < a.count && a.branches[own + 1].first_block <= int(blockIdx.x)) own++;
        const Branch& branch = a.branches[own];
        int block = int(blockIdx.x) - branch.first_block;
        Run units(resolve(branch.units, a.step), block, branch.blocks);
        share = {units.first, units.end, block}, end = branch.first_link + branch.links;
        for (int& of_warp : numbers) of_warp = branch.first_link;
    }
    __syncthreads();
    auto fetch = [&](int coming) {
        constexpr int PARTS = sizeof(Link) / 16;
        if (coming < end && int(threadIdx.x) < PARTS)
            cp_async16(reinterpret_cast<int4*>(&links[coming % 2]) + threadIdx.x, reinterpret_cast<const int4*>(a.links + coming) + threadIdx.x);
        cp_async_commit();
    };
    // These take no register.
    auto units = [] { return share; };
    auto block = [] { return share.block; };
    fetch(number());
    cp_async_wait<0>();
    __syncthreads();
    while (number() < end) {
        fetch(number() + 1);
        const Link& link = links[number() % 2];
        switch (link.kind) {
#define LINK(kind, Arguments, ...)                                        \
    case kind: {                                                          \
        static_assert(sizeof(Arguments) <= sizeof(Link::arguments));      \
        const Arguments& args = *reinterpret_cast<const Arguments*>(link.arguments); \
        __VA_ARGS__;                                                      \
        break;                                                            \
    }
            LINK(LINEAR_FORWARD, LinearForward, linear_forward<MULTIPLY, Shape>(args, share[args.rows], memory))
            LINK(LINEAR_DX, LinearDx, linear_dx<MULTIPLY, Shape>(args, share[args.rows], memory))
            LINK(LAYER_NORM_FORWARD, LayerNormForward, layer_norm_forward<1>(args, share[args.rows]))
            LINK(LAYER_NORM_FORWARD_WIDE, LayerNormForward, layer_norm_forward<2>(args, share[args.rows]))
            LINK(LAYER_NORM_BACKWARD, LayerNormBackward, layer_norm_backward<1>(args, share[args.rows], block))
            LINK(LAYER_NORM_BACKWARD_WIDE, LayerNormBackward, layer_norm_backward<2>(args, share[args.rows], block))
            LINK(FOURIER_FORWARD, FourierForward, fourier_forward(args, share[args.rows]))
            LINK(FOURIER_BACKWARD, FourierBackward, fourier_backward(args, share[args.rows], share.block))
            LINK(NEIGHBORHOOD_FORWARD, NeighborhoodForward, neighborhood_forward(args, share[args.a.rows], memory))
            LINK(NEIGHBORHOOD_BACKWARD, NeighborhoodBackward, neighborhood_backward(args, share[args.a.rows], share.block, memory))
            LINK(GROUP_ATTENTION_FORWARD, GroupAttentionForward, group_attention_forward(args, units, memory))
            LINK(GROUP_ATTENTION_BACKWARD, GroupAttentionBackward, group_attention_backward(args, units, memory))
            LINK(DROPOUT, Dropout, dropout(args, share[args.rows]))
            LINK(RESIDUAL_FORWARD, ResidualForward, residual_forward(args, share[args.rows]))
            LINK(RESIDUAL_BACKWARD, ResidualBackward, residual_backward(args, share[args.rows]))
            LINK(ADD_FORWARD, AddForward, add_forward(args, share[args.rows]))
            LINK(GATHER_FORWARD, GatherForward, gather_forward(args, share[args.rows]))
            LINK(SUM_GROUPS, SumGroups, sum_groups(args, share[args.rows]))
            LINK(SUM_PERIODS, SumPeriods, sum_periods(args, share[args.rows], share.block))
            LINK(SUM_TABLE, SumTable, sum_table(args, share[args.rows], share.block))
            LINK(OUTER_SUM, OuterSum, outer_sum(args, share[args.rows]))
            LINK(PAIR_BIAS, PairBias, pair_bias(args, share[args.rows]))
            LINK(UNFOLD_FORWARD, Unfold, unfold_forward(args, share[args.rows]))
            LINK(UNFOLD_BACKWARD, Unfold, unfold_backward(args, share[args.rows]))
            LINK(MIX, Mix, mix(args, share[args.rows]))
            LINK(INTERLEAVE_FORWARD, Parts, interleave(args, share[args.rows[0]], false))
            LINK(INTERLEAVE_BACKWARD, Parts, interleave(args, share[args.rows[0]], true))
            LINK(JOIN_STEPS_FORWARD, Parts, join_steps(args, share[args.rows[0]], false))
            LINK(JOIN_STEPS_BACKWARD, Parts, join_steps(args, share[args.rows[0]], true))
            LINK(GELU_AGAIN, Gelu, gelu_rows(args, share[args.rows]))
#undef LINK
        }
        cp_async_wait<0>();
        __syncthreads(); // the next link is there, and what was written is there for it
        if (lane() == 0) number()++;
        __syncwarp();
    }
}

#define CHAIN_KERNEL(name, Shape, MODE)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, Shape<MODE>::BLOCKS) name(Chain a) { run_chain<MODE, Shape<MODE>>(a); } \
    KERNEL(name, Chain)
#define CHAIN_KERNELS(shape, Shape)                     \
    CHAIN_KERNEL(chain_##shape##_tf32x3, Shape, TF32X3) \
    CHAIN_KERNEL(chain_##shape##_tf32, Shape, TF32)     \
    CHAIN_KERNEL(chain_##shape##_bf16, Shape, BF16)     \
    CHAIN_KERNEL(chain_##shape##_f16, Shape, F16)
