// Behind emulator.h: fibers, warps, the emulated device. Used by emulator.cpp, warp.cpp, memory.cpp and checker.cpp.
//
// A device belongs to one operating-system thread at a time; several devices may run at the same time on several threads.
#pragma once
#include "emulator.h"
#include <csetjmp>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulator {
constexpr unsigned WARP = 32, MAXIMAL_THREADS = 1024, FULL = 0xffffffffu;
constexpr unsigned MAXIMAL_SHARED = 227 * 1024, MAXIMAL_STATIC = 48 * 1024;
constexpr unsigned STATIC_SHARED = 228 * 1024; // where what compiled kernels declare lies, behind the dynamic shared memory
constexpr unsigned char POISON = 0xff; // bytes of NaN

// Order in which threads and blocks run, and when asynchronous copies happen: late, at the wait; early, at their issue.
enum class Schedule { Forward, Reverse, EarlyCopies, Random };

enum class State : uint8_t { Ready, Barrier, Collective, Done };

struct Copy { // cp.async under way
    void* to;
    const void* from;
    unsigned bytes, valid, group;
    bool done;
};

// Where the lanes of a warp meet. Values are double-buffered by the parity of the generation: a lane may be one meeting ahead.
struct Warp {
    unsigned alive, arrived, mask, generation;
    unsigned epoch; // __syncwarp of all lanes so far: they order memory accesses, as no other meeting does
    const char* what;
    Site site;
    bool all; // no lane may be missing
    uint64_t values[2][WARP];
    const void* rows[2][WARP];
    float sums[WARP][4];
    unsigned a[WARP][4], b[WARP][2];
};

struct Fiber : Thread {
    void* context; // stack pointer, or ucontext_t
    unsigned linear, wait, group;
    State state;
    Warp* warp;
    Site site; // where it waits
    std::vector<Copy> copies;
    // Of a compiled kernel: registers of its function and of those that it calls, by depth.
    std::vector<std::vector<uint64_t>> frames;
    unsigned depth;
};

struct Checker;
struct Meter;

struct Device {
    // memory.cpp
    unsigned char *arena = nullptr, *top = nullptr;
    std::map<unsigned char*, size_t> allocations; // by start, of those in use
    std::shared_ptr<Checker> checker;             // null: does not check
    std::shared_ptr<Meter> meter;                 // null: does not measure
    const Kind kind;
    Schedule schedule = Schedule::Forward;
    std::string error;
    uint64_t random = 88172645463325252ull;

    // The launch that runs.
    const Kernel* kernel = nullptr;
    const void* arguments = nullptr;
    unsigned threads = 0, done = 0, waiting = 0, block_number = 0;
    unsigned epoch = 0; // barriers and beginnings of blocks so far
    unsigned launch_epoch = 0, block_epoch = 0; // the epoch when they began
    Site site = {};     // of the barrier at which threads wait
    unsigned shared_bytes = 0, static_bytes = 0;
    unsigned char *shared = nullptr, *static_shared = nullptr;
    unsigned char* stacks = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Fiber host;
    sigjmp_buf escape;

    Device(Kind kind);
    ~Device();
    Fiber& current() { return *static_cast<Fiber*>(thread); }
    // The byte range lies in shared memory of the block.
    bool is_shared(const void* address, size_t bytes) const;
    // The byte range lies in one allocation.
    bool is_global(const void* address, size_t bytes) const;
};

extern __attribute__((tls_model("initial-exec"))) __thread Device* device; // whose launch runs on this thread

// Ends the launch with an error.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);
const char* base_name(const char* path);

// emulator.cpp: the end of a lane's turn, and of a warp's meeting.
void to_next();
void release(Warp& warp);
const Kernel* find(const char* name, Kind kind); // null: no loaded file has it
std::string launch(Device& device, const char* kernel, const unsigned grid[3], unsigned block, unsigned shared, const void* arguments, size_t bytes);

// ptx.cpp
std::string load_compiled(const char* path); // the kernels of a file, or why they cannot be had
unsigned shared_of(const Kernel& kernel);   // bytes of shared memory that a compiled kernel's file declares
unsigned threads_of(const Kernel& kernel);  // most threads of a block that a compiled kernel was compiled for

// memory.cpp
void* allocate(Device& device, size_t bytes); // null: `error` says why
bool free(Device& device, void* address);
uint64_t random(Device& device);

// checker.cpp. `place` is the address of the instruction. Begin: an asynchronous copy, whose bytes no one may read until it is
// waited for.
enum class Access { Read, Write, Begin };
void check(Checker& checker, const void* address, size_t bytes, Access access, const void* place);
void written_by_host(Checker& checker, const void* address, size_t bytes);
std::shared_ptr<Checker> make_checker(Device& device, size_t arena); // null: no address space
std::string reports(Checker& checker); // one a line; forgets them
std::string lines_of(const void* place); // source lines of an instruction, from the innermost inlined function outwards
inline void check_here(const void* address, size_t bytes, Access access, const void* place) {
    if (device->checker) check(*device->checker, address, bytes, access, place);
}

// meter.cpp: of a checked device
std::shared_ptr<Meter> make_meter();
void measure(Meter& meter, const void* address, size_t bytes, bool is_shared, const void* place);
std::string costs(Meter& meter); // one instruction a line; forgets them
} // namespace emulator
