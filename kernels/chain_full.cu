// Chains of a block of 64 rows for each multiprocessor.
#include "run_chain.cuh"

CHAIN_KERNELS(full, Full)
