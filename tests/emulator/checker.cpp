// Finds races, accesses out of bounds and reads of what no one has written.
//
// Kernels are compiled with the hooks of two sanitizers, which are answered here: one call for every access to memory, one for every
// address that is not aligned and every index that is too large. For each 4 bytes is kept who wrote and read them last, and
// when: the epoch counts barriers and blocks, the epoch of a warp each __syncwarp of all lanes. Two accesses, one of them a write, race if
// - they come from different blocks of a launch, or
// - from different warps of a block and no barrier lies between, or
// - from different lanes of a warp and neither a barrier nor such a __syncwarp lies between: shuffles order nothing.
#include "runtime.h"
#include <algorithm>
#include <cstdio>
#include <dlfcn.h>
#include <map>
#include <sys/mman.h>

namespace emulator {
struct Writer {
    unsigned epoch, warp_epoch;
    uint16_t thread;
    uint8_t bytes; // a bit for each of the 4
};
// Lanes of one warp that have read since its last meeting.
struct Readers {
    unsigned epoch, warp_epoch, lanes;
    uint8_t warp, bytes;
};
struct Cell {
    Writer writer;
    Readers recent, other; // of the warp that read last, and of another
    unsigned first_read;   // epoch of the first read in the launch of the last read
};

// Memory that is watched: cells, and a bit for each byte that has been written.
struct Region {
    const char* name;
    unsigned char* begin;
    size_t bytes;
    Cell* cells;
    uint8_t* written;
};

struct Report {
    std::string kernel, text, source;
    const void* place;
    size_t count;
};

template <class T> static T* reserve(size_t count) {
    void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<T*>(memory);
}

struct Checker {
    Device& device;
    Region global, shared, static_shared;
    unsigned block_epoch = 0, launch_epoch = 0;
    const unsigned char *allocation = nullptr, *allocation_end = nullptr; // where the last access was
    std::map<std::pair<const void*, std::string>, Report> reports;

    Checker(Device& device, size_t arena)
        : device(device), global(region("global memory", device.arena, arena)), shared(region("dynamic shared memory", device.shared, MAXIMAL_SHARED)),
          static_shared(region("static shared memory", nullptr, MAXIMAL_SHARED)) {}
    ~Checker() {
        for (Region* region : {&global, &shared, &static_shared}) {
            munmap(region->cells, (region->bytes / 4 + 2) * sizeof(Cell));
            munmap(region->written, region->bytes / 4 + 2);
        }
    }
    static Region region(const char* name, unsigned char* begin, size_t bytes) {
        return {name, begin, bytes, reserve<Cell>(bytes / 4 + 2), reserve<uint8_t>(bytes / 4 + 2)};
    }

    // One report for each kind of fault at each place: an instruction, or whatever stands for the line `source`.
    void report(std::string what, const void* place, const char* source = "") {
        auto [entry, is_new] = reports.try_emplace({place, what.substr(0, 12)}, Report{});
        Report& report = entry->second;
        report.count++;
        if (!is_new) return;
        report.kernel = device.kernel->name, report.place = place, report.source = source;
        report.text = what + "; block " + std::to_string(device.block_number) + ", thread " + std::to_string(device.current().linear);
    }

    void begin_block() {
        if (launch_epoch != device.launch_epoch) launch_epoch = device.launch_epoch, allocation = allocation_end = nullptr;
        block_epoch = device.block_epoch;
        static_shared.begin = device.static_shared;
        memset(shared.written, 0, device.shared_bytes / 4 + 1);
        memset(static_shared.written, 0, device.static_bytes / 4 + 1);
    }

    // Who of an earlier epoch accessed a cell of the region without order; empty if no one.
    std::string conflict(const Region& region, unsigned epoch, unsigned warp_epoch, unsigned warp, unsigned lanes) const {
        const Fiber& me = static_cast<const Fiber&>(*thread);
        if (epoch < launch_epoch) return "";
        if (epoch < block_epoch) return &region == &global ? "another block" : "";
        if (epoch < device.epoch) return "";
        if (warp == me.linear / WARP) lanes = warp_epoch == me.warp->epoch ? lanes & ~(1u << me.lane) : 0;
        return lanes ? "thread " + std::to_string(warp * WARP + unsigned(__builtin_ctz(lanes))) : "";
    }

    void visit(Region& region, size_t cell_number, unsigned bytes, Access access, const void* place) {
        const Fiber& me = static_cast<const Fiber&>(*thread);
        Cell& cell = region.cells[cell_number];
        unsigned warp = me.linear / WARP, lane = 1u << me.lane;
        auto where = [&] {
            size_t offset = 4 * cell_number;
            if (&region == &global) offset -= size_t(allocation - region.begin);
            return std::string(" at byte ") + std::to_string(offset) + " of " + region.name;
        };
        auto race = [&](const char* what, const std::string& other) {
            if (!other.empty()) report(std::string(what) + where() + " against " + other, place);
        };
        if (access == Access::Read && (region.written[cell_number] & bytes) != bytes) report("uninitialised read" + where(), place);
        const Writer& w = cell.writer;
        if (w.bytes & bytes)
            race(access == Access::Read ? "race: read after write" : "race: write after write",
                 conflict(region, w.epoch, w.warp_epoch, w.thread / WARP, 1u << w.thread % WARP));
        if (access == Access::Read) {
            Readers& r = cell.recent;
            bool same_warp = r.epoch >= block_epoch && r.warp == warp;
            if (cell.first_read < launch_epoch) cell.first_read = device.epoch;
            if (same_warp && r.epoch == device.epoch && r.warp_epoch == me.warp->epoch) {
                r.lanes |= lane, r.bytes |= uint8_t(bytes);
            } else {
                if (!same_warp) cell.other = r;
                r = {device.epoch, me.warp->epoch, lane, uint8_t(warp), uint8_t(bytes)};
            }
            return;
        }
        if (&region == &global && cell.first_read >= launch_epoch && cell.first_read < block_epoch) race("race: write after read", "another block");
        for (const Readers* r : {&cell.recent, &cell.other})
            if (r->bytes & bytes) race("race: write after read", conflict(region, r->epoch, r->warp_epoch, r->warp, r->lanes));
        bool again = w.thread == me.linear && w.epoch == device.epoch && w.warp_epoch == me.warp->epoch;
        cell.writer = {device.epoch, me.warp->epoch, uint16_t(me.linear), uint8_t(again ? w.bytes | bytes : bytes)};
        if (access == Access::Begin) region.written[cell_number] &= uint8_t(~bytes);
        else region.written[cell_number] |= uint8_t(bytes);
    }

    bool is_allocated(const unsigned char* p, size_t bytes) {
        if (p >= allocation && p + bytes <= allocation_end) return true;
        auto found = device.allocations.upper_bound(const_cast<unsigned char*>(p));
        if (found == device.allocations.begin()) return false;
        --found;
        allocation = found->first, allocation_end = found->first + found->second;
        return p + bytes <= allocation_end;
    }

    void access(const void* address, size_t bytes, Access access, const void* place) {
        if (bytes == 0) return;
        if (block_epoch != device.block_epoch) begin_block();
        auto p = static_cast<const unsigned char*>(address);
        Region* region;
        size_t size;
        if (size_t(p - global.begin) < global.bytes) region = &global, size = global.bytes;
        else if (size_t(p - shared.begin) < shared.bytes) region = &shared, size = device.shared_bytes;
        else if (size_t(p - static_shared.begin) < device.static_bytes) region = &static_shared, size = device.static_bytes;
        else return; // registers, arguments and constants
        size_t offset = size_t(p - region->begin);
        if (region == &global ? !is_allocated(p, bytes) : offset + bytes > size) {
            std::string distance = region == &global && p >= allocation_end ? std::to_string(p - allocation_end) + " bytes behind an allocation of " : "";
            report("out of bounds: " + std::to_string(bytes) + " bytes of " + distance + region->name, place);
            return;
        }
        if (device.meter && access != Access::Begin) measure(*device.meter, address, bytes, region != &global, place);
        for (size_t end = offset + bytes; offset < end;) {
            size_t in_cell = offset % 4, count = std::min(4 - in_cell, end - offset);
            visit(*region, offset / 4, ((1u << count) - 1) << in_cell, access, place);
            offset += count;
        }
    }
};

void check(Checker& checker, const void* address, size_t bytes, Access access, const void* place) { checker.access(address, bytes, access, place); }
void written_by_host(Checker& checker, const void* address, size_t bytes) {
    size_t begin = size_t(static_cast<const unsigned char*>(address) - checker.global.begin), end = begin + bytes;
    uint8_t* written = checker.global.written;
    for (; begin % 4 && begin < end; begin++) written[begin / 4] |= uint8_t(1u << begin % 4);
    for (; end % 4 && begin < end; end--) written[(end - 1) / 4] |= uint8_t(1u << (end - 1) % 4);
    memset(written + begin / 4, 0xf, (end - begin) / 4);
}
std::shared_ptr<Checker> make_checker(Device& device, size_t arena) {
    auto checker = std::make_shared<Checker>(device, arena);
    for (Region* region : {&checker->global, &checker->shared, &checker->static_shared})
        if (!region->cells || !region->written) return nullptr;
    return checker;
}

std::string lines_of(const void* place) {
    Dl_info info;
    if (!place || !dladdr(place, &info)) return "";
    char command[1024];
    size_t offset = size_t(static_cast<const char*>(place) - static_cast<const char*>(info.dli_fbase)) - 1;
    snprintf(command, sizeof command, "addr2line -i -e '%s' %#zx 2>/dev/null", info.dli_fname, offset);
    std::string lines;
    if (FILE* pipe = popen(command, "r")) {
        char line[1024];
        while (fgets(line, sizeof line, pipe)) {
            std::string name = base_name(line);
            lines += (lines.empty() ? "" : " in ") + name.substr(0, name.find_first_of(" \n"));
        }
        pclose(pipe);
    }
    return lines;
}

std::string reports(Checker& checker) {
    std::string text;
    for (auto& [key, report] : checker.reports) {
        std::string source = report.source.empty() ? lines_of(report.place) : report.source;
        text += report.kernel + " (" + source + "): " + report.text + "; " + std::to_string(report.count) + " times\n";
    }
    checker.reports.clear();
    return text;
}
} // namespace emulator

// ----------------------------------------------------------------------------------------- hooks of the thread sanitizer
using emulator::Access;
static void hook(const void* address, size_t bytes, Access access, const void* place) {
    if (emulator::device) emulator::check_here(address, bytes, access, place);
}
#define HOOKS(bytes)                                                                                                        \
    void __tsan_read##bytes(void* p) { hook(p, bytes, Access::Read, __builtin_return_address(0)); }                        \
    void __tsan_write##bytes(void* p) { hook(p, bytes, Access::Write, __builtin_return_address(0)); }                      \
    void __tsan_unaligned_read##bytes(void* p) { hook(p, bytes, Access::Read, __builtin_return_address(0)); }              \
    void __tsan_unaligned_write##bytes(void* p) { hook(p, bytes, Access::Write, __builtin_return_address(0)); }            \
    void __tsan_volatile_read##bytes(void* p) { hook(p, bytes, Access::Read, __builtin_return_address(0)); }               \
    void __tsan_volatile_write##bytes(void* p) { hook(p, bytes, Access::Write, __builtin_return_address(0)); }
extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) { hook(p, bytes, Access::Read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t bytes) { hook(p, bytes, Access::Write, __builtin_return_address(0)); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    hook(from, bytes, Access::Read, __builtin_return_address(0)), hook(to, bytes, Access::Write, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
    hook(to, bytes, Access::Write, __builtin_return_address(0));
    return memset(to, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// ------------------------------------------------------------------------------- hooks of the undefined-behaviour sanitizer
struct Location { // stands first in what the compiler says of a fault
    const char* file;
    uint32_t line, column;
};
static void undefined(const Location* location, const std::string& what) {
    if (!emulator::device || !emulator::device->checker) return;
    static thread_local char source[256];
    snprintf(source, sizeof source, "%s:%u", emulator::base_name(location->file), location->line);
    emulator::device->checker->report(what, location, source);
}
void __ubsan_handle_type_mismatch_v1(const Location* location, void* address) {
    char text[96];
    snprintf(text, sizeof text, "misaligned access to a vector at %p", address);
    undefined(location, text);
}
void __ubsan_handle_out_of_bounds(const Location* location, void* index) {
    undefined(location, "index " + std::to_string(reinterpret_cast<intptr_t>(index)) + " out of the bounds of its array");
}
void __ubsan_handle_shift_out_of_bounds(const Location* location, void*, void*) { undefined(location, "shift by too many bits"); }
void __ubsan_handle_divrem_overflow(const Location* location, void*, void*) { undefined(location, "division of integers by zero"); }
}
