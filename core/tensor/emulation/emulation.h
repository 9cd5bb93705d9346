// What the parts of the emulation share.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>

constexpr int INVALID_VALUE = 1, NOT_FOUND = 500, NOT_READY = 600;

struct Kernel {
    const char *name;
    void (*call)(void **parameters);
    // The shared variables of all kernels of its module.
    char *shared;
    size_t shared_bytes;
};

extern "C" [[noreturn]] void emulated_trap(const char *why);

// Says what happens, if the environment asks for it.
#define trace(...) (tracing() ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)
inline bool tracing() {
    static bool on = getenv("RQLAB_EMULATION_TRACE");
    return on;
}

// `bytes` of fresh memory, a multiple of a page, with a page before and after that nothing may touch.
char *map_guarded(size_t bytes);
