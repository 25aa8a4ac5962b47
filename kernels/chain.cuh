// Chains of operations that work row by row: a block takes some rows all the way, so that no launch lies between the operations.
//
// A launch has branches that are independent of each other. The rows of a branch's tensors are multiples of one count of the batch: one of
// that count, with its rows in every tensor, is a unit. Blocks share the units; between two links all threads of a block meet.
#pragma once
#include "row.cuh"

// An operation; mirrors `Kind` of `chain.rs`.
enum LinkKind {
    LINEAR_FORWARD,
    LINEAR_DX,
    LAYER_NORM_FORWARD,
    LAYER_NORM_FORWARD_WIDE,
    LAYER_NORM_BACKWARD,
    LAYER_NORM_BACKWARD_WIDE,
    FOURIER_FORWARD,
    FOURIER_BACKWARD,
    NEIGHBORHOOD_FORWARD,
    NEIGHBORHOOD_BACKWARD,
    GROUP_ATTENTION_FORWARD,
    GROUP_ATTENTION_BACKWARD,
    DROPOUT,
    RESIDUAL_FORWARD,
    RESIDUAL_BACKWARD,
    ADD_FORWARD,
    GATHER_FORWARD,
    SUM_GROUPS,
    SUM_PERIODS,
    SUM_TABLE,
    OUTER_SUM,
    PAIR_BIAS,
    UNFOLD_FORWARD,
    UNFOLD_BACKWARD,
    MIX,
    INTERLEAVE_FORWARD,
    INTERLEAVE_BACKWARD,
    JOIN_STEPS_FORWARD,
    JOIN_STEPS_BACKWARD,
    GELU_AGAIN,
};
// One with its arguments; mirrors `Link` of `chain.rs`.
struct alignas(16) Link {
    int kind, pad[3];
    unsigned char arguments[304];
};
struct Branch {
    Rows units;
    int first_block, blocks, first_link, links;
};
struct Chain {
    const StepBlock* step;
    const Branch* branches;
    const Link* links;
    int count, pad; // branches
};

// What a block has of a branch: some units, and its number among the branch's blocks.
struct Share {
    int first, end, block;
    // Its rows of a tensor.
    __device__ Run operator[](Rows rows) const { return Run::between(first, end).times(rows.times); }
};
