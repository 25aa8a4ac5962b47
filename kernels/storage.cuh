// Tensors that are stored in 16 bits: what takes part in products only, where these are of 16 bits. Their rows are a multiple of 16 bytes.
#pragma once
#include "mma.cuh"
#include "row.cuh"

// Two elements as they are stored, each rounded to the nearest, and back.
__device__ __forceinline__ unsigned narrow(float low, float high, int format) {
    return format == IN_F16 ? pack_f16(low, high) : pack_bf16(low, high);
}
__device__ __forceinline__ float2 widen(unsigned bits, int format) {
    float2 f16 = unpack_f16(bits), bf16 = make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
    return format == IN_F16 ? f16 : bf16; // no branch: loads that follow need not wait
}
__device__ __forceinline__ float4 widen(uint2 bits, int format) {
    float2 low = widen(bits.x, format), high = widen(bits.y, format);
    return make_float4(low.x, low.y, high.x, high.y);
}

// A matrix of any storage in global memory, read and written by four columns.
struct Stored {
    float* data;
    int width, format;
    bool wide;

    __device__ Stored(Reference tensor, const StepBlock* step, int width)
        : data(const_cast<float*>(read(tensor, step))), width(width), format(tensor.format), wide(is_wide(data, width)) {}

    // Calls f(load) with load(row, column, valid) of columns column .. + 4, zeros behind the width and if not valid: a loop in f has no branch about
    // the storage.
    template <class F> __device__ __forceinline__ void reading(F f) const {
        auto there = [=](int column, bool valid) { return valid && column < width; };
        auto place = [=](int row) { return data + size_t(row) * width; };
        if (format != IN_F32)
            f([=](int row, int column, bool valid = true) {
                return widen(there(column, valid) ? *halves(row, column) : make_uint2(0, 0), format);
            });
        else
            known(wide, [&](auto wide) {
                f([=](int row, int column, bool valid = true) { return load4(place(row), column, valid ? width : 0, wide); });
            });
    }
    __device__ __forceinline__ void put(int row, int column, float4 x, bool accumulate) const {
        if (format == IN_F32) {
            store4(data + size_t(row) * width, column, width, wide, x, accumulate);
        } else if (column < width) {
            uint2* to = halves(row, column);
            if (accumulate) x = widen(*to, format) + x;
            *to = make_uint2(narrow(x.x, x.y, format), narrow(x.z, x.w, format));
        }
    }

    // A warp's row, of a matrix in 16 bits.
    template <int CHUNKS> __device__ __forceinline__ void put_row(int row, const Row<CHUNKS>& x) const {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) put(row, Row<CHUNKS>::column(c), x.chunk(c), false);
    }

  private:
    __device__ __forceinline__ uint2* halves(int row, int column) const {
        return reinterpret_cast<uint2*>(reinterpret_cast<unsigned short*>(data) + size_t(row) * width + column);
    }
};
