// What attention over listed segments and attention within groups of rows share.
#pragma once
#include "dropout.cuh"

// Operands [rows, stride], of which head h has `width` columns from column + h * width on.
struct Heads {
    const StepBlock* step;
    Reference operands[3]; // q, k, v
    Mask dropout;          // of the softmax
    float scale;           // of the scores
    int strides[3], columns[3];
    int heads, width;
};
