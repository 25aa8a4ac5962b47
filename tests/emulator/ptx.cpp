// Reads PTX.
#include "ptx.h"
#include <cctype>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

namespace emulator {
namespace ptx {
using std::string;

// Lives as long as the process, as its file's other kernels do.
struct Compiled : Kernel {
    const Function* function;
    unsigned shared; // bytes that its file declares
    unsigned threads; // of a block, at most
    Compiled(const string& name, size_t bytes, const Function* function, unsigned shared, unsigned threads)
        : Kernel(strdup(name.c_str()), bytes, Kind::Compiled, start, nullptr), function(function), shared(shared), threads(threads) {}
    static void start(const void* arguments) {
        device->current().depth = 0;
        ptx::run(*static_cast<const Compiled*>(device->kernel)->function, arguments);
    }
};

[[noreturn]] void refuse(const string& text) { throw std::runtime_error(text); }

struct Reader {
    string text;
    size_t at = 0;
    int line = 1;
    const char* file;
    std::unordered_map<string, unsigned> shared; // offsets
    unsigned shared_end = 0;
    std::unordered_map<string, Function*> functions;

    // Of the function that is read.
    Function* function = nullptr;
    std::unordered_map<string, int> cells;
    std::unordered_map<string, size_t> labels;
    std::unordered_map<string, std::pair<Special, uint64_t>> symbols;
    std::vector<std::pair<size_t, string>> jumps, calls;
    std::unordered_map<string, int> constants;

    explicit Reader(const string& path) {
        std::ifstream stream(path);
        if (!stream) refuse("cannot be read");
        std::stringstream all;
        all << stream.rdbuf();
        text = all.str();
        file = strdup(path.c_str());
    }
    // The next statement, up to one of `ends`, which is passed over and given; 0 at the end. Within a function a brace is an end where it
    // stands alone: others hold vectors.
    char statement(string& result, const char* ends, bool within) {
        result.clear();
        for (; at < text.size(); at++) {
            char c = text[at];
            if (c == '/' && text[at + 1] == '/') {
                while (at < text.size() && text[at] != '\n') at++;
                at--;
                continue;
            }
            if (c == '\n') line++;
            bool first = result.empty();
            if (c && strchr(ends, c) && (!within || first || (c != '{' && c != '}'))) return at++, c;
            if (isspace((unsigned char)c)) {
                if (!first && result.back() != ' ') result += ' ';
            } else {
                result += c;
            }
        }
        return 0;
    }
    static std::vector<string> words(const string& s, const char* separators) {
        std::vector<string> result;
        string word;
        for (char c : s) {
            if (strchr(separators, c)) {
                if (!word.empty()) result.push_back(word);
                word.clear();
            } else {
                word += c;
            }
        }
        if (!word.empty()) result.push_back(word);
        return result;
    }
    int cell(const string& name) {
        auto [found, is_new] = cells.try_emplace(name, function->cells);
        if (is_new) function->cells++;
        return found->second;
    }
    int initial(Special what, uint64_t value) {
        auto [found, is_new] = constants.try_emplace(std::to_string(int(what)) + " " + std::to_string(value), function->cells);
        if (is_new) function->initial.push_back({function->cells++, what, value});
        return found->second;
    }
    int operand(const string& name) {
        static const std::unordered_map<string, Special> specials{
            {"%tid.x", Special::ThreadX},   {"%tid.y", Special::ThreadY},   {"%tid.z", Special::ThreadZ},     {"%ctaid.x", Special::BlockX},
            {"%ctaid.y", Special::BlockY},  {"%ctaid.z", Special::BlockZ},  {"%ntid.x", Special::SizeX},      {"%ntid.y", Special::SizeY},
            {"%ntid.z", Special::SizeZ},    {"%nctaid.x", Special::GridX},  {"%nctaid.y", Special::GridY},    {"%nctaid.z", Special::GridZ}};
        if (auto special = specials.find(name); special != specials.end()) return initial(special->second, 0);
        if (auto known = cells.find(name); known != cells.end()) return known->second;
        if (auto symbol = symbols.find(name); symbol != symbols.end()) return initial(symbol->second.first, symbol->second.second);
        if (auto variable = shared.find(name); variable != shared.end()) return initial(Special::Constant, variable->second);
        if (name[0] == '0' && (name[1] == 'f' || name[1] == 'd')) return initial(Special::Constant, std::stoull(name.substr(2), nullptr, 16));
        if (isdigit((unsigned char)name[0]) || name[0] == '-') {
            size_t used = 0;
            uint64_t value = name[0] == '-' ? uint64_t(std::stoll(name, &used, 0)) : std::stoull(name, &used, 0);
            if (used == name.size()) return initial(Special::Constant, value);
        }
        if (name[0] == '%') return cell(name); // declared by count
        refuse("line " + std::to_string(line) + ": what is '" + name + "'?");
    }

    void declare(const string& statement) { // .reg, .param, .local, .shared
        std::vector<string> parts = words(statement, " ,");
        if (parts[0] == ".reg") { // those that are declared by their count come when they are used
            for (size_t k = 2; k < parts.size(); k++)
                if (parts[k].find('<') == string::npos) cell(parts[k]);
            return;
        }
        size_t bytes = std::stoul(parts[parts.size() - 2].substr(2)) / 8, count = 1, alignment = bytes; // such as .b32
        for (size_t k = 0; k + 1 < parts.size(); k++)
            if (parts[k] == ".align") alignment = std::stoul(parts[k + 1]);
        string name = parts.back();
        if (size_t bracket = name.find('['); bracket != string::npos) {
            count = name[bracket + 1] == ']' ? 0 : std::stoul(name.substr(bracket + 1));
            name.resize(bracket);
        }
        if (parts[0] == ".param") { // of a call: the number in its name is its place
            uint64_t place = std::stoul(name.substr(name.find_first_of("0123456789")));
            symbols[name] = {Special::Calls, place * PARAMETER};
            function->calls = std::max<size_t>(function->calls, (place + 1) * PARAMETER);
            if (bytes * count > PARAMETER) refuse("a parameter of " + std::to_string(bytes * count) + " bytes");
        } else if (parts[0] == ".local") {
            symbols[name] = {Special::Local, 0};
            function->local = std::max<size_t>(function->local, bytes * count + 16);
        } else if (parts[0] == ".extern") {
            shared[name] = 0;
        } else {
            shared_end = unsigned((shared_end + alignment - 1) / alignment * alignment);
            shared[name] = STATIC_SHARED + shared_end;
            shared_end += unsigned(bytes * count);
        }
    }

    void instruction(string s) {
        Instruction i;
        i.site = {file, line};
        if (s[0] == '@') {
            size_t space = s.find(' ');
            i.guarded_by = s[1] != '!';
            i.guard = operand(s.substr(i.guarded_by ? 1 : 2, space - (i.guarded_by ? 1 : 2)));
            s = s.substr(space + 1);
        }
        size_t space = s.find(' ');
        string name = s.substr(0, space), rest = space == string::npos ? "" : s.substr(space + 1);
        if (name == "bra" || name == "bra.uni") {
            jumps.push_back({function->code.size(), words(rest, " ")[0]});
            rest.clear();
        } else if (name == "call.uni") {
            calls.push_back({function->code.size(), words(rest, " ,(")[0]});
            i.o[0] = initial(Special::Calls, 0);
            rest.clear();
        }
        if (name.rfind("mov.b", 0) == 0) {
            if (rest[0] == '{') name += " unpack";
            else if (rest.find('{') != string::npos) name += " pack";
        }
        int addresses = 0;
        for (string part : words(rest, ", {}|\t")) {
            if (part[0] == '[') { // [base+offset]
                part = part.substr(1, part.size() - 2);
                size_t plus = part.find('+');
                int64_t offset = plus == string::npos ? 0 : std::stoll(part.substr(plus + 1));
                (addresses++ == 0 ? i.offset : i.offset2) = offset;
                part.resize(std::min(plus, part.size()));
            }
            if (i.count >= OPERANDS) refuse("too many operands: " + s);
            i.o[i.count++] = operand(part);
        }
        i.run = find(name);
        if (!i.run) refuse("line " + std::to_string(line) + ": no instruction '" + name + "' in: " + s);
        function->code.push_back(i);
    }

    void body() {
        cells.clear(), labels.clear(), jumps.clear(), constants.clear(), calls.clear();
        string s;
        for (int depth = 1; depth > 0;) {
            char end = statement(s, ";{}:", true);
            if (end == 0) refuse("a function has no end");
            while (!s.empty() && s.back() == ' ') s.pop_back();
            if (end == '{') depth++;
            else if (end == '}') depth--;
            else if (end == ':') labels[s] = function->code.size();
            else if (s.rfind(".pragma", 0) == 0) continue;
            else if (s[0] == '.') declare(s);
            else instruction(s);
        }
        for (auto& [place, label] : jumps) {
            if (!labels.count(label)) refuse("no label " + label);
            function->code[place].offset = int64_t(labels[label]);
        }
        for (auto& [place, name] : calls) {
            if (!functions.count(name)) refuse("no function " + name);
            function->code[place].called = functions[name];
        }
    }

    void read() {
        string s;
        while (char end = statement(s, ";{", false)) {
            if (s.find(".entry ") == string::npos && s.find(".func ") == string::npos) {
                // Directives at the beginning end without a mark.
                size_t where = std::min(s.find(".extern"), s.find(".shared"));
                if (where != string::npos) declare(s.substr(where));
                continue;
            }
            bool is_kernel = s.find(".entry ") != string::npos;
            size_t open = s.find('(', s.find(is_kernel ? ".entry " : ".func ")), close = s.find(')', open);
            string name = words(s.substr(0, open), " ").back();
            size_t bound = s.find(".maxntid ");
            unsigned threads = bound == string::npos ? MAXIMAL_THREADS : unsigned(std::stoul(s.substr(bound + strlen(".maxntid "))));
            Function*& known = functions[name];
            function = known ? known : known = new Function;
            symbols.clear();
            size_t bytes = 0, place = 0;
            if (open != string::npos) {
                for (const string& parameter : words(s.substr(open + 1, close - open - 1), ",")) {
                    std::vector<string> parts = words(parameter, " ");
                    string own = parts.back();
                    size_t bracket = own.find('[');
                    if (bracket != string::npos) bytes = std::stoul(own.substr(bracket + 1)), own.resize(bracket);
                    symbols[own] = {Special::Parameters, place++ * PARAMETER};
                }
            }
            if (end == ';') continue; // declared, not defined
            body();
            if (is_kernel) new Compiled(name, bytes, function, shared_end, threads);
        }
    }
};
} // namespace ptx

unsigned shared_of(const Kernel& kernel) { return static_cast<const ptx::Compiled&>(kernel).shared; }
unsigned threads_of(const Kernel& kernel) { return static_cast<const ptx::Compiled&>(kernel).threads; }

std::string load_compiled(const char* path) {
    try {
        ptx::Reader(path).read();
    } catch (const std::exception& error) {
        return std::string(path) + ": " + error.what();
    }
    return "";
}
} // namespace emulator
