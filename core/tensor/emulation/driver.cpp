// The driver: one device whose memory is the host's, and which does all at once.
//
// Every allocation ends at a page that nothing may touch, so that a kernel or a copy that goes too far stops there; the
// few bytes of padding are checked when it is freed. Fresh memory is full of NaN.
#include "emulation.h"
#include <deque>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {
constexpr size_t PAGE = 4096;
constexpr unsigned char PADDING = 0xa5;

struct Allocation {
    size_t bytes;
    bool pinned;
};
std::mutex guard;
std::map<char *, Allocation> allocations;

// A copy out of pinned memory. It is made at once, but a GPU reads when it gets there: until the host knows that it has,
// nobody may write or free what is read.
struct Flight {
    const char *from;
    std::string bytes;
    unsigned long long number;
};
std::deque<Flight> flights;
unsigned long long departed;

// The number of the last copy before it.
struct Event {
    unsigned long long number;
    bool asked;
};

// The host knows of all copies up to `number` that they are done.
void landed(unsigned long long number) {
    std::lock_guard<std::mutex> lock(guard);
    for (; !flights.empty() && flights.front().number <= number; flights.pop_front())
        if (memcmp(flights.front().from, flights.front().bytes.data(), flights.front().bytes.size()))
            emulated_trap("pinned memory was written before a copy out of it was known to be done");
}

size_t pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

void touched_guard(int, siginfo_t *info, void *) {
    char *at = (char *)info->si_addr;
    // The process ends here: without the lock, the worst is a wrong message.
    auto next = allocations.upper_bound(at);
    fprintf(stderr, "emulated GPU: address %p is in no allocation\n", (void *)at);
    if (next != allocations.begin()) {
        auto before = std::prev(next);
        fprintf(stderr, "  %zd bytes after the start of one of %zu bytes\n", at - before->first, before->second.bytes);
    }
    emulated_trap("touched memory outside of all allocations");
}

struct Module {
    void *library;
    std::map<std::string, Kernel> kernels;
};
} // namespace

char *map_guarded(size_t bytes) {
    char *all = (char *)mmap(nullptr, pages(bytes) + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + PAGE, pages(bytes), PROT_READ | PROT_WRITE)) return nullptr;
    return all + PAGE;
}

namespace {
int allocate(char **at, size_t bytes, bool pinned) {
    // A real allocation is aligned to more; vector loads want 16.
    size_t room = (bytes + 15) / 16 * 16;
    char *start = map_guarded(room ? room : 16);
    if (!start) return 2;
    char *begin = start + pages(room ? room : 16) - room;
    memset(begin, 0xff, bytes);
    memset(begin + bytes, PADDING, room - bytes);
    std::lock_guard<std::mutex> lock(guard);
    allocations[begin] = {bytes, pinned};
    return *at = begin, 0;
}
int release(char *at, bool pinned) {
    if (!at) return 0;
    size_t bytes;
    {
        std::lock_guard<std::mutex> lock(guard);
        auto found = allocations.find(at);
        if (found == allocations.end()) emulated_trap("freed what was not allocated");
        if (found->second.pinned != pinned) emulated_trap("memory of the host and of the GPU are freed in different ways");
        bytes = found->second.bytes;
        for (Flight &flight : flights)
            if (flight.from >= at && flight.from < at + bytes)
                emulated_trap("pinned memory was freed before a copy out of it was known to be done");
        allocations.erase(found);
    }
    size_t room = (bytes + 15) / 16 * 16;
    for (size_t i = bytes; i < room; i++)
        if ((unsigned char)at[i] != PADDING) emulated_trap("an allocation was written beyond its end");
    char *start = (char *)((size_t)at / PAGE * PAGE) - PAGE;
    if (room == 0) start -= PAGE;
    return munmap(start, pages(room ? room : 16) + 2 * PAGE), 0;
}
} // namespace

extern "C" {
int cuInit(unsigned) {
    struct sigaction action = {};
    action.sa_sigaction = touched_guard;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    return 0;
}
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal ? 101 : 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = 80ull << 30, 0; }
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, (size_t)length, "emulated GPU"), 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 1: *value = 1024; break;         // threads of a block
    case 8: *value = 48 << 10; break;     // shared memory of a block
    case 10: *value = 32; break;          // lanes of a warp
    case 16: *value = 132; break;         // multiprocessors
    case 75: *value = 9; break;           // compute capability
    case 76: *value = 0; break;
    case 81: *value = 228 << 10; break;   // shared memory of a multiprocessor
    case 97: *value = 227 << 10; break;   // shared memory of a block that asks for more
    case 115: *value = 1; break;          // memory pools
    default: *value = 0;
    }
    return 0;
}
int cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = (void *)4, 0; }
int cuMemPoolSetAttribute(void *, int, void *) { return 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = (void *)1, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)1, 0; }
int cuCtxSynchronize() { return landed(~0ull), 0; }
int cuStreamCreate(void **stream, unsigned) { return *stream = (void *)2, 0; }
int cuStreamSynchronize(void *) { return landed(~0ull), 0; }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamWaitEvent(void *, void *, unsigned) { return 0; }
int cuEventCreate(Event **event, unsigned) { return *event = new Event{0, false}, 0; }
int cuEventRecord(Event *event, void *) {
    std::lock_guard<std::mutex> lock(guard);
    return *event = {departed, false}, 0;
}
int cuEventSynchronize(Event *event) { return landed(event->number), 0; }
// Who asks for the first time hears that it is not done.
int cuEventQuery(Event *event) {
    if (!event->asked) return event->asked = true, NOT_READY;
    return landed(event->number), 0;
}
int cuEventElapsedTime(float *milliseconds, Event *, Event *) { return *milliseconds = 0, 0; }
int cuEventDestroy_v2(Event *event) { return delete event, 0; }
int cuGetErrorName(int, const char **text) { return *text = "an error of the emulated GPU", 0; }
int cuGetErrorString(int, const char **text) { return *text = "an error of the emulated GPU", 0; }
int cuMemGetInfo_v2(size_t *unused, size_t *total) { return *unused = *total = 80ull << 30, 0; }

int cuMemAlloc_v2(char **at, size_t bytes) { return allocate(at, bytes, false); }
int cuMemFree_v2(char *at) { return release(at, false); }
int cuMemHostAlloc(char **at, size_t bytes, unsigned) { return allocate(at, bytes, true); }
int cuMemFreeHost(char *at) { return release(at, true); }
int cuMemAllocAsync(char **at, size_t bytes, void *) { return cuMemAlloc_v2(at, bytes); }
int cuMemFreeAsync(char *at, void *) { return cuMemFree_v2(at); }
int cuMemsetD8_v2(char *at, unsigned char value, size_t bytes) { return memset(at, value, bytes), 0; }
int cuMemsetD8Async(char *at, unsigned char value, size_t bytes, void *) { return memset(at, value, bytes), 0; }
int cuMemcpyHtoD_v2(char *to, const char *from, size_t bytes) {
    trace("host to device: %zu bytes\n", bytes);
    return memcpy(to, from, bytes), 0;
}
int cuMemcpyHtoDAsync_v2(char *to, const char *from, size_t bytes, void *) {
    cuMemcpyHtoD_v2(to, from, bytes);
    std::lock_guard<std::mutex> lock(guard);
    auto next = allocations.upper_bound((char *)from);
    bool known = next != allocations.begin() && from < std::prev(next)->first + std::prev(next)->second.bytes;
    if (known && std::prev(next)->second.pinned) flights.push_back({from, std::string(from, bytes), ++departed});
    return 0;
}
int cuMemcpyDtoH_v2(char *to, const char *from, size_t bytes) {
    trace("device to host: %zu bytes\n", bytes);
    return memcpy(to, from, bytes), 0;
}
int cuMemcpyDtoHAsync_v2(char *to, const char *from, size_t bytes, void *) { return cuMemcpyDtoH_v2(to, from, bytes); }
int cuMemcpyDtoD_v2(char *to, const char *from, size_t bytes) { return memcpy(to, from, bytes), 0; }
int cuMemcpyDtoDAsync_v2(char *to, const char *from, size_t bytes, void *) { return memcpy(to, from, bytes), 0; }

// The image that nvrtc.cpp makes is the path of a shared library.
int cuModuleLoadData(Module **module, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fprintf(stderr, "emulated GPU: no module of its own: %.200s\n", dlerror()), 200;
    return *module = new Module{library, {}}, 0;
}
int cuModuleGetFunction(Kernel **kernel, Module *module, const char *name) {
    auto call = (void (*)(void **))dlsym(module->library, ("emulated_call_" + std::string(name)).c_str());
    auto shared = (char **)dlsym(module->library, "emulated_shared_memory");
    if (!call || !shared) return NOT_FOUND;
    Kernel &own = module->kernels[name];
    own = {strdup(name), call, shared[0], (size_t)(shared[1] - shared[0])};
    return *kernel = &own, 0;
}
int cuModuleLoad(Module **module, const char *path) { return cuModuleLoadData(module, path); }
int cuModuleUnload(Module *) { return 0; }
int cuProfilerStart() { return 0; }
int cuProfilerStop() { return 0; }
}
