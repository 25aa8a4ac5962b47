// Weights in 16 bits, for products in 16 bits; see `Packed`.
#include "storage.cuh"

// Each to the nearest, row by row; `stride` is a multiple of 8, zeros lie behind the columns.
struct PackedMatrix {
    const float* from;
    unsigned short* to;
    int rows, columns, from_stride, stride;
};
struct PackWeights {
    const PackedMatrix* matrices;
    const int2* parts; // by block: matrix, and the first of the elements of which a thread has 8
    int format, pad;
};
extern "C" __global__ void __launch_bounds__(256) pack_weights(PackWeights a) {
    int2 part = a.parts[blockIdx.x];
    PackedMatrix m = a.matrices[part.x];
    int element = part.y + 8 * int(threadIdx.x), row = element / m.stride, column = element % m.stride;
    if (row >= m.rows) return;
    const float* from = m.from + size_t(row) * m.from_stride;
    bool wide = m.columns % 4 == 0 && is_wide(m.from, m.from_stride);
    float4 low = load4(from, column, m.columns, wide), high = load4(from, column + 4, m.columns, wide);
    *reinterpret_cast<uint4*>(m.to + element) = make_uint4(narrow(low.x, low.y, a.format), narrow(low.z, low.w, a.format),
                                                           narrow(high.x, high.y, a.format), narrow(high.z, high.w, a.format));
}
KERNEL(pack_weights, PackWeights)
