// Chains of many rows.
#include "run_chain.cuh"

CHAIN_KERNELS(square, Square)
