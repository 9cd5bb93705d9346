// Runs a launch: blocks one after another, the threads of a block as fibers that give way at barriers.
//
// The order of the threads changes with every block and barrier, and that of the blocks with every launch, so that a missing
// barrier, or a block that needs another, has a chance to show.
#include "emulation.h"
#include <mutex>
#include <vector>

extern "C" {
struct Three { unsigned x, y, z; };
Three emulated_thread, emulated_block, emulated_block_size, emulated_grid_size;
unsigned emulated_lane;
}

namespace {
constexpr size_t STACK = 128 << 10, DYNAMIC_SHARED = 48 << 10;

struct Fiber {
    void *at = nullptr;
    char *stack = nullptr;
};
struct Warp {
    // Lanes that exist, may run, wait for their warp, wait for the block, and are done.
    unsigned exist, ready, at_warp, at_block, done;
    unsigned long long values[32];
};

std::mutex one_launch;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<char *> stacks;
char *dynamic_end;
size_t dynamic_bytes;
const Kernel *kernel;
void **parameters;
void *scheduler;
unsigned now;
unsigned votes[2], ballots, launches;

extern "C" void emulated_switch(void **from, void *to);
asm(R"(
.text
.type emulated_switch, @function
emulated_switch:
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

Warp &warp() { return warps[now / 32]; }
unsigned bit() { return 1u << now % 32; }

// Gives way to the scheduler until this thread is made ready again.
void give_way() { emulated_switch(&fibers[now].at, scheduler); }

void start() {
    kernel->call(parameters);
    warp().done |= bit();
    stacks.push_back(fibers[now].stack);
    fibers[now].stack = nullptr;
    give_way();
}

void *fresh(Fiber &fiber) {
    if (stacks.empty()) stacks.push_back(map_guarded(STACK));
    fiber.stack = stacks.back();
    stacks.pop_back();
    // Six saved registers and the return address, which a call would have left at 8 modulo 16.
    void **top = (void **)(fiber.stack + STACK - 16);
    *top = (void *)start;
    return top - 6;
}

void run(unsigned thread) {
    Fiber &fiber = fibers[thread];
    now = thread;
    warp().ready &= ~bit();
    emulated_lane = thread % 32;
    unsigned x = emulated_block_size.x, y = emulated_block_size.y;
    emulated_thread = {thread % x, thread / x % y, thread / x / y};
    emulated_switch(&scheduler, fiber.stack ? fiber.at : fresh(fiber));
}

void run_block(unsigned threads, unsigned order) {
    for (unsigned w = 0; w < warps.size(); w++) {
        unsigned exist = threads - w * 32 >= 32 ? ~0u : (1u << (threads - w * 32)) - 1;
        warps[w].exist = warps[w].ready = exist;
        warps[w].at_warp = warps[w].at_block = warps[w].done = 0;
    }
    for (;; order++) {
        for (unsigned i = 0; i < warps.size(); i++) {
            unsigned w = order % 2 ? (unsigned)warps.size() - 1 - i : i;
            while (unsigned ready = warps[w].ready)
                run(w * 32 + (order % 2 ? 31 - __builtin_clz(ready) : __builtin_ctz(ready)));
        }
        bool finished = true;
        for (Warp &w : warps) {
            if (w.at_warp) emulated_trap("lanes wait for others of their warp that never come: exited, or elsewhere");
            finished &= w.done == w.exist;
            w.ready = w.at_block;
            w.at_block = 0;
        }
        if (finished) return;
        votes[ballots++ % 2] = 0;
    }
}
} // namespace

extern "C" {
void emulated_trap(const char *why) {
    fprintf(stderr, "emulated GPU: %s, block (%u, %u, %u), thread (%u, %u, %u): %s\n", kernel ? kernel->name : "no kernel",
            emulated_block.x, emulated_block.y, emulated_block.z, emulated_thread.x, emulated_thread.y,
            emulated_thread.z, why);
    abort();
}

void *emulated_dynamic_shared() { return dynamic_end - (dynamic_bytes + 15) / 16 * 16; }

void emulated_sync_block() {
    warp().at_block |= bit();
    give_way();
}

// Two barriers: the votes are complete at the first, and the next vote counts elsewhere.
unsigned emulated_count(bool vote) {
    unsigned which = (ballots + 1) % 2;
    votes[which] += vote;
    emulated_sync_block();
    unsigned count = votes[which];
    emulated_sync_block();
    return count;
}

void emulated_sync_warp(unsigned mask) {
    Warp &own = warp();
    mask &= own.exist;
    if (!(mask & bit())) emulated_trap("a lane is missing in its own mask");
    own.at_warp |= bit();
    if ((own.at_warp & mask) == mask) {
        own.at_warp &= ~mask;
        own.ready |= mask & ~bit();
    } else {
        give_way();
    }
}

unsigned long long emulated_exchange(unsigned mask, unsigned long long value, unsigned from) {
    Warp &own = warp();
    own.values[now % 32] = value;
    emulated_sync_warp(mask);
    // A lane that takes no part has no value: what a GPU leaves undefined reads as NaN.
    unsigned long long read = (mask & own.exist) >> from & 1 ? own.values[from] : ~0ull;
    emulated_sync_warp(mask);
    return read;
}

unsigned emulated_ballot(unsigned mask, bool vote) {
    Warp &own = warp();
    own.values[now % 32] = vote;
    emulated_sync_warp(mask);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if ((mask & own.exist) >> lane & 1) votes |= (unsigned)own.values[lane] << lane;
    emulated_sync_warp(mask);
    return votes;
}

int cuLaunchKernel(const Kernel *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *, void **at, void **) {
    trace("launch %s (%u, %u, %u) x (%u, %u, %u)\n", function->name, gx, gy, gz, bx, by, bz);
    unsigned long long threads = (unsigned long long)bx * by * bz;
    bool fits = threads && threads <= 1024 && bz <= 64 && gx && gy && gz && gx < 1u << 31 && gy < 65536 && gz < 65536;
    if (!fits || shared > DYNAMIC_SHARED) return INVALID_VALUE;
    std::lock_guard<std::mutex> lock(one_launch);
    if (!dynamic_end) dynamic_end = map_guarded(DYNAMIC_SHARED) + DYNAMIC_SHARED;
    if (fibers.size() < threads) fibers.resize(threads);
    warps.resize((threads + 31) / 32);
    kernel = function;
    parameters = at;
    dynamic_bytes = shared;
    emulated_block_size = {bx, by, bz};
    emulated_grid_size = {gx, gy, gz};
    unsigned long long blocks = (unsigned long long)gx * gy * gz;
    bool backward = launches++ % 2;
    for (unsigned long long count = 0; count < blocks; count++) {
        unsigned long long block = backward ? blocks - 1 - count : count;
        emulated_block = {(unsigned)(block % gx), (unsigned)(block / gx % gy), (unsigned)(block / gx / gy)};
        // A block finds nothing of use in shared memory: NaN, which the first few show.
        if (count < 16) memset(function->shared, 0xff, function->shared_bytes);
        memset(emulated_dynamic_shared(), 0xff, shared);
        run_block((unsigned)threads, (unsigned)count);
    }
    kernel = nullptr;
    return 0;
}
}
