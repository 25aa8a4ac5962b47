// Factors of dropout: 0 where an element is dropped, 1 / (1 - rate) where it is kept.
#pragma once
#include "common.cuh"

struct Mask {
    unsigned stream, below; // words below this are dropped; 0: none is
    float scale;
};

// Set in the stream of the numbers that drop whole groups of rows.
constexpr unsigned PATH = 0x40000000u;

// Of columns 4 block .. 4 block + 4 of a row.
__device__ inline float4 factors(Mask mask, const StepBlock* step, int row, int block) {
    if (mask.below == 0) return make_float4(1, 1, 1, 1);
    uint4 words = random_words(step, mask.stream, row, block);
    return make_float4(words.x < mask.below ? 0 : mask.scale, words.y < mask.below ? 0 : mask.scale, words.z < mask.below ? 0 : mask.scale,
                       words.w < mask.below ? 0 : mask.scale);
}
// Of a group of rows.
__device__ inline float path_factor(Mask mask, const StepBlock* step, int group) {
    return mask.below == 0 ? 1 : random_words(step, mask.stream | PATH, group, 0).x < mask.below ? 0 : mask.scale;
}
