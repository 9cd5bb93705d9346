// The compiler: kernels become C++ functions in a shared library, whose path stands for the PTX.
//
// Libraries are kept under a digest of their source, beside this one, for the next process.
#include "emulation.h"
#include <dlfcn.h>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace {
struct Program {
    std::string source, path, log;
};

std::string read(const std::string &path) {
    std::ifstream file(path);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
}

std::string own_folder() {
    Dl_info info;
    dladdr((void *)own_folder, &info);
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

// Whether operands of tensor cores are rounded as there.
bool rounds() { return getenv("RQLAB_EMULATION_ROUNDING"); }

unsigned long long digest(const std::string &text) {
    unsigned long long hash = 0xcbf29ce484222325;
    for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
    return hash;
}

// Kernels in a namespace of their own, so that they may have any name, and a trampoline for each.
std::string translate(const std::string &source) {
    std::string body = std::regex_replace(source, std::regex("extern\\s+__shared__\\s+([^;]*?)(\\w+)\\s*\\[\\s*\\]\\s*;"),
                                          "$1 *$2 = ($1 *)emulated_dynamic_shared();");
    std::string trampolines;
    std::regex kernel("__global__[^;{(]*?(\\w+)\\s*\\(");
    for (std::sregex_iterator at(body.begin(), body.end(), kernel), end; at != end; ++at) {
        std::string name = (*at)[1];
        trampolines += "void emulated_call_" + name + "(void **at) { emulated_call(&" + name + ", at); }\n";
    }
    return "#define __global__\n"
           "#define __shared__ static __attribute__((section(\"emulated_shared\")))\n"
           "namespace {\n__shared__ char emulated_some[1];\nvoid *emulated_use() { return emulated_some; }\n" + body +
           "\n}\nextern \"C\" {\nextern char __start_emulated_shared[], __stop_emulated_shared[];\n"
           "char *emulated_shared_memory[2] = {__start_emulated_shared, __stop_emulated_shared};\n"
           "void *emulated_keep() { return emulated_use(); }\n" + trampolines + "}\n";
}

bool run(const std::string &command, Program &program, const std::string &log) {
    int status = system((command + " 2> " + log).c_str());
    program.log += read(log);
    unlink(log.c_str());
    return status == 0;
}
} // namespace

extern "C" {
// Differs with the header and the place, on which the library depends that a path kept as PTX leads to.
int nvrtcVersion(int *major, int *minor) {
    std::string folder = own_folder();
    return *major = 0, *minor = (int)((digest(folder + read(folder + "/device.h")) + rounds()) & 0x7fffffff), 0;
}
int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char **, const char **) {
    return *program = new Program{source, "", ""}, 0;
}
int nvrtcDestroyProgram(Program **program) { return delete *program, 0; }

int nvrtcCompileProgram(Program *program, int, const char **) {
    std::string folder = own_folder(), header = folder + "/device.h";
    char name[40];
    snprintf(name, sizeof name, "/cache/%016llx", digest(read(header) + program->source) + rounds());
    std::string stem = folder + name, mine = stem + "." + std::to_string(getpid());
    program->path = stem + ".so";
    if (!access(program->path.c_str(), R_OK)) return 0;
    mkdir((folder + "/cache").c_str(), 0777);
    std::string from = mine + ".cu", to = mine + ".cpp", library = mine + ".so";
    std::ofstream(from) << program->source;
    std::string compiler = std::string("g++ -std=c++17 -x c++ ") + (rounds() ? "-DEMULATED_ROUNDING " : "");
    // Marks stay in the text; what is the header's own comes with the second pass.
    bool fine = run(compiler + "-E -P -D__launch_bounds__\\(...\\)= -D__CUDACC__ " + from + " -o " + to, *program, mine + ".log");
    if (fine) {
        std::string body = translate(read(to));
        std::ofstream(to) << "#include \"" << header << "\"\n" << body;
        fine = run(compiler + "-O2 -march=native -ffp-contract=fast -fno-strict-aliasing -fPIC -shared "
                              "-fno-gnu-unique -Wno-unknown-pragmas " + to + " -o " + library, *program, mine + ".log");
    }
    if (fine) rename(library.c_str(), program->path.c_str());
    unlink(from.c_str());
    unlink(to.c_str());
    return fine ? 0 : 6;
}
int nvrtcGetPTXSize(Program *program, size_t *bytes) { return *bytes = program->path.size() + 1, 0; }
int nvrtcGetPTX(Program *program, char *to) { return strcpy(to, program->path.c_str()), 0; }
int nvrtcGetProgramLogSize(Program *program, size_t *bytes) { return *bytes = program->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program *program, char *to) { return strcpy(to, program->log.c_str()), 0; }
const char *nvrtcGetErrorString(int) { return "the emulated compiler failed"; }
}
