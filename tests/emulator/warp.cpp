// What the lanes of a warp do together, and asynchronous copies.
#include "runtime.h"
#include <algorithm>
#include <cmath>

namespace emulator {
// Waits for the lanes of the mask that have not ended; true in the lane that comes last, which then releases the others.
static bool arrive(unsigned mask, const char* what, Site site, bool all) {
    Fiber& me = device->current();
    Warp& warp = *me.warp;
    unsigned lane = 1u << me.lane;
    me.site = site;
    if (!(mask & lane)) fail("%s (%s:%d): the mask %08x omits the lane that calls", what, base_name(site.file), site.line, mask);
    if (all && warp.alive != FULL) fail("%s (%s:%d): not all lanes of the warp are there", what, base_name(site.file), site.line);
    if (!warp.arrived) {
        warp.what = what, warp.mask = mask, warp.site = site, warp.all = all;
    } else if (warp.what != what || warp.mask != mask || (all && (warp.site.line != site.line || strcmp(warp.site.file, site.file) != 0))) {
        fail("lanes of a warp meet at different collectives: %s (%s:%d, mask %08x) and %s (%s:%d, mask %08x)", warp.what, base_name(warp.site.file),
             warp.site.line, warp.mask, what, base_name(site.file), site.line, mask);
    }
    warp.arrived |= lane;
    return warp.arrived == (mask & warp.alive);
}
static void wait() {
    Fiber& me = device->current();
    me.state = State::Collective, me.wait = me.warp->generation;
    to_next();
}
static void meet(unsigned mask, const char* what, Site site, bool all = false) {
    if (arrive(mask, what, site, all)) release(*device->current().warp);
    else wait();
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char* what, Site site) {
    Fiber& me = device->current();
    Warp& warp = *me.warp;
    unsigned parity = warp.generation & 1;
    source %= WARP;
    if (!(mask >> source & warp.alive >> source & 1))
        fail("%s (%s:%d): reads lane %u, which is not in the mask or has ended", what, base_name(site.file), site.line, source);
    warp.values[parity][me.lane] = value;
    meet(mask, what, site);
    return warp.values[parity][source];
}

unsigned ballot(unsigned mask, bool predicate, const char* what, Site site) {
    Fiber& me = device->current();
    Warp& warp = *me.warp;
    unsigned parity = warp.generation & 1, result = 0;
    uint64_t* values = warp.values[parity];
    if (!warp.arrived) std::fill(values, values + WARP, 0); // lanes that have ended do not vote
    values[me.lane] = predicate;
    meet(mask, what, site);
    for (unsigned i = 0; i < WARP; i++) result |= unsigned(values[i] & mask >> i & 1) << i;
    return result;
}

// ------------------------------------------------------------------------------------------------- tensor products

// c (8) += a (K) B (K x 8) as tensor cores do it: products are exact, all terms of a sum are cut off behind the bits of the largest and added
// exactly, and the sum is cut off to 24 bits (Fasi, Higham, Mikaitis & Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021; Khattak &
// Mikaitis, "Accurate models of NVIDIA tensor cores", 2025). How many bits more than 24 a term keeps, and of how many terms a sum is, differs from
// architecture to architecture: here one, and all of an instruction.
template <int K> static void add_products(float (&c)[8], const float (&a)[K], const float (&B)[K][8]) {
    auto size = [](float x) { return bits<unsigned>(x) & 0x7fffffffu; }; // in the order of numbers, what is none behind them
    alignas(32) float terms[K + 1][8]; // products have no more than 22 bits
    unsigned largest[8];
    for (int n = 0; n < 8; n++) terms[K][n] = c[n], largest[n] = std::max(size(c[n]), size(0x1p-100f));
    for (int k = 0; k < K; k++)
        for (int n = 0; n < 8; n++) terms[k][n] = a[k] * B[k][n], largest[n] = std::max(largest[n], size(terms[k][n]));
    bool plain = true; // numbers, and not too large
    for (int n = 0; n < 8; n++) plain &= largest[n] <= size(0x1p120f);
    if (!plain) {
        for (int k = 0; k < K; k++)
            for (int n = 0; n < 8; n++) c[n] += a[k] * B[k][n];
        return;
    }
    float unit[8], inverse[8];
    int sums[8] = {};
    for (int n = 0; n < 8; n++) {
        unsigned of_unit = (largest[n] & 0x7f800000u) - (24u << 23);
        unit[n] = bits<float>(of_unit), inverse[n] = bits<float>((254u << 23) - of_unit);
    }
    for (int k = 0; k <= K; k++)
        for (int n = 0; n < 8; n++) sums[n] += int(terms[k][n] * inverse[n]);
    for (int n = 0; n < 8; n++) {
        float rounded = float(sums[n]);
        int away = std::abs(int(rounded)) > std::abs(sums[n]);
        c[n] = bits<float>(bits<int>(rounded) - away) * unit[n];
    }
}

// C (16 x 8) += A (16 x K) B (K x 8), the last lane for all; `unpack` fills A and B from the fragments of one lane.
template <int K, class Unpack> static void multiply(float* d, const unsigned* a, const unsigned* b, const char* what, Site site, Unpack unpack) {
    Fiber& me = device->current();
    Warp& warp = *me.warp;
    memcpy(warp.sums[me.lane], d, 16), memcpy(warp.a[me.lane], a, 16), memcpy(warp.b[me.lane], b, 8);
    if (arrive(FULL, what, site, true)) {
        alignas(32) float A[16][K], B[K][8], C[16][8];
        for (int lane = 0; lane < int(WARP); lane++) {
            int g = lane / 4, t = lane % 4;
            unpack(A, B, warp.a[lane], warp.b[lane], g, t);
            for (int i = 0; i < 4; i++) C[g + i / 2 * 8][2 * t + i % 2] = warp.sums[lane][i];
        }
        for (int m = 0; m < 16; m++) add_products<K>(C[m], A[m], B);
        for (int lane = 0; lane < int(WARP); lane++)
            for (int i = 0; i < 4; i++) warp.sums[lane][i] = C[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
        release(warp);
    } else {
        wait();
    }
    memcpy(d, warp.sums[me.lane], 16);
}

// `low` and `high`: a register's two numbers.
template <class Low, class High>
static void multiply_pairs(float* d, const unsigned* a, const unsigned* b, const char* what, Site site, Low low, High high) {
    auto unpack = [=](float (&A)[16][16], float (&B)[16][8], const unsigned* a, const unsigned* b, int g, int t) {
        for (int i = 0; i < 4; i++) {
            int row = g + i % 2 * 8, column = 2 * t + i / 2 * 8;
            A[row][column] = low(a[i]), A[row][column + 1] = high(a[i]);
        }
        for (int i = 0; i < 2; i++) B[2 * t + 8 * i][g] = low(b[i]), B[2 * t + 8 * i + 1][g] = high(b[i]);
    };
    multiply<16>(d, a, b, what, site, unpack);
}
void mma_bf16(float* d, const unsigned* a, const unsigned* b, Site site) {
    multiply_pairs(d, a, b, "mma.m16n8k16.bf16", site, [](unsigned x) { return __uint_as_float(x << 16); },
                   [](unsigned x) { return __uint_as_float(x & 0xffff0000u); });
}
void mma_f16(float* d, const unsigned* a, const unsigned* b, Site site) {
    multiply_pairs(d, a, b, "mma.m16n8k16.f16", site, [](unsigned x) { return unpack_f16(x).x; }, [](unsigned x) { return unpack_f16(x).y; });
}

void mma_tf32(float* d, const unsigned* a, const unsigned* b, Site site) {
    auto unpack = [](float (&A)[16][8], float (&B)[8][8], const unsigned* a, const unsigned* b, int g, int t) {
        auto value = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000u); };
        for (int i = 0; i < 4; i++) A[g + i % 2 * 8][t + i / 2 * 4] = value(a[i]);
        for (int i = 0; i < 2; i++) B[t + 4 * i][g] = value(b[i]);
    };
    multiply<8>(d, a, b, "mma.m16n8k8", site, unpack);
}

void ldmatrix(unsigned* result, const void* row, bool transposed, Site site) {
    const void* place = __builtin_return_address(0);
    Fiber& me = device->current();
    Warp& warp = *me.warp;
    unsigned parity = warp.generation & 1;
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0 || !device->is_shared(row, 16))
        fail("ldmatrix (%s:%d): the row at %p is not 16 aligned bytes of shared memory", base_name(site.file), site.line, row);
    warp.rows[parity][me.lane] = row;
    meet(FULL, "ldmatrix", site, true);
    for (unsigned i = 0; i < 4; i++) {
        auto rows = reinterpret_cast<const uint16_t* const*>(warp.rows[parity]) + 8 * i;
        unsigned g = me.lane / 4, t = me.lane % 4;
        const uint16_t *low = transposed ? rows[2 * t] + g : rows[g] + 2 * t, *high = transposed ? rows[2 * t + 1] + g : low + 1;
        check_here(low, 2, Access::Read, place), check_here(high, 2, Access::Read, place);
        result[i] = unsigned(*low) | unsigned(*high) << 16;
    }
}

// ----------------------------------------------------------------------------------------------- asynchronous copies
// A copy may happen any time between its issue and its wait. Late, a missing wait reads what was there before; early, a buffer
// that others still read is overwritten. The checker sees it at both ends.
static void perform(const Copy& copy) {
    memcpy(copy.to, copy.from, copy.valid);
    memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

void cp_async(void* to, const void* from, unsigned bytes, unsigned valid, Site site) {
    const void* place = __builtin_return_address(0);
    Fiber& me = device->current();
    if (reinterpret_cast<uintptr_t>(to) % bytes || !device->is_shared(to, bytes))
        fail("cp.async (%s:%d): the target at %p is not %u aligned bytes of shared memory", base_name(site.file), site.line, to, bytes);
    if (reinterpret_cast<uintptr_t>(from) % bytes || (valid && !device->is_global(from, valid)))
        fail("cp.async (%s:%d): the source at %p is not %u aligned bytes of global memory", base_name(site.file), site.line, from, bytes);
    bool early = device->schedule == Schedule::EarlyCopies || (device->schedule == Schedule::Random && random(*device) & 1);
    me.copies.push_back({to, from, bytes, valid, me.group, early});
    check_here(to, bytes, Access::Begin, place);
    if (early) perform(me.copies.back());
}
void cp_async_commit() { device->current().group++; }
void cp_async_wait(unsigned pending) {
    const void* place = __builtin_return_address(0);
    Fiber& me = device->current();
    auto over = [&](const Copy& copy) {
        if (copy.group + pending >= me.group) return false;
        check_here(copy.from, copy.valid, Access::Read, place), check_here(copy.to, copy.bytes, Access::Write, place);
        if (!copy.done) perform(copy);
        return true;
    };
    me.copies.erase(std::remove_if(me.copies.begin(), me.copies.end(), over), me.copies.end());
}
} // namespace emulator
