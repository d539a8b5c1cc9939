// emulated_threads.h - threads, warps, blocks and shared memory of the emulator: fibers that take turns.
#pragma once
#define LGR_EMULATED 1
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <pthread.h>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define LGR_QUIET                                                                                  \
    __attribute__((no_sanitize("thread"), noinline)) // the emulator's own bookkeeping is no race
#else
#define LGR_QUIET
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define LGR_SHARED(type, name)                                                                     \
    type &name = *emulated::shared<type>(                                                          \
        [] {                                                                                       \
            static char key;                                                                       \
            return &key;                                                                           \
        }(),                                                                                       \
        __LINE__)

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
typedef struct emulated_stream *cudaStream_t;
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace emulated {
constexpr size_t kStack = 64 << 10, kSharedLimit = 48 << 10;
enum state_t { READY, AT_BARRIER, AT_WARP, GONE };

struct thread {
    uint3 idx{};
    unsigned linear = 0;
    state_t state = GONE;
    const char *what = "";
    int line = 0;
    uint64_t in[4] = {}; // what this lane brings to a warp operation
    char *stack = nullptr;
#if defined(__x86_64__)
    void *sp = nullptr;
#else
    ucontext_t context;
#endif
    void *fake = nullptr, *fiber = nullptr;
};
struct block { // plain arrays, made before any fiber: under TSan nothing in here is a race
    uint3 idx{};
    unsigned n = 0, alive = 0, waiting = 0;
    thread threads[1024];
    unsigned warp_waiting[32] = {};
    uint64_t warp_in[32][32][4] = {}; // [warp][lane]: the last operation's operands
    int32_t warp_sums[32][16][8] = {}; // [warp]: the last matrix product
    struct {
        const char *key;
        char *at;
    } variables[16] = {};
    char *shared = nullptr;
    size_t shared_used = 0, shared_asked = 0;
};
struct world { // of one operating system thread
    block *b = nullptr;
    thread *now = nullptr;
    void (*run)(const void *) = nullptr;
    const void *job = nullptr;
    thread home;
    uint64_t random = 0;
    const void *stack_bottom = nullptr;
    size_t stack_size = 0;
    char begun = 0, done = 0; // what the host wrote is seen by a launch, and the other way round
};
inline thread_local world w;
inline std::map<uintptr_t, size_t> device_memory; // from cudaMalloc; tests are single threaded

[[noreturn]] inline void stop(const char *format, const char *what, int line, unsigned a)
{
    const block *b = w.b;
    fprintf(stderr, "emulated CUDA: ");
    fprintf(stderr, format, what, line, a);
    if (b)
        fprintf(stderr, " (block %u,%u,%u, thread %u)", b->idx.x, b->idx.y, b->idx.z,
                w.now ? w.now->linear : 0u);
    fputc('\n', stderr);
    abort();
}
LGR_QUIET inline unsigned dice(unsigned n)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return static_cast<unsigned>((w.random >> 20) % n);
}

// ---- fibers ----
#if defined(__x86_64__)
__attribute__((naked, noinline)) inline void swap_stacks(void **, void *)
{
    asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
        "movq %rsp, (%rdi); movq %rsi, %rsp\n"
        "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret\n");
}
#endif
LGR_QUIET inline void change(thread &from, thread &to, bool ends)
{
    w.now = &to == &w.home ? nullptr : &to;
    threadIdx = to.idx;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake,
                                   &to == &w.home ? w.stack_bottom : to.stack,
                                   &to == &w.home ? w.stack_size : kStack);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
    (void)ends;
#if defined(__x86_64__)
    swap_stacks(&from.sp, to.sp);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}
LGR_QUIET inline void release_if_all(block &b)
{
    if (b.alive == 0 || b.waiting != b.alive) return;
    b.waiting = 0;
    for (unsigned i = 0; i < b.n; ++i)
        if (b.threads[i].state == AT_BARRIER) b.threads[i].state = READY;
}
LGR_QUIET inline void wait_here(state_t state, const char *what, int line)
{
    thread &t = *w.now;
    t.state = state;
    t.what = what;
    t.line = line;
    change(t, w.home, false);
}
LGR_QUIET inline void give_way()
{
    if (w.now && w.random > 1) wait_here(READY, "", 0);
}
LGR_QUIET inline void first_steps()
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!w.stack_bottom) w.stack_bottom = bottom, w.stack_size = size;
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&w.begun);
#endif
    w.run(w.job);
    thread &t = *w.now;
    block &b = *w.b;
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&w.done);
#endif
    t.state = GONE;
    --b.alive;
    release_if_all(b);
    change(t, w.home, true);
    abort();
}
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kFibers = 6000; // TSan has 8128; making one takes long, so they are kept
inline void *fiber_of(uint64_t i)
{
    static thread_local std::vector<void *> fibers;
    const size_t at = static_cast<size_t>(i % kFibers);
    while (fibers.size() <= at) fibers.push_back(__tsan_create_fiber(0));
    return fibers[at];
}
#endif
inline char *stack_of(uint64_t i)
{
#if defined(__SANITIZE_THREAD__)
    i %= kFibers; // one for each fiber
#endif
    struct all {
        std::vector<char *> v;
        ~all()
        {
            for (char *p : v) free(p);
        }
    };
    static thread_local all stacks;
    while (stacks.v.size() <= i) stacks.v.push_back(static_cast<char *>(aligned_alloc(64, kStack)));
    return stacks.v[i];
}
inline void prepare(thread &t, uint64_t number)
{
    t.stack = stack_of(number);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(t.stack, kStack); // frames of the fiber before
#endif
    t.state = READY;
    t.fake = nullptr;
#if defined(__x86_64__)
    void **sp = reinterpret_cast<void **>(t.stack + kStack) - 2;
    *sp = reinterpret_cast<void *>(&first_steps); // where `ret` goes; six registers above it
    for (int i = 0; i < 6; ++i) *--sp = nullptr;
    t.sp = sp;
#else
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack;
    t.context.uc_stack.ss_size = kStack;
    makecontext(&t.context, &first_steps, 0);
#endif
}
LGR_QUIET inline void run_block(block &b)
{
    unsigned order[1024];
    while (b.alive) {
        unsigned ready = 0;
        const unsigned skipped =
            w.random > 1 ? dice(~0u) : 0; // warps that must wait: the others run ahead
        for (int all = 0; all < 2 && !ready; ++all)
            for (unsigned i = 0; i < b.n; ++i)
                if (b.threads[i].state == READY && (all || !(skipped >> (i / 32) & 1)))
                    order[ready++] = i;
        if (!ready)
            for (unsigned i = 0; i < b.n; ++i)
                if (b.threads[i].state != GONE)
                    stop("a thread waits at %s, line %d, and %u others do not come",
                         b.threads[i].what, b.threads[i].line, b.alive - 1);
        for (unsigned i = 0; i < ready; ++i) {
            if (w.random > 1) std::swap(order[i], order[i + dice(ready - i)]);
            change(w.home, b.threads[order[w.random == 1 ? ready - 1 - i : i]], false);
        }
    }
}

// ---- shared memory: 64 bytes between variables, so that ASan sees a step over the end ----
constexpr size_t kArena = kSharedLimit + 16 * 128;
template <class T> LGR_QUIET T *shared(const char *key, int line)
{
    block &b = *w.b;
    unsigned i = 0;
    while (i < 16 && b.variables[i].key && b.variables[i].key != key) ++i;
    if (i == 16) stop("%s, line %d (%u)", "more than 16 shared variables", line, i);
    if (!b.variables[i].key) {
        const size_t bytes = (sizeof(T) + 127) / 64 * 64;
        b.shared_asked += sizeof(T);
        if (b.shared_asked > kSharedLimit)
            stop("%s, line %d: %u bytes", "more shared memory than a block has", line,
                 static_cast<unsigned>(b.shared_asked));
        b.variables[i].key = key;
        b.variables[i].at = b.shared + b.shared_used;
        b.shared_used += bytes;
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(b.variables[i].at, sizeof(T));
#endif
    }
    return reinterpret_cast<T *>(b.variables[i].at);
}

} // namespace emulated
