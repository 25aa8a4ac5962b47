// Fibers, barriers and launches.
#include "runtime.h"
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <link.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {
__thread Thread* thread;
__thread Block block;
__thread Device* device;

// Those of all loaded files. Files are loaded while launches of others run.
static std::atomic<const Kernel*> kernels;
Kernel::Kernel(const char* name, size_t bytes, Kind kind, void (*run)(const void*), void* (*anchor)())
    : name(name), bytes(bytes), kind(kind), run(run), anchor(anchor), next(kernels) {
    kernels = this;
}

const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void fail(const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    device->error = std::string(device->kernel->name) + ", block " + std::to_string(device->block_number) + ", thread " +
                    std::to_string(device->current().linear) + ": " + text;
    siglongjmp(device->escape, 1);
}

// ---------------------------------------------------------------------------------------------------------- fibers
constexpr size_t STACK = 128 << 10, PAGE = 4096;

static void run_fiber() {
    for (;;) {
        Fiber& me = device->current();
        device->kernel->run(device->arguments);
        if (!me.copies.empty()) fail("ends while %zu of its cp.async are under way", me.copies.size());
        me.state = State::Done;
        device->done++;
        // Those who wait no longer wait for this thread.
        Warp& warp = *me.warp;
        warp.alive &= ~(1u << me.lane);
        if (warp.arrived) {
            if (warp.all) fail("ends while lanes of its warp wait for it at %s (%s:%d)", warp.what, base_name(warp.site.file), warp.site.line);
            if (warp.arrived == (warp.mask & warp.alive)) release(warp);
        }
        if (device->waiting && device->waiting + device->done == device->threads) device->waiting = 0, device->epoch++;
        to_next();
    }
}

#ifdef __x86_64__
// Saves what a call preserves on the stack of one fiber and takes it from that of the other.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
static void switch_fibers(Fiber& from, Fiber& to) { emulator_switch(&from.context, to.context); }
static void begin(Fiber& fiber, unsigned char* stack) {
    // Stack tops are spread over the sets of the cache.
    void** top = reinterpret_cast<void**>(stack + STACK - 64 - (fiber.linear * 320 % PAGE & ~15u));
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(run_fiber);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber.context = top;
}
#else
static ucontext_t* context(Fiber& fiber) {
    if (!fiber.context) fiber.context = new ucontext_t;
    return static_cast<ucontext_t*>(fiber.context);
}
static void switch_fibers(Fiber& from, Fiber& to) { swapcontext(context(from), context(to)); }
static void begin(Fiber& fiber, unsigned char* stack) {
    ucontext_t& c = *context(fiber);
    getcontext(&c);
    c.uc_stack.ss_sp = stack + PAGE, c.uc_stack.ss_size = STACK - PAGE, c.uc_link = nullptr;
    makecontext(&c, run_fiber, 0);
}
#endif

// All fibers at their beginning. The lowest page of each stack stops one that overflows.
static void begin_fibers(Device& d) {
    if (!d.stacks) {
        void* memory = mmap(nullptr, MAXIMAL_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return;
        d.stacks = static_cast<unsigned char*>(memory);
        d.fibers.resize(MAXIMAL_THREADS), d.warps.resize(MAXIMAL_THREADS / WARP);
        for (unsigned i = 0; i < MAXIMAL_THREADS; i++) mprotect(d.stacks + i * STACK, PAGE, PROT_NONE);
    }
    for (unsigned i = 0; i < MAXIMAL_THREADS; i++) {
        Fiber& fiber = d.fibers[i];
        fiber.linear = i, fiber.lane = i % WARP, fiber.warp = &d.warps[i / WARP];
        fiber.copies.clear();
        begin(fiber, d.stacks + i * STACK);
    }
}

// -------------------------------------------------------------------------------------------------------- schedule
static bool is_ready(const Device& d, const Fiber& fiber) {
    return fiber.state == State::Ready || (fiber.state == State::Barrier && fiber.wait != d.epoch) ||
           (fiber.state == State::Collective && fiber.wait != fiber.warp->generation);
}

// The next fiber that can run: the other lanes of the warp first, then the warps behind (before, in reverse), so that warps
// drift apart as far as they can; or a random one. Null where there is none.
static Fiber* find_next(Device& d) {
    unsigned me = d.current().linear, threads = d.threads;
    if (d.schedule == Schedule::Random) {
        unsigned i = unsigned(random(d) % threads);
        for (unsigned n = threads; n-- > 0; i = i + 1 == threads ? 0 : i + 1)
            if (is_ready(d, d.fibers[i])) return &d.fibers[i];
        return nullptr;
    }
    bool reverse = d.schedule == Schedule::Reverse;
    auto search = [&](unsigned first, unsigned end, unsigned from) -> Fiber* {
        for (unsigned i = from, n = end - first; n-- > 0;) {
            if (reverse) i = i == first ? end - 1 : i - 1;
            else i = i + 1 == end ? first : i + 1;
            if (is_ready(d, d.fibers[i])) return &d.fibers[i];
        }
        return nullptr;
    };
    unsigned first = me - me % WARP, end = std::min(first + WARP, threads);
    if (Fiber* fiber = search(first, end, me)) return fiber;
    return search(0, threads, reverse ? first : end - 1);
}

// Says where the threads wait that wait for ever.
[[noreturn]] static void deadlock(Device& d) {
    std::map<std::string, unsigned> places;
    for (unsigned i = 0; i < d.threads; i++) {
        const Fiber& fiber = d.fibers[i];
        const char* what = fiber.state == State::Barrier ? "__syncthreads" : fiber.warp->what;
        if (fiber.state == State::Done) places["at the end"]++;
        else places[std::string("at ") + what + " (" + base_name(fiber.site.file) + ":" + std::to_string(fiber.site.line) + ")"]++;
    }
    std::string text;
    for (auto& [place, count] : places) text += (text.empty() ? "" : ", ") + std::to_string(count) + " threads " + place;
    fail("deadlock: %s", text.c_str());
}

void to_next() {
    Device& d = *device;
    Fiber &me = d.current(), *next = find_next(d);
    if (!next && d.done != d.threads) deadlock(d);
    if (!next) next = &d.host;
    next->state = State::Ready;
    thread = next;
    if (next != &me) switch_fibers(me, *next);
}

void release(Warp& warp) {
    warp.epoch += warp.mask == FULL && strcmp(warp.what, "__syncwarp") == 0;
    warp.arrived = 0;
    warp.generation++;
}

void barrier(Site site) {
    Device& d = *device;
    Fiber& me = d.current();
    me.site = site;
    if (d.waiting == 0) d.site = site;
    else if (d.site.line != site.line || (d.site.file != site.file && strcmp(d.site.file, site.file) != 0))
        fail("threads of a block meet at different barriers: %s:%d and %s:%d", base_name(d.site.file), d.site.line, base_name(site.file), site.line);
    me.state = State::Barrier, me.wait = d.epoch;
    if (++d.waiting + d.done == d.threads) {
        d.waiting = 0, d.epoch++;
        if (d.schedule != Schedule::Random) { // the last to come goes on
            me.state = State::Ready;
            return;
        }
    }
    to_next();
}

// ---------------------------------------------------------------------------------------------------------- launch
// Where the thread-local memory of the kernel's file lies on this thread: its static shared memory.
static void find_static_shared(Device& d) {
    if (d.kernel->kind == Kind::Compiled) {
        d.static_shared = d.shared + STATIC_SHARED, d.static_bytes = shared_of(*d.kernel);
        return;
    }
    struct Search {
        unsigned char *anchor, *begin;
        size_t bytes;
    } search{static_cast<unsigned char*>(d.kernel->anchor()), nullptr, 0};
    auto visit = [](dl_phdr_info* info, size_t, void* data) {
        Search& s = *static_cast<Search*>(data);
        unsigned char* begin = static_cast<unsigned char*>(info->dlpi_tls_data);
        for (int i = 0; begin && i < info->dlpi_phnum; i++) {
            const auto& header = info->dlpi_phdr[i];
            if (header.p_type == PT_TLS && s.anchor >= begin && s.anchor < begin + header.p_memsz) {
                s.begin = begin, s.bytes = header.p_memsz;
                return 1;
            }
        }
        return 0;
    };
    dl_iterate_phdr(visit, &search);
    d.static_shared = search.begin, d.static_bytes = unsigned(search.bytes);
}

// A fault in a kernel ends the launch; any other goes to who was there before.
static struct sigaction before_segv, before_bus, before_fpe;
static void on_fault(int signal, siginfo_t* info, void* context) {
    if (device) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, signal);
        sigprocmask(SIG_UNBLOCK, &mask, nullptr);
        unsigned char *address = static_cast<unsigned char*>(info->si_addr), *stack = device->stacks + device->current().linear * STACK;
        if (signal == SIGFPE) fail("division of integers by zero");
        if (address >= stack && address < stack + PAGE) fail("stack overflow");
        // The processor gives no address for vector accesses that are not aligned.
        if (!address) fail("access to address 0 or one that is not aligned to the vector's size");
        const Site& site = device->current().site; // which a compiled kernel keeps up to date
        if (device->kernel->kind == Kind::Compiled)
            fail("access to address %p, which is no memory of the device (%s:%d)", static_cast<void*>(address), base_name(site.file), site.line);
        fail("access to address %p, which is no memory of the device", static_cast<void*>(address));
    }
    struct sigaction& before = signal == SIGSEGV ? before_segv : signal == SIGBUS ? before_bus : before_fpe;
    if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
    if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
    ::signal(signal, SIG_DFL); // happens again on return
}
static void catch_faults() {
    static bool once = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &before_segv), sigaction(SIGBUS, &action, &before_bus), sigaction(SIGFPE, &action, &before_fpe);
        return true;
    }();
    (void)once;
    // The handler cannot run on a fiber's stack that has overflown.
    static thread_local std::unique_ptr<char[]> memory;
    stack_t stack;
    if (sigaltstack(nullptr, &stack) == 0 && (stack.ss_flags & SS_DISABLE)) {
        memory = std::make_unique<char[]>(64 << 10);
        stack = {memory.get(), 0, 64 << 10};
        sigaltstack(&stack, nullptr);
    }
}

static void run_block(Device& d, unsigned number) {
    unsigned x = block.grid.x, y = block.grid.y;
    d.block_number = number;
    block.index = {number % x, number / x % y, number / x / y};
    memset(d.shared, POISON, d.shared_bytes);
    memset(d.static_shared, POISON, d.static_bytes);
    d.done = d.waiting = 0;
    d.block_epoch = ++d.epoch;
    for (unsigned i = 0; i < d.threads; i++) {
        Fiber& fiber = d.fibers[i];
        fiber.index = {i % block.size.x, i / block.size.x % block.size.y, i / block.size.x / block.size.y};
        fiber.state = State::Ready, fiber.group = 0;
    }
    for (unsigned w = 0; w * WARP < d.threads; w++) {
        unsigned lanes = std::min(WARP, d.threads - w * WARP);
        d.warps[w].arrived = 0, d.warps[w].alive = FULL >> (WARP - lanes);
    }
    Fiber& first = d.fibers[d.schedule == Schedule::Reverse ? d.threads - 1 : 0];
    thread = &first;
    switch_fibers(d.host, first);
}

const Kernel* find(const char* name, Kind kind) {
    const Kernel* kernel = kernels;
    while (kernel && (kernel->kind != kind || strcmp(kernel->name, name) != 0)) kernel = kernel->next;
    return kernel;
}

std::string launch(Device& d, const char* name, const unsigned grid[3], unsigned threads, unsigned shared, const void* arguments, size_t bytes) {
    const Kernel* kernel = find(name, d.kind);
    auto refuse = [&](std::string reason) { return std::string(name) + ": " + reason; };
    if (!kernel) return refuse("no kernel has this name");
    // Arguments come filled up to a multiple of 8 bytes.
    if ((kernel->bytes + 7) / 8 != (bytes + 7) / 8) return refuse("takes " + std::to_string(kernel->bytes) + " bytes of arguments, not " + std::to_string(bytes));
    unsigned most = kernel->kind == Kind::Compiled ? threads_of(*kernel) : MAXIMAL_THREADS;
    if (threads == 0 || threads > most) return refuse(std::to_string(threads) + " threads a block");
    if (shared > MAXIMAL_SHARED) return refuse(std::to_string(shared) + " bytes of shared memory");
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535 ||
        uint64_t(grid[0]) * grid[1] * grid[2] > 0xffffffffu)
        return refuse("a grid of " + std::to_string(grid[0]) + " x " + std::to_string(grid[1]) + " x " + std::to_string(grid[2]) + " blocks");
    catch_faults();
    if (d.fibers.empty()) begin_fibers(d);
    if (d.fibers.empty()) return refuse("no memory for fibers");
    d.kernel = kernel, d.arguments = arguments, d.threads = threads, d.shared_bytes = shared;
    d.launch_epoch = d.epoch + 1;
    find_static_shared(d);
    if (shared + d.static_bytes > MAXIMAL_SHARED) return refuse(std::to_string(shared + d.static_bytes) + " bytes of static and dynamic shared memory");
    if (d.static_bytes > 48 * 1024) return refuse("more than 48 KiB of static shared memory");
    block.size = {threads, 1, 1}, block.grid = {grid[0], grid[1], grid[2]}, block.shared = d.shared;
    d.error.clear();
    unsigned blocks = grid[0] * grid[1] * grid[2];
    device = &d;
    if (sigsetjmp(d.escape, 1) == 0) {
        uint64_t shift = d.schedule == Schedule::Random ? random(d) % blocks : 0;
        for (unsigned i = 0; i < blocks; i++)
            run_block(d, d.schedule == Schedule::Reverse ? blocks - 1 - i : unsigned((i + shift) % blocks));
    } else {
        begin_fibers(d); // those that were under way never end
    }
    device = nullptr;
    return d.error;
}
} // namespace emulator
