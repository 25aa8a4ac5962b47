// Kernels as NVIDIA's compiler makes them: what ptx.cpp reads and instructions.cpp runs, thread by thread, on the emulator's fibers.
//
// Registers are cells of 8 bytes. Addresses are the host's, but those of shared memory, which count from its beginning: dynamic first, what
// the file declares from STATIC_SHARED on. What a function gets, its local memory and where it puts the arguments of calls lie in its frame.
#pragma once
#include "runtime.h"

namespace emulator::ptx {
constexpr int OPERANDS = 16;
constexpr unsigned PARAMETER = 64; // bytes that a parameter of a function has

struct Frame {
    uint64_t* registers;
    size_t next; // instruction
};
struct Instruction {
    void (*run)(Frame&, const Instruction&) = nullptr;
    int guard = -1; // the predicate register that must be...
    bool guarded_by = true;
    int o[OPERANDS] = {}; // registers; constants have one
    int count = 0;
    int64_t offset = 0, offset2 = 0; // of addresses, the second's
    const struct Function* called = nullptr;
    Site site = {};
};
// What a register holds when a function begins.
enum class Special { Constant, Parameters, Calls, Local,
                     ThreadX, ThreadY, ThreadZ, BlockX, BlockY, BlockZ, SizeX, SizeY, SizeZ, GridX, GridY, GridZ };
struct Initial {
    int cell;
    Special what;
    uint64_t value; // or the offset in what is meant
};
struct Function {
    std::vector<Instruction> code;
    std::vector<Initial> initial;
    int cells = 0;
    size_t local = 0, calls = 0;
};

using Run = void (*)(Frame&, const Instruction&);
Run find(const std::string& name); // what an instruction does, by all of its name; null: it is not known
void run(const Function& function, const void* parameters);
} // namespace emulator::ptx
