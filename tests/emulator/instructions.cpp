// Runs PTX: what each instruction does, and functions of instructions.
#include "ptx.h"
#include <cfenv>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace emulator::ptx {
namespace {
using u8 = uint8_t;
using s8 = int8_t;
using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;

template <class T> T get(const Frame& f, int cell) {
    T value;
    memcpy(&value, &f.registers[cell], sizeof value);
    return value;
}
template <> bool get<bool>(const Frame& f, int cell) { return f.registers[cell] != 0; }
template <class T> void set(Frame& f, int cell, T value) {
    if constexpr (std::is_same_v<T, bool>) f.registers[cell] = value;
    else if constexpr (std::is_integral_v<T>) f.registers[cell] = u64(s64(value)); // signs are kept
    else f.registers[cell] = 0, memcpy(&f.registers[cell], &value, sizeof value);
}

unsigned char* shared_pointer(u64 offset) { return device->shared + u32(offset); }
template <class T> bool is_aligned(const void* p, int count) { return reinterpret_cast<uintptr_t>(p) % (sizeof(T) * count) == 0; }

using std::string;
std::unordered_map<string, Run> table;

#define OPERATION [](Frame & f, const Instruction& i)
#define A get<T>(f, i.o[1])
#define B get<T>(f, i.o[2])
#define C get<T>(f, i.o[3])

float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
template <class T> T fma_down(T a, T b, T c) {
    int before = fegetround();
    fesetround(FE_DOWNWARD);
    volatile T x = a, y = b, z = c;
    volatile T r = std::fma(T(x), T(y), T(z));
    fesetround(before);
    return r;
}

template <class T> void integers(const string& type) {
    using U = std::make_unsigned_t<T>;
    table["add." + type] = OPERATION { set<T>(f, i.o[0], T(U(A) + U(B))); };
    table["sub." + type] = OPERATION { set<T>(f, i.o[0], T(U(A) - U(B))); };
    table["mul.lo." + type] = OPERATION { set<T>(f, i.o[0], T(u64(A) * u64(B))); };
    table["mad.lo." + type] = OPERATION { set<T>(f, i.o[0], T(u64(A) * u64(B) + u64(C))); };
    table["div." + type] = OPERATION { set<T>(f, i.o[0], T(A / B)); };
    table["rem." + type] = OPERATION { set<T>(f, i.o[0], T(A % B)); };
    table["min." + type] = OPERATION { set<T>(f, i.o[0], std::min(A, B)); };
    table["max." + type] = OPERATION { set<T>(f, i.o[0], std::max(A, B)); };
    table["neg." + type] = OPERATION { set<T>(f, i.o[0], T(0 - U(A))); };
    table["abs." + type] = OPERATION { set<T>(f, i.o[0], A < 0 ? T(0 - U(A)) : A); };
    table["shr." + type] = OPERATION {
        u32 by = get<u32>(f, i.o[2]), bits = 8 * sizeof(T);
        set<T>(f, i.o[0], by < bits ? T(A >> by) : A < 0 ? T(-1) : T(0));
    };
    if constexpr (sizeof(T) == 4) {
        table["mul.hi." + type] = OPERATION {
            if constexpr (std::is_signed_v<T>) set<T>(f, i.o[0], T(s64(A) * s64(B) >> 32));
            else set<T>(f, i.o[0], T(u64(A) * u64(B) >> 32));
        };
    }
    if constexpr (sizeof(T) <= 4) {
        using Signed = std::conditional_t<sizeof(T) == 4, s64, s32>;
        using Wide = std::conditional_t<std::is_signed_v<T>, Signed, std::make_unsigned_t<Signed>>;
        table["mul.wide." + type] = OPERATION { set<Wide>(f, i.o[0], Wide(A) * Wide(B)); };
        table["mad.wide." + type] = OPERATION { set<Wide>(f, i.o[0], Wide(A) * Wide(B) + get<Wide>(f, i.o[3])); };
    }
}
template <class T> void bits_of(const string& type) {
    table["and." + type] = OPERATION { set<T>(f, i.o[0], T(A & B)); };
    table["or." + type] = OPERATION { set<T>(f, i.o[0], T(A | B)); };
    table["xor." + type] = OPERATION { set<T>(f, i.o[0], T(A ^ B)); };
    table["not." + type] = OPERATION { set<T>(f, i.o[0], T(A ^ T(~u64(0)))); };
    if constexpr (!std::is_same_v<T, bool>) {
        table["shl." + type] = OPERATION {
            u32 by = get<u32>(f, i.o[2]);
            set<T>(f, i.o[0], by < 8 * sizeof(T) ? T(A << by) : T(0));
        };
        table["bfi." + type] = OPERATION { // the low `length` bits of a at `start` of b
            u32 start = get<u32>(f, i.o[3]) & 255, length = get<u32>(f, i.o[4]) & 255, all = 8 * sizeof(T);
            T into = B;
            for (u32 k = 0; k < length && start + k < all; k++) into = T((into & ~(T(1) << (start + k))) | (T(A >> k & 1) << (start + k)));
            set<T>(f, i.o[0], into);
        };
    }
}
template <class T> void floats(const string& type) {
    for (string rounding : {".", ".rn."}) {
        table["add" + rounding + type] = OPERATION { set<T>(f, i.o[0], A + B); };
        table["sub" + rounding + type] = OPERATION { set<T>(f, i.o[0], A - B); };
        table["mul" + rounding + type] = OPERATION { set<T>(f, i.o[0], A * B); };
    }
    table["fma.rn." + type] = OPERATION { set<T>(f, i.o[0], std::fma(A, B, C)); };
    table["fma.rm." + type] = OPERATION { set<T>(f, i.o[0], fma_down(A, B, C)); };
    table["div.rn." + type] = OPERATION { set<T>(f, i.o[0], A / B); };
    table["sqrt.rn." + type] = OPERATION { set<T>(f, i.o[0], std::sqrt(A)); };
    table["rcp.rn." + type] = OPERATION { set<T>(f, i.o[0], 1 / A); };
    table["min." + type] = OPERATION { set<T>(f, i.o[0], std::fmin(A, B)); };
    table["max." + type] = OPERATION { set<T>(f, i.o[0], std::fmax(A, B)); };
    table["abs." + type] = OPERATION { set<T>(f, i.o[0], std::fabs(A)); };
    table["neg." + type] = OPERATION { set<T>(f, i.o[0], -A); };
    table["copysign." + type] = OPERATION { set<T>(f, i.o[0], std::copysign(B, A)); };
}

template <class T> void comparisons(const string& type) {
#define COMPARE(name, result) table["setp." name "." + type] = OPERATION { T a = A, b = B; set<bool>(f, i.o[0], result); };
    COMPARE("eq", a == b)
    COMPARE("ne", a != b && a == a && b == b)
    COMPARE("lt", a < b)
    COMPARE("le", a <= b)
    COMPARE("gt", a > b)
    COMPARE("ge", a >= b)
    if constexpr (std::is_floating_point_v<T>) {
        COMPARE("equ", !(a < b || a > b))
        COMPARE("neu", a != b)
        COMPARE("ltu", !(a >= b))
        COMPARE("leu", !(a > b))
        COMPARE("gtu", !(a <= b))
        COMPARE("geu", !(a < b))
        COMPARE("nan", a != a || b != b)
        COMPARE("num", a == a && b == b)
    }
}
template <class T> void choices(const string& type) {
    table["selp." + type] = OPERATION { set<T>(f, i.o[0], get<bool>(f, i.o[3]) ? A : B); };
    table["mov." + type] = OPERATION { set<T>(f, i.o[0], A); };
}

template <class To, class From> To convert(From x) {
    if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) { // saturates, what is no number is 0
        if (!(x == x)) return 0;
        if (x <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
        if (x >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    }
    return To(x);
}
template <class To, class From> void conversions(const string& to, const string& from) {
#define CONVERT(how, x)                                                                                            \
    table["cvt" how "." + to + "." + from] = OPERATION {                                                           \
        From a = get<From>(f, i.o[1]);                                                                             \
        set<To>(f, i.o[0], convert<To, From>(x));                                                                  \
    };
    if constexpr (std::is_floating_point_v<From>) {
        CONVERT(".rni", std::nearbyint(a))
        CONVERT(".rzi", std::trunc(a))
        CONVERT(".rmi", std::floor(a))
        CONVERT(".rpi", std::ceil(a))
        CONVERT(".sat", std::isnan(a) ? 0 : std::fmin(std::fmax(a, From(0)), From(1)))
    }
    CONVERT("", a)
    CONVERT(".rn", a)
}
template <class To> void conversions_to(const string& to) {
    conversions<To, u8>(to, "u8"), conversions<To, s8>(to, "s8"), conversions<To, u16>(to, "u16"), conversions<To, s16>(to, "s16");
    conversions<To, u32>(to, "u32"), conversions<To, s32>(to, "s32"), conversions<To, u64>(to, "u64"), conversions<To, s64>(to, "s64");
    conversions<To, float>(to, "f32"), conversions<To, double>(to, "f64");
}

// The last operand of a load, and the first of a store, is the address.
template <class T, int COUNT, bool SHARED> void load(Frame& f, const Instruction& i) {
    u64 address = get<u64>(f, i.o[COUNT]) + u64(i.offset);
    const void* p = SHARED ? shared_pointer(address) : reinterpret_cast<void*>(address);
    if (!is_aligned<T>(p, COUNT)) fail("%s:%d: a load of %d bytes from %p", i.site.file, i.site.line, int(sizeof(T) * COUNT), p);
    for (int k = 0; k < COUNT; k++) set<T>(f, i.o[k], static_cast<const T*>(p)[k]);
}
template <class T, int COUNT, bool SHARED> void store(Frame& f, const Instruction& i) {
    u64 address = get<u64>(f, i.o[0]) + u64(i.offset);
    void* p = SHARED ? shared_pointer(address) : reinterpret_cast<void*>(address);
    if (!is_aligned<T>(p, COUNT)) fail("%s:%d: a store of %d bytes to %p", i.site.file, i.site.line, int(sizeof(T) * COUNT), p);
    for (int k = 0; k < COUNT; k++) static_cast<T*>(p)[k] = get<T>(f, i.o[1 + k]);
}
template <class T> void accesses(const string& type) {
    for (string space : {"", ".global", ".volatile.global", ".local", ".param"}) {
        table["ld" + space + "." + type] = load<T, 1, false>, table["st" + space + "." + type] = store<T, 1, false>;
        table["ld" + space + ".v2." + type] = load<T, 2, false>, table["st" + space + ".v2." + type] = store<T, 2, false>;
        table["ld" + space + ".v4." + type] = load<T, 4, false>, table["st" + space + ".v4." + type] = store<T, 4, false>;
    }
    table["ld.shared." + type] = load<T, 1, true>, table["st.shared." + type] = store<T, 1, true>;
    table["ld.shared.v2." + type] = load<T, 2, true>, table["st.shared.v2." + type] = store<T, 2, true>;
    table["ld.shared.v4." + type] = load<T, 4, true>, table["st.shared.v4." + type] = store<T, 4, true>;
}

enum Shuffle { Up, Down, Butterfly, Index };
template <Shuffle KIND> void exchange(Frame& f, const Instruction& i) { // d|p, a, b, c, mask
    int lane = int(thread->lane), b = int(get<u32>(f, i.o[3]) & 31), c = get<u32>(f, i.o[4]), segment = c >> 8 & 31, clamp = c & 31;
    int highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
    int from = KIND == Up ? lane - b : KIND == Down ? lane + b : KIND == Butterfly ? lane ^ b : lowest | (b & ~segment);
    bool inside = KIND == Up ? from >= highest : from <= highest;
    u64 value = shuffle(get<u32>(f, i.o[5]), get<u32>(f, i.o[2]), unsigned(inside ? from : lane), "shfl.sync", i.site);
    set<u32>(f, i.o[0], u32(value)), set<bool>(f, i.o[1], inside);
}

template <void (*PRODUCT)(float*, const unsigned*, const unsigned*, Site)> void multiply(Frame& f, const Instruction& i) {
    float d[4];
    unsigned a[4], b[2];
    for (int k = 0; k < 4; k++) a[k] = get<u32>(f, i.o[4 + k]), d[k] = get<float>(f, i.o[10 + k]);
    for (int k = 0; k < 2; k++) b[k] = get<u32>(f, i.o[8 + k]);
    PRODUCT(d, a, b, i.site);
    for (int k = 0; k < 4; k++) set<float>(f, i.o[k], d[k]);
}
template <bool TRANSPOSED> void load_matrices(Frame& f, const Instruction& i) {
    unsigned result[4];
    ldmatrix(result, shared_pointer(get<u64>(f, i.o[4]) + u64(i.offset)), TRANSPOSED, i.site);
    for (int k = 0; k < 4; k++) set<u32>(f, i.o[k], result[k]);
}

// A register of two, and two of one.
template <class T, class Half> void pairs(const string& type) {
    constexpr int HALF = 8 * sizeof(Half);
    table["mov." + type + " pack"] = OPERATION { set<T>(f, i.o[0], T(T(get<Half>(f, i.o[1])) | T(get<Half>(f, i.o[2])) << HALF)); };
    table["mov." + type + " unpack"] = OPERATION {
        T x = get<T>(f, i.o[2]);
        set<Half>(f, i.o[0], Half(x)), set<Half>(f, i.o[1], Half(x >> HALF));
    };
}

enum Vote { Ballot, Any, All };
template <Vote KIND> void vote(Frame& f, const Instruction& i) { // d, p, mask
    unsigned votes = ballot(get<u32>(f, i.o[2]), get<bool>(f, i.o[1]) != (KIND == All), "vote.sync", i.site);
    if (KIND == Ballot) set<u32>(f, i.o[0], votes);
    else set<bool>(f, i.o[0], (votes != 0) == (KIND == Any));
}

void call(Frame& f, const Instruction& i) { run(*i.called, reinterpret_cast<const void*>(get<u64>(f, i.o[0]))); }

void fill_table() {
    integers<u16>("u16"), integers<s16>("s16"), integers<u32>("u32"), integers<s32>("s32"), integers<u64>("u64"), integers<s64>("s64");
    bits_of<bool>("pred"), bits_of<u16>("b16"), bits_of<u32>("b32"), bits_of<u64>("b64");
    floats<float>("f32"), floats<double>("f64");
#define EACH(what)                                                                                                 \
    what<u16>("u16"), what<s16>("s16"), what<u16>("b16"), what<u32>("u32"), what<s32>("s32"), what<u32>("b32");    \
    what<u64>("u64"), what<s64>("s64"), what<u64>("b64"), what<float>("f32"), what<double>("f64");
    EACH(comparisons)
    EACH(choices)
    EACH(accesses)
    accesses<u8>("u8"), accesses<s8>("s8"), accesses<u8>("b8"), choices<bool>("pred");
    conversions_to<u8>("u8"), conversions_to<s8>("s8"), conversions_to<u16>("u16"), conversions_to<s16>("s16"), conversions_to<u32>("u32");
    conversions_to<s32>("s32"), conversions_to<u64>("u64"), conversions_to<s64>("s64"), conversions_to<float>("f32"), conversions_to<double>("f64");

    table["rcp.approx.ftz.f32"] = OPERATION { set<float>(f, i.o[0], flush(1 / flush(get<float>(f, i.o[1])))); };
    table["rcp.approx.ftz.f64"] = OPERATION { set<u64>(f, i.o[0], bits<u64>(1 / get<double>(f, i.o[1])) & ~u64(0xffffffffu)); };
    table["rsqrt.approx.ftz.f32"] = OPERATION { set<float>(f, i.o[0], flush(1 / std::sqrt(flush(get<float>(f, i.o[1]))))); };
    table["ex2.approx.ftz.f32"] = OPERATION { set<float>(f, i.o[0], flush(exp2f(flush(get<float>(f, i.o[1]))))); };
    table["brev.b32"] = OPERATION {
        u32 x = get<u32>(f, i.o[1]), reversed = 0;
        for (int k = 0; k < 32; k++) reversed |= (x >> k & 1) << (31 - k);
        set<u32>(f, i.o[0], reversed);
    };
    table["bfind.shiftamt.u32"] = OPERATION { u32 x = get<u32>(f, i.o[1]); set<u32>(f, i.o[0], x ? u32(__builtin_clz(x)) : ~0u); };
    table["cvt.rna.tf32.f32"] = OPERATION { set<u32>(f, i.o[0], to_tf32(get<float>(f, i.o[1]))); };
    table["cvt.rn.bf16x2.f32"] = OPERATION { set<u32>(f, i.o[0], pack_bf16(get<float>(f, i.o[2]), get<float>(f, i.o[1]))); };
    table["cvt.rn.f16x2.f32"] = OPERATION { set<u32>(f, i.o[0], pack_f16(get<float>(f, i.o[2]), get<float>(f, i.o[1]))); };
    table["cvt.f32.f16"] = OPERATION { set<float>(f, i.o[0], unpack_f16(get<u16>(f, i.o[1])).x); };
    pairs<u32, u16>("b32"), pairs<u64, u32>("b64");
    // Other spaces have the host's addresses.
    for (string same : {"cvta.global.u64", "cvta.to.global.u64", "cvta.local.u64", "cvta.to.local.u64", "cvta.param.u64"})
        table[same] = OPERATION { set<u64>(f, i.o[0], get<u64>(f, i.o[1])); };
    table["cvta.shared.u64"] = OPERATION { set<u64>(f, i.o[0], u64(shared_pointer(get<u64>(f, i.o[1])))); };
    table["cvta.to.shared.u64"] = OPERATION { set<u64>(f, i.o[0], get<u64>(f, i.o[1]) - u64(device->shared)); };

    table["bra"] = table["bra.uni"] = OPERATION { f.next = size_t(i.offset); };
    table["ret"] = OPERATION { f.next = SIZE_MAX; };
    table["call.uni"] = call;
    table["bar.sync"] = OPERATION { barrier(i.site); };
    table["bar.warp.sync"] = OPERATION { ballot(get<u32>(f, i.o[0]), true, "__syncwarp", i.site); };
    table["vote.sync.ballot.b32"] = vote<Ballot>, table["vote.sync.any.pred"] = vote<Any>, table["vote.sync.all.pred"] = vote<All>;
    table["shfl.sync.up.b32"] = exchange<Up>, table["shfl.sync.down.b32"] = exchange<Down>;
    table["shfl.sync.bfly.b32"] = exchange<Butterfly>, table["shfl.sync.idx.b32"] = exchange<Index>;
    table["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"] = multiply<mma_tf32>;
    table["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = multiply<mma_bf16>;
    table["mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"] = multiply<mma_f16>;
    table["ldmatrix.sync.aligned.m8n8.x4.shared.b16"] = load_matrices<false>;
    table["ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"] = load_matrices<true>;
    table["cp.async.cg.shared.global"] = table["cp.async.ca.shared.global"] = OPERATION { // [to], [from], bytes, valid bytes
        void* to = shared_pointer(get<u64>(f, i.o[0]) + u64(i.offset));
        void* from = reinterpret_cast<void*>(get<u64>(f, i.o[1]) + u64(i.offset2));
        cp_async(to, from, get<u32>(f, i.o[2]), get<u32>(f, i.o[3]), i.site);
    };
    table["cp.async.commit_group"] = OPERATION { (void)f, (void)i, cp_async_commit(); };
    table["cp.async.wait_group"] = OPERATION { cp_async_wait(get<u32>(f, i.o[0])); };
}
} // namespace

Run find(const string& name) {
    if (table.empty()) fill_table();
    auto found = table.find(name);
    return found == table.end() ? nullptr : found->second;
}

void run(const Function& function, const void* parameters) {
    auto& frames = device->current().frames;
    size_t depth = device->current().depth++, cells = size_t(function.cells) + (function.local + function.calls) / 8 + 2;
    if (depth >= frames.size()) frames.resize(depth + 1);
    if (frames[depth].size() < cells) frames[depth].resize(cells);
    Frame f{frames[depth].data(), 0};
    unsigned char* calls = reinterpret_cast<unsigned char*>(f.registers + function.cells);
    calls += reinterpret_cast<uintptr_t>(calls) % 16; // cells are of 8 bytes
    unsigned char* local = calls + function.calls;
    const uint3 values[] = {thread->index, block.index, block.size, block.grid};
    for (const Initial& initial : function.initial) {
        u64& cell = f.registers[initial.cell];
        switch (initial.what) {
        case Special::Constant: cell = initial.value; break;
        case Special::Parameters: cell = u64(parameters) + initial.value; break;
        case Special::Calls: cell = u64(calls) + initial.value; break;
        case Special::Local: cell = u64(local) + initial.value; break;
        default:
            int which = int(initial.what) - int(Special::ThreadX);
            const uint3& value = values[which / 3];
            cell = which % 3 == 0 ? value.x : which % 3 == 1 ? value.y : value.z;
        }
    }
    const Instruction* code = function.code.data();
    size_t end = function.code.size();
    while (f.next < end) {
        const Instruction& i = code[f.next++];
        if (i.guard >= 0 && (f.registers[i.guard] != 0) != i.guarded_by) continue;
        device->current().site = i.site;
        i.run(f, i);
    }
    device->current().depth--;
}
} // namespace emulator::ptx
