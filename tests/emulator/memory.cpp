// The device's memory, and the C interface that the tests load.
#include "runtime.h"
#include <algorithm>
#include <dlfcn.h>
#include <sys/mman.h>

namespace emulator {
constexpr size_t ARENA = size_t(4) << 30, PAGE = 4096, SHARED = STATIC_SHARED + MAXIMAL_STATIC + PAGE; // address space, not memory

Device::Device(Kind kind) : kind(kind) {
    void* memory = mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void* shared_memory = mmap(nullptr, SHARED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || shared_memory == MAP_FAILED) {
        error = "no address space for the device's memory";
        return;
    }
    arena = top = static_cast<unsigned char*>(memory);
    shared = static_cast<unsigned char*>(shared_memory);
    if (kind == Kind::Checked && !(checker = make_checker(*this, ARENA))) error = "no address space for the checker";
}
Device::~Device() {
    if (arena) munmap(arena, ARENA);
    if (shared) munmap(shared, SHARED);
    if (stacks) munmap(stacks, size_t(MAXIMAL_THREADS) * (128 << 10));
}

bool Device::is_shared(const void* address, size_t bytes) const {
    auto p = static_cast<const unsigned char*>(address);
    return (p >= shared && p + bytes <= shared + shared_bytes) || (p >= static_shared && p + bytes <= static_shared + static_bytes);
}
bool Device::is_global(const void* address, size_t bytes) const {
    auto p = static_cast<unsigned char*>(const_cast<void*>(address));
    auto found = allocations.upper_bound(p);
    return found != allocations.begin() && (--found, p + bytes <= found->first + found->second);
}

// Pages of its own, one without access behind; addresses are not used again.
void* allocate(Device& d, size_t bytes) {
    size_t pages = (std::max<size_t>(bytes, 1) + PAGE - 1) / PAGE * PAGE;
    if (pages + PAGE > size_t(d.arena + ARENA - d.top) || mprotect(d.top, pages, PROT_READ | PROT_WRITE) != 0) {
        d.error = "no memory for " + std::to_string(bytes) + " bytes";
        return nullptr;
    }
    unsigned char* address = d.top;
    d.top += pages + PAGE;
    d.allocations[address] = bytes;
    memset(address, POISON, bytes);
    return address;
}
bool free(Device& d, void* address) {
    auto found = d.allocations.find(static_cast<unsigned char*>(address));
    if (found == d.allocations.end()) {
        d.error = "free of an address that was not allocated";
        return false;
    }
    size_t pages = (std::max<size_t>(found->second, 1) + PAGE - 1) / PAGE * PAGE;
    madvise(address, pages, MADV_DONTNEED);
    mprotect(address, pages, PROT_NONE);
    d.allocations.erase(found);
    return true;
}

uint64_t random(Device& d) { // xorshift
    d.random ^= d.random << 13, d.random ^= d.random >> 7, d.random ^= d.random << 17;
    return d.random;
}
} // namespace emulator

// Functions that give int give 0 if all went well; `emulator_error` says what did not.
using emulator::Device;
extern "C" {
// Null: there is no address space.
Device* emulator_create(int kind) {
    auto device = std::make_unique<Device>(static_cast<emulator::Kind>(kind));
    return device->error.empty() ? device.release() : nullptr;
}
void emulator_destroy(Device* device) { delete device; }
const char* emulator_error(const Device* device) { return device->error.c_str(); }
// Loads kernels as NVIDIA's compiler made them, from PTX. An empty text, or why they cannot be had; valid until the next call.
const char* emulator_load_compiled(const char* path) {
    static thread_local std::string text;
    text = emulator::load_compiled(path);
    return text.c_str();
}
// 0 forward, 1 reverse, 2 forward with early copies, 3 random
void emulator_schedule(Device* device, int schedule) { device->schedule = static_cast<emulator::Schedule>(schedule); }
void* emulator_allocate(Device* device, size_t bytes) { return emulator::allocate(*device, bytes); }
int emulator_free(Device* device, void* address) { return emulator::free(*device, address) ? 0 : 1; }

static bool is_range(Device* device, const void* address, size_t bytes, const char* what) {
    if (bytes == 0 || device->is_global(address, bytes)) return true;
    device->error = std::string(what) + " of " + std::to_string(bytes) + " bytes at an address that is not so many bytes of an allocation";
    return false;
}
int emulator_upload(Device* device, void* to, const void* from, size_t bytes) {
    if (!is_range(device, to, bytes, "upload")) return 1;
    memcpy(to, from, bytes);
    if (device->checker) emulator::written_by_host(*device->checker, to, bytes);
    return 0;
}
int emulator_download(Device* device, void* to, const void* from, size_t bytes) {
    if (!is_range(device, from, bytes, "download")) return 1;
    memcpy(to, from, bytes);
    return 0;
}
int emulator_copy(Device* device, void* to, const void* from, size_t bytes) {
    if (!is_range(device, from, bytes, "copy")) return 1;
    return emulator_upload(device, to, from, bytes);
}
int emulator_clear(Device* device, void* to, size_t bytes) {
    if (!is_range(device, to, bytes, "clear")) return 1;
    memset(to, 0, bytes);
    if (device->checker) emulator::written_by_host(*device->checker, to, bytes);
    return 0;
}
int emulator_launch(Device* device, const char* kernel, const unsigned* grid, unsigned block, unsigned shared, const void* arguments, size_t bytes) {
    device->error = emulator::launch(*device, kernel, grid, block, shared, arguments, bytes);
    return device->error.empty() ? 0 : 1;
}
// The file that a kernel was loaded from, and the bytes of its arguments; null: no kernel has this name.
const char* emulator_find(const char* name, size_t* bytes) {
    const emulator::Kernel* kernel = emulator::find(name, emulator::Kind::Plain);
    Dl_info info;
    if (!kernel || !dladdr(reinterpret_cast<const void*>(kernel->run), &info)) return nullptr;
    return *bytes = kernel->bytes, info.dli_fname;
}
// Reports of the checker since the last call, one a line; valid until the next call.
const char* emulator_reports(Device* device) {
    static thread_local std::string text;
    text = device->checker ? emulator::reports(*device->checker) : "";
    return text.c_str();
}
// Begins to measure on a checked device.
void emulator_measure(Device* device) { device->meter = emulator::make_meter(); }
// What each instruction has cost since the last call, one a line; valid until the next call.
const char* emulator_costs(Device* device) {
    static thread_local std::string text;
    text = device->meter ? emulator::costs(*device->meter) : "";
    return text.c_str();
}
}
