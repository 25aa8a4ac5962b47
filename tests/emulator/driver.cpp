// The NVIDIA driver's library as far as the engine calls it, with the emulated device behind it: as libcuda.so it lets a program compute on a
// GPU where there is none, by way of all that it does for a real one.
//
// Work of a stream waits in a queue until something must wait for it; orders say when else it is done. Handles, contexts and graphs are
// checked as the driver does or harder. `EMULATED_DRIVER` has words NAME=VALUE, see `Options`; `EMULATED_DRIVER_LIBRARIES` names the libraries of
// emulator and kernels.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {
// Name, number and text of what functions return.
#define RESULTS(RESULT)                                                                                                                    \
    RESULT(SUCCESS, 0, "no error")                                                                                                         \
    RESULT(INVALID_VALUE, 1, "invalid argument")                                                                                           \
    RESULT(OUT_OF_MEMORY, 2, "out of memory")                                                                                              \
    RESULT(NOT_INITIALIZED, 3, "initialization error")                                                                                     \
    RESULT(INVALID_DEVICE, 101, "invalid device ordinal")                                                                                  \
    RESULT(INVALID_IMAGE, 200, "device kernel image is invalid")                                                                           \
    RESULT(INVALID_CONTEXT, 201, "invalid device context")                                                                                 \
    RESULT(INVALID_HANDLE, 400, "invalid resource handle")                                                                                 \
    RESULT(NOT_FOUND, 500, "named symbol not found")                                                                                       \
    RESULT(NOT_READY, 600, "device not ready")                                                                                             \
    RESULT(ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")                                                              \
    RESULT(CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing")
#define NUMBER(name, number, text) name = number,
enum Result { RESULTS(NUMBER) };

// An environment variable's parts between separators; of none, nothing.
std::vector<std::string> parts(const char* variable, char separator) {
    const char* text = getenv(variable);
    std::istringstream stream(text ? text : "");
    std::vector<std::string> parts;
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

struct Options {
    std::string log; // where to write what went wrong, and at the end what was not given back
    std::string order = "late"; // work happens when it is waited for; "early": at once; "beside": at once but in the first stream
    size_t memory = size_t(4) << 30, version = 13000, capability = 90, devices = 1, shared = 232448;
    size_t images = 1; // whether the kernels are such that it can load them
    size_t fault = 0, error = ILLEGAL_ADDRESS; // which launch fails, 0: none, and with what number

    Options() {
        std::map<std::string, std::string*> texts = {{"log", &log}, {"order", &order}};
        std::map<std::string, size_t*> numbers = {{"memory", &memory}, {"version", &version}, {"capability", &capability},
                                                  {"devices", &devices}, {"shared", &shared}, {"images", &images},
                                                  {"fault", &fault},   {"error", &error}};
        for (const std::string& word : parts("EMULATED_DRIVER", ' ')) {
            std::string name = word.substr(0, word.find('=')), value = word.substr(std::min(word.size(), name.size() + 1));
            if (texts.count(name)) *texts[name] = value;
            else if (numbers.count(name)) *numbers[name] = strtoull(value.c_str(), nullptr, 10);
            else if (!word.empty()) fprintf(stderr, "EMULATED_DRIVER: what is '%s'?\n", word.c_str()), abort();
        }
    }
};
const Options options;

// What is loaded of the emulator; see memory.cpp.
struct Emulator {
    std::vector<std::string> kernels; // files
    void* (*create)(int);
    void (*destroy)(void*);
    const char* (*error)(const void*);
    void* (*allocate)(void*, size_t);
    int (*free)(void*, void*);
    int (*upload)(void*, void*, const void*, size_t);
    int (*download)(void*, void*, const void*, size_t);
    int (*copy)(void*, void*, const void*, size_t);
    int (*clear)(void*, void*, size_t);
    int (*launch)(void*, const char*, const unsigned*, unsigned, unsigned, const void*, size_t);
    const char* (*find)(const char*, size_t*);

    static void* load(const std::string& path, int scope) {
        void* library = dlopen(path.c_str(), RTLD_NOW | scope);
        if (!library) fprintf(stderr, "EMULATED_DRIVER: %s\n", dlerror()), abort();
        return library;
    }
    Emulator() : kernels(parts("EMULATED_DRIVER_LIBRARIES", ':')) {
        if (kernels.empty()) fprintf(stderr, "EMULATED_DRIVER_LIBRARIES names nothing\n"), abort();
        void* core = load(kernels[0], RTLD_GLOBAL);
        kernels.erase(kernels.begin());
        auto get = [&](auto& function, const char* name) { function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(core, name)); };
        get(create, "emulator_create"), get(destroy, "emulator_destroy"), get(error, "emulator_error"), get(allocate, "emulator_allocate");
        get(free, "emulator_free"), get(upload, "emulator_upload"), get(download, "emulator_download"), get(copy, "emulator_copy");
        get(clear, "emulator_clear"), get(launch, "emulator_launch"), get(find, "emulator_find");
    }
};

struct Stream;
struct Event {
    Stream* stream = nullptr; // that recorded it last
    uint64_t recorded = 0, done = 0;
    std::chrono::steady_clock::time_point time;
};
struct Module {
    std::string file;
};
struct Function {
    const Module* module;
    std::string name;
    size_t bytes;
    unsigned shared = 0; // without asking there are 48 KiB less what is static: here, none
};
struct Launch {
    const Function* function;
    unsigned grid[3], block, shared;
    std::vector<char> arguments;
};
// As the driver's header has it.
struct KernelNode {
    const void* function;
    unsigned x, y, z, block, block_y, block_z, shared;
    void **parameters, **extra;
    const void *kernel, *context;
};
struct Graph {
    std::deque<Launch> launches; // which stay where they are: a node is known by its address
};
struct Executable : Graph {};
struct Task {
    std::function<Result()> work;
    Event* waits = nullptr;
    uint64_t until = 0;
};
struct Stream {
    bool early;
    std::deque<Task> tasks;
};

// Live objects of one kind; a handle is a pointer to one.
template <class T> struct Objects : std::map<const void*, std::unique_ptr<T>> {
    T* add(T object) { return put(std::make_unique<T>(std::move(object))); }
    T* put(std::unique_ptr<T> object) {
        T* pointer = object.get();
        (*this)[pointer] = std::move(object);
        return pointer;
    }
    T* get(const void* handle) {
        auto found = this->find(handle);
        return found == this->end() ? nullptr : found->second.get();
    }
};

thread_local const void* current = nullptr; // context

struct Driver {
    std::recursive_mutex mutex;
    bool started = false;
    size_t users = 0, launched = 0, loaded = 0; // of the context; launches and modules so far
    Result lost = SUCCESS;                      // what every call returns since a kernel failed
    std::unique_ptr<Emulator> emulator;
    void* device = nullptr;
    std::map<uint64_t, size_t> allocated, pinned;
    Objects<Stream> streams;
    Objects<Event> events;
    Objects<Module> modules;
    Objects<Function> functions;
    Objects<Graph> graphs;
    Objects<Executable> executables;

    size_t used() const {
        size_t sum = 0;
        for (auto& [address, bytes] : allocated) sum += bytes;
        return sum;
    }
    bool is_pinned(const void* host, size_t bytes) const {
        auto at = reinterpret_cast<uint64_t>(host);
        auto found = pinned.upper_bound(at);
        return found != pinned.begin() && (--found, at + bytes <= found->first + found->second);
    }
    // A call of the emulator.
    Result ok(int result) {
        if (result == 0) return SUCCESS;
        say(emulator->error(device));
        return ILLEGAL_ADDRESS;
    }
    void say(const std::string& text) {
        if (FILE* file = options.log.empty() ? nullptr : fopen(options.log.c_str(), "a")) fprintf(file, "%s\n", text.c_str()), fclose(file);
    }
    // What a node says, if a device can do that.
    Result read(const KernelNode& n, Launch& launch) {
        Function* function = functions.get(n.function);
        if (!function) return INVALID_HANDLE;
        if (!n.x || !n.y || !n.z || n.x > 0x7fffffffu || n.y > 65535 || n.z > 65535) return INVALID_VALUE;
        if (!n.block || n.block > 1024 || n.block_y != 1 || n.block_z != 1) return INVALID_VALUE;
        if (n.shared > function->shared || n.extra || n.kernel || n.context) return INVALID_VALUE;
        auto* arguments = static_cast<const char*>(n.parameters[0]);
        return launch = {function, {n.x, n.y, n.z}, n.block, n.shared, {arguments, arguments + function->bytes}}, SUCCESS;
    }
    Result run(const Launch& l) {
        if (++launched == options.fault) return Result(options.error);
        auto& [function, grid, block, shared, arguments] = l;
        return ok(emulator->launch(device, function->name.c_str(), grid, block, shared, arguments.data(), arguments.size()));
    }
    // Does the first task of a stream, and what it waits for before.
    void step(Stream& stream) {
        Task task = std::move(stream.tasks.front());
        stream.tasks.pop_front();
        if (task.waits) finish(*task.waits, task.until);
        if (task.work && lost == SUCCESS) lost = task.work();
    }
    void finish(Event& event, uint64_t until) {
        while (event.done < until && lost == SUCCESS) step(*event.stream), hurry();
    }
    void finish(Stream& stream) {
        while (!stream.tasks.empty() && lost == SUCCESS) step(stream), hurry();
    }
    void finish_all() {
        for (auto& [handle, stream] : streams) finish(*stream);
    }
    // Does what early streams have to do and what waits for nothing else.
    void hurry() {
        for (auto& [handle, stream] : streams) {
            auto ready = [&] {
                const Task* first = stream->tasks.empty() ? nullptr : &stream->tasks.front();
                return first && (!first->waits || first->waits->done >= first->until);
            };
            while (stream->early && lost == SUCCESS && ready()) step(*stream);
        }
    }
    Result add(Stream& stream, Task task) {
        stream.tasks.push_back(std::move(task));
        hurry();
        return lost;
    }
    void end() {
        std::map<const char*, size_t> left = {
            {"streams", streams.size()},         {"events", events.size()},
            {"modules", modules.size()},         {"graphs", graphs.size()},
            {"executables", executables.size()}, {"allocations", allocated.size()},
            {"page-locked pieces", pinned.size()},
        };
        for (auto& [what, count] : left)
            if (count) say("not given back: " + std::to_string(count) + " " + what);
        if (current) say("not given back: the thread's context");
        say("ended after " + std::to_string(launched) + " launches");
        streams.clear(), events.clear(), modules.clear(), functions.clear(), graphs.clear(), executables.clear(), allocated.clear(), pinned.clear();
        emulator->destroy(device);
        device = nullptr, lost = SUCCESS, loaded = 0;
    }
};
Driver& driver = *new Driver; // for as long as the process, whatever order things end in

// What a thread may do while another captures a graph.
constexpr int GLOBAL = 0, RELAXED = 2;
struct Mode {
    int value = GLOBAL;
    ~Mode() {
        if (value != GLOBAL) driver.say("not given back: a thread's mode of captures");
    }
};
thread_local Mode mode;

// Begins every function that needs the context of this thread.
#define ENTER                                                                                                                              \
    std::lock_guard<std::recursive_mutex> guard(driver.mutex);                                                                             \
    if (!driver.started) return NOT_INITIALIZED;                                                                                           \
    if (current != &driver || driver.users == 0) return INVALID_CONTEXT;                                                                   \
    if (driver.lost != SUCCESS) return driver.lost;
// Begins those among them that may fail while any thread captures a graph, unless the calling one has no part in that. Here one always does.
#define ENTER_RELAXED                                                                                                                      \
    ENTER                                                                                                                                  \
    if (mode.value != RELAXED) return CAPTURE_UNSUPPORTED;
#define FIND(kind, name, handle)                                                                                                           \
    auto* name = driver.kind.get(handle);                                                                                                  \
    if (!name) return INVALID_HANDLE;
} // namespace

#pragma GCC visibility push(default)
extern "C" {
Result cuGetErrorString(Result error, const char** text) {
    switch (error) {
#define TEXT(name, number, words)                                                                                                          \
    case name: return *text = words, SUCCESS;
        RESULTS(TEXT)
    }
    return INVALID_VALUE;
}
Result cuInit(unsigned flags) {
    std::lock_guard<std::recursive_mutex> guard(driver.mutex);
    if (flags != 0) return INVALID_VALUE;
    if (!driver.emulator) driver.emulator = std::make_unique<Emulator>();
    return driver.started = true, SUCCESS;
}
Result cuDriverGetVersion(int* version) { return *version = int(options.version), SUCCESS; }
Result cuDeviceGetCount(int* count) { return *count = int(options.devices), driver.started ? SUCCESS : NOT_INITIALIZED; }
Result cuDeviceGet(int* device, int number) {
    if (!driver.started) return NOT_INITIALIZED;
    return *device = number, number >= 0 && size_t(number) < options.devices ? SUCCESS : INVALID_DEVICE;
}
Result cuDeviceGetName(char* name, int bytes, int) { return snprintf(name, size_t(bytes), "Emulated GPU"), SUCCESS; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    constexpr int MAJOR = 75, MINOR = 76;
    if (attribute != MAJOR && attribute != MINOR) return INVALID_VALUE;
    return *value = int(attribute == MAJOR ? options.capability / 10 : options.capability % 10), SUCCESS;
}
Result cuDevicePrimaryCtxRetain(const void** context, int) {
    std::lock_guard<std::recursive_mutex> guard(driver.mutex);
    if (!driver.started) return NOT_INITIALIZED;
    if (mode.value != RELAXED) return CAPTURE_UNSUPPORTED;
    if (driver.users++ == 0) driver.device = driver.emulator->create(0);
    return *context = &driver, driver.device ? SUCCESS : OUT_OF_MEMORY;
}
Result cuDevicePrimaryCtxRelease_v2(int) {
    std::lock_guard<std::recursive_mutex> guard(driver.mutex);
    if (driver.users == 0) return INVALID_CONTEXT;
    if (mode.value != RELAXED) return CAPTURE_UNSUPPORTED;
    if (--driver.users == 0) driver.end();
    return SUCCESS;
}
Result cuCtxSetCurrent(const void* context) {
    if (context && context != &driver) return INVALID_CONTEXT;
    return current = context, SUCCESS;
}
Result cuCtxGetCurrent(const void** context) {
    if (driver.lost != SUCCESS) return driver.lost;
    return *context = current, SUCCESS;
}
Result cuThreadExchangeStreamCaptureMode(int* other) {
    if (!driver.started) return NOT_INITIALIZED;
    return std::swap(mode.value, *other), SUCCESS;
}

Result cuStreamCreate(Stream** stream, unsigned) {
    ENTER
    bool early = options.order == "early" || (options.order == "beside" && !driver.streams.empty());
    return *stream = driver.streams.add({early, {}}), SUCCESS;
}
Result cuStreamDestroy_v2(Stream* handle) {
    ENTER FIND(streams, stream, handle)
    driver.finish(*stream);
    return driver.streams.erase(handle), SUCCESS;
}
Result cuStreamSynchronize(Stream* handle) {
    ENTER_RELAXED FIND(streams, stream, handle)
    return driver.finish(*stream), driver.lost;
}
Result cuStreamWaitEvent(Stream* handle, Event* waits, unsigned) {
    ENTER FIND(streams, stream, handle) FIND(events, event, waits)
    return event->recorded ? driver.add(*stream, {nullptr, event, event->recorded}) : SUCCESS;
}
Result cuEventCreate(Event** event, unsigned) {
    ENTER
    return *event = driver.events.add({}), SUCCESS;
}
Result cuEventDestroy_v2(Event* handle) {
    ENTER FIND(events, event, handle)
    driver.finish_all(); // any stream may wait for it
    return driver.events.erase(event), SUCCESS;
}
Result cuEventRecord(Event* handle, Stream* by) {
    ENTER FIND(events, event, handle) FIND(streams, stream, by)
    // One of before may be waited for under its number.
    if (event->stream && event->stream != stream) driver.finish(*event, event->recorded);
    event->stream = stream;
    uint64_t number = ++event->recorded;
    return driver.add(*stream, {[event, number] { return event->done = number, event->time = std::chrono::steady_clock::now(), SUCCESS; }});
}
Result cuEventSynchronize(Event* handle) {
    ENTER_RELAXED FIND(events, event, handle)
    return driver.finish(*event, event->recorded), driver.lost;
}
Result cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
    ENTER FIND(events, start, from) FIND(events, end, to)
    if (!start->recorded || !end->recorded) return INVALID_HANDLE;
    if (start->done < start->recorded || end->done < end->recorded) return NOT_READY;
    return *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count(), SUCCESS;
}

Result cuModuleLoadData(Module** module, const void* image) {
    ENTER_RELAXED
    constexpr uint32_t FATBIN = 0xba55ed50;
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    if (reinterpret_cast<uint64_t>(image) % 8 != 0 || magic != FATBIN || !options.images) return INVALID_IMAGE;
    const std::string& file = driver.emulator->kernels[driver.loaded++ % driver.emulator->kernels.size()];
    Emulator::load(file, RTLD_LOCAL);
    return *module = driver.modules.add({file}), SUCCESS;
}
Result cuModuleUnload(Module* handle) {
    ENTER FIND(modules, module, handle)
    driver.finish_all();
    for (auto entry = driver.functions.begin(); entry != driver.functions.end();) {
        bool of_module = entry->second->module == module;
        entry = of_module ? driver.functions.erase(entry) : std::next(entry);
    }
    return driver.modules.erase(handle), SUCCESS;
}
Result cuModuleGetFunction(Function** function, Module* handle, const char* name) {
    ENTER FIND(modules, module, handle)
    size_t bytes;
    const char* file = driver.emulator->find(name, &bytes);
    if (!file || module->file != file) return NOT_FOUND;
    return *function = driver.functions.add({module, name, bytes}), SUCCESS;
}
Result cuFuncSetAttribute(Function* handle, int attribute, int value) {
    constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
    ENTER FIND(functions, function, handle)
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 || size_t(value) > options.shared) return INVALID_VALUE;
    return function->shared = unsigned(value), SUCCESS;
}
Result cuLaunchKernel(Function* handle, unsigned x, unsigned y, unsigned z, unsigned block, unsigned block_y, unsigned block_z, unsigned shared,
                      Stream* in, void** parameters, void** extra) {
    ENTER FIND(streams, stream, in)
    KernelNode node = {handle, x, y, z, block, block_y, block_z, shared, parameters, extra, nullptr, nullptr};
    Launch launch;
    Result result = driver.read(node, launch);
    return result ? result : driver.add(*stream, {[launch] { return driver.run(launch); }});
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER
    return *total = options.memory, *free = options.memory - std::min(options.memory, driver.used()), SUCCESS;
}
Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    ENTER_RELAXED
    if (bytes == 0) return INVALID_VALUE;
    void* memory = driver.used() + bytes > options.memory ? nullptr : driver.emulator->allocate(driver.device, bytes);
    if (!memory) return OUT_OF_MEMORY;
    *address = reinterpret_cast<uint64_t>(memory);
    return driver.allocated[*address] = bytes, SUCCESS;
}
Result cuMemFree_v2(uint64_t address) {
    ENTER_RELAXED
    if (!driver.allocated.count(address)) return INVALID_VALUE;
    driver.finish_all();
    driver.allocated.erase(address);
    return driver.emulator->free(driver.device, reinterpret_cast<void*>(address)), driver.lost;
}
Result cuMemHostAlloc(void** host, size_t bytes, unsigned) {
    ENTER_RELAXED
    if (!(*host = malloc(bytes))) return OUT_OF_MEMORY;
    return driver.pinned[reinterpret_cast<uint64_t>(*host)] = bytes, SUCCESS;
}
Result cuMemFreeHost(void* host) {
    ENTER_RELAXED
    if (!driver.pinned.erase(reinterpret_cast<uint64_t>(host))) return INVALID_VALUE;
    return free(host), SUCCESS;
}
// The host's memory is read and written when the copy happens, if it is page-locked; else before the call returns.
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* in) {
    ENTER FIND(streams, stream, in)
    auto upload = [=](const void* from) { return driver.ok(driver.emulator->upload(driver.device, reinterpret_cast<void*>(to), from, bytes)); };
    if (driver.is_pinned(from, bytes)) return driver.add(*stream, {[=] { return driver.is_pinned(from, bytes) ? upload(from) : ILLEGAL_ADDRESS; }});
    auto* start = static_cast<const char*>(from);
    std::vector<char> copy(start, start + bytes);
    return driver.add(*stream, {[=] { return upload(copy.data()); }});
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* in) {
    ENTER FIND(streams, stream, in)
    bool pinned = driver.is_pinned(to, bytes);
    Result result = driver.add(*stream, {[=] {
        if (pinned && !driver.is_pinned(to, bytes)) return ILLEGAL_ADDRESS;
        return driver.ok(driver.emulator->download(driver.device, to, reinterpret_cast<const void*>(from), bytes));
    }});
    if (result == SUCCESS && !pinned) driver.finish(*stream);
    return result ? result : driver.lost;
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* in) {
    ENTER FIND(streams, stream, in)
    auto *target = reinterpret_cast<void*>(to), *source = reinterpret_cast<void*>(from);
    return driver.add(*stream, {[=] { return driver.ok(driver.emulator->copy(driver.device, target, source, bytes)); }});
}
Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* in) {
    ENTER FIND(streams, stream, in)
    if (value != 0) return INVALID_VALUE;
    return driver.add(*stream, {[=] { return driver.ok(driver.emulator->clear(driver.device, reinterpret_cast<void*>(to), bytes)); }});
}

Result cuGraphCreate(Graph** graph, unsigned flags) {
    ENTER
    if (flags != 0) return INVALID_VALUE;
    return *graph = driver.graphs.add({}), SUCCESS;
}
// Of graphs whose nodes come one after another.
Result cuGraphAddKernelNode_v2(const void** node, Graph* handle, const void* const* behind, size_t count, const KernelNode* parameters) {
    ENTER FIND(graphs, graph, handle)
    std::deque<Launch>& launches = graph->launches;
    if (launches.empty() ? count != 0 : count != 1 || behind[0] != &launches.back()) return INVALID_VALUE;
    Launch launch;
    if (Result result = driver.read(*parameters, launch)) return result;
    launches.push_back(launch);
    return *node = &launches.back(), SUCCESS;
}
Result cuGraphInstantiateWithFlags(Executable** executable, Graph* handle, unsigned long long) {
    ENTER FIND(graphs, graph, handle)
    return *executable = driver.executables.add({*graph}), SUCCESS;
}
Result cuGraphDestroy(Graph* handle) {
    ENTER FIND(graphs, graph, handle)
    return driver.graphs.erase(graph), SUCCESS;
}
Result cuGraphLaunch(Executable* handle, Stream* in) {
    ENTER FIND(executables, executable, handle) FIND(streams, stream, in)
    return driver.add(*stream, {[launches = executable->launches] {
        Result result = SUCCESS;
        for (size_t i = 0; i < launches.size() && result == SUCCESS; i++) result = driver.run(launches[i]);
        return result;
    }});
}
Result cuGraphExecDestroy(Executable* handle) {
    ENTER FIND(executables, executable, handle)
    return driver.executables.erase(executable), SUCCESS;
}
}
#pragma GCC visibility pop
