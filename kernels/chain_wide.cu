// Chains of few rows.
#include "run_chain.cuh"

CHAIN_KERNELS(wide, Wide)
