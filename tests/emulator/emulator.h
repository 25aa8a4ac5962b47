// CUDA C++ for the host's compiler: what kernels/*.cu use of the language, as macros, types and functions.
//
// A kernel's threads are fibers of one operating-system thread. They meet at barriers and warp collectives exactly where
// the threads of a GPU would; the blocks of a launch run one after another. runtime.h has what happens behind this header.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// The thread-local memory of a kernel file is its shared memory and nothing else: found and filled with NaN before each block.
#define __shared__ static thread_local

// Vector types, aligned as on the device.
struct uint3 { unsigned x, y, z; };
struct int3 { int x, y, z; };
struct float3 { float x, y, z; };
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(8) int2 { int x, y; };
struct __align__(8) float2 { float x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(16) int4 { int x, y, z, w; };
struct __align__(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {
#define EMULATOR_PER_THREAD extern __attribute__((tls_model("initial-exec"))) __thread

// A place in a kernel file, for messages.
struct Site {
    const char* file;
    int line;
};
inline constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

struct Thread {
    uint3 index;
    unsigned lane;
};
struct Block {
    uint3 index, size, grid;
    unsigned char* shared; // dynamic shared memory
};
EMULATOR_PER_THREAD Thread* thread; // the fiber that runs
EMULATOR_PER_THREAD Block block;

// Compiled by the host's compiler, by it with the checker's hooks, or by NVIDIA's and read from PTX.
enum class Kind { Plain, Checked, Compiled };

// A kernel of a loaded file. `run` calls it with a pointer to its arguments; `anchor` gives an address in its static shared memory.
struct Kernel {
    const char* name;
    size_t bytes;
    Kind kind;
    void (*run)(const void* arguments);
    void* (*anchor)();
    const Kernel* next;
    Kernel(const char* name, size_t bytes, Kind kind, void (*run)(const void*), void* (*anchor)());
};

void barrier(Site site);
// Value of lane `source`, which must be in the mask and alive.
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char* what, Site site);
unsigned ballot(unsigned mask, bool predicate, const char* what, Site site);

void mma_bf16(float* d, const unsigned* a, const unsigned* b, Site site);
void mma_f16(float* d, const unsigned* a, const unsigned* b, Site site);
void mma_tf32(float* d, const unsigned* a, const unsigned* b, Site site);
void ldmatrix(unsigned* result, const void* row, bool transposed, Site site); // 4 matrices
// The last `bytes - valid` bytes become zero.
void cp_async(void* to, const void* from, unsigned bytes, unsigned valid, Site site);
void cp_async_commit();
void cp_async_wait(unsigned pending);
} // namespace emulator

#define threadIdx (emulator::thread->index)
#define blockIdx (emulator::block.index)
#define blockDim (emulator::block.size)
#define gridDim (emulator::block.grid)
#define __syncthreads() emulator::barrier(emulator::here())

#ifndef EMULATOR_CHECKED // whether the file is compiled with the checker's hooks
#define EMULATOR_CHECKED Plain
#endif
#define SHARED(Type, name) Type* name = reinterpret_cast<Type*>(emulator::block.shared)
#define KERNEL(name, Arguments)                                                                                    \
    static const emulator::Kernel kernel_##name{                                                                   \
        #name, sizeof(Arguments), emulator::Kind::EMULATOR_CHECKED,                                                \
        [](const void* arguments) { name(*static_cast<const Arguments*>(arguments)); },                            \
        []() -> void* {                                                                                            \
            static thread_local char anchor;                                                                       \
            return &anchor;                                                                                        \
        }};

// Warp collectives.
inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Site site = emulator::here()) {
    emulator::ballot(mask, true, "__syncwarp", site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::here()) {
    return emulator::ballot(mask, predicate, "__ballot_sync", site);
}
inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::here()) {
    return emulator::ballot(mask, predicate, "__any_sync", site) != 0;
}
namespace emulator {
template <class T> inline T shuffle_value(unsigned mask, T value, unsigned source, const char* what, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles carry 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(mask, bits, source, what, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}
// `source` if there is such a lane, else this one.
inline unsigned lane_or_own(int source) { return unsigned(source >= 0 && source < 32 ? source : int(thread->lane)); }
} // namespace emulator
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, emulator::Site site = emulator::here()) {
    return emulator::shuffle_value(mask, value, unsigned(source & 31), "__shfl_sync", site);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, emulator::Site site = emulator::here()) {
    return emulator::shuffle_value(mask, value, emulator::lane_or_own(int(emulator::thread->lane) ^ bits), "__shfl_xor_sync", site);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, emulator::Site site = emulator::here()) {
    return emulator::shuffle_value(mask, value, emulator::lane_or_own(int(emulator::thread->lane + by)), "__shfl_down_sync", site);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, emulator::Site site = emulator::here()) {
    return emulator::shuffle_value(mask, value, emulator::lane_or_own(int(emulator::thread->lane) - int(by)), "__shfl_up_sync", site);
}

// Arithmetic that CUDA has in the global namespace.
using std::isfinite;
using std::isinf;
using std::isnan;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline void sincospif(float x, float* sine, float* cosine) {
    double angle = 3.14159265358979323846 * double(x - 2 * rintf(x / 2));
    *sine = float(std::sin(angle)), *cosine = float(std::cos(angle));
}
namespace emulator {
template <class To, class From> inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace emulator
inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Loads with hints for the caches.
template <class T> inline T __ldg(const T* address) { return *address; }
template <class T> inline T __ldcs(const T* address) { return *address; }
template <class T> inline T __ldcg(const T* address) { return *address; }

// kernels/mma.cuh on the host.
inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], emulator::Site site = emulator::here()) {
    emulator::mma_bf16(d, a, b, site);
}
inline void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], emulator::Site site = emulator::here()) {
    emulator::mma_f16(d, a, b, site);
}
inline void forget(int&) {}
inline float* held(float* shared) { return shared; }
inline float reciprocal(float x) { return 1 / x; }
inline float reciprocal_root(float x) { return 1 / sqrtf(x); }
inline float power_of_2(float x) { return exp2f(x); }
inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], emulator::Site site = emulator::here()) {
    emulator::mma_tf32(d, a, b, site);
}
inline void ldmatrix_x4(unsigned (&r)[4], const void* row, emulator::Site site = emulator::here()) { emulator::ldmatrix(r, row, false, site); }
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row, emulator::Site site = emulator::here()) { emulator::ldmatrix(r, row, true, site); }
inline void cp_async16(void* to, const void* from, bool valid = true, emulator::Site site = emulator::here()) {
    emulator::cp_async(to, from, 16, valid ? 16 : 0, site);
}
inline void cp_async16_near(void* to, const void* from, bool valid, emulator::Site site = emulator::here()) {
    emulator::cp_async(to, from, 16, valid ? 16 : 0, site);
}
inline void cp_async8(void* to, const void* from, bool valid = true, emulator::Site site = emulator::here()) {
    emulator::cp_async(to, from, 8, valid ? 8 : 0, site);
}
inline void cp_async4(void* to, const void* from, bool valid = true, emulator::Site site = emulator::here()) {
    emulator::cp_async(to, from, 4, valid ? 4 : 0, site);
}
inline void cp_async_commit() { emulator::cp_async_commit(); }
template <int PENDING> inline void cp_async_wait() { emulator::cp_async_wait(PENDING); }
// To the nearest of 10 bits of mantissa, ties away from zero.
inline unsigned to_tf32(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
    return bits & 0xffffe000u;
}
// Two bfloat16, each to nearest even; NaN stays NaN.
inline unsigned pack_bf16(float low, float high) {
    auto round = [](float x) {
        unsigned bits = __float_as_uint(x);
        return isnan(x) ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}
// Two f16, each to nearest even: infinite from 65520 on, NaN stays NaN.
inline unsigned pack_f16(float low, float high) {
    auto round = [](float x) {
        unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
        if (isnan(x)) return 0x7fffu;
        if (size >= __float_as_uint(65520)) return sign | 0x7c00u;
        // Below the smallest normal number, the sum with 1/2 has as many bits as are there.
        if (size < __float_as_uint(0x1p-14f)) return sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - __float_as_uint(0.5f));
        return sign | (size - (112u << 23) + 0xfffu + (size >> 13 & 1)) >> 13;
    };
    return round(low) | round(high) << 16;
}
// Two f16 as f32.
inline float2 unpack_f16(unsigned bits) {
    auto one = [](unsigned bits) {
        float size = __uint_as_float((bits & 0x7fffu) << 13) * 0x1p112f;
        if ((bits & 0x7c00u) == 0x7c00u) size = bits & 0x3ffu ? NAN : INFINITY;
        return bits & 0x8000u ? -size : size;
    };
    return make_float2(one(bits), one(bits >> 16));
}
