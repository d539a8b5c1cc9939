// cuda_runtime.h - stands in for NVIDIA's header of this name: .cu files compiled as C++ run on the CPU.
//
// Every CUDA thread is a fiber. A block's fibers take turns in an order that a seed chooses and give way at barriers, warp
// operations and atomics, so a missing barrier shows as wrong bytes for some seed; under -fsanitize=thread every fiber is a
// thread of its own and a barrier the only order between them, so a missing barrier (or two writers of one byte, in one block or
// in two) is a report whatever the order. Blocks run one after another, in an order of the seed's.
//
// What real devices refuse is refused here: launch limits, divergent barriers and warp operations, uninitialised shared memory
// (filled with noise), device memory touched by the host (ASan), pointers to the host's stack or heap in arguments.
// What it cannot show: memory order between blocks inside one launch, speed, alignment of vector loads beyond UBSan's check,
// the PTX instruction itself (its documented result is computed).
//
//   LGR_EMULATED_SEED=n   0: threads in order; 1: backwards; else a random order from this seed
#pragma once
#include "emulated_threads.h"

namespace emulated {
// ---- launches ----
inline cudaError_t &last()
{
    static thread_local cudaError_t e = cudaSuccess;
    return e;
}
inline bool on_stack(uintptr_t p)
{
    static thread_local uintptr_t low = 0, high = 0;
    if (!high) {
        pthread_attr_t attr;
        void *base;
        size_t size;
        pthread_getattr_np(pthread_self(), &attr);
        pthread_attr_getstack(&attr, &base, &size);
        pthread_attr_destroy(&attr);
        low = reinterpret_cast<uintptr_t>(base);
        high = low + size;
    }
    return p >= low && p < high;
}
inline bool on_device(uintptr_t p)
{
    auto it = device_memory.upper_bound(p);
    return it != device_memory.begin() && (--it, p < it->first + (it->second ? it->second : 1));
}
template <class T> void check_argument(const T &v)
{
    static_assert(std::is_trivially_copyable_v<T>, "kernel arguments are copied as bytes");
    T copy = v;
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&copy); // what was on the stack before is no pointer
#endif
#endif
    for (size_t i = 0; i + 8 <= sizeof(T); i += 8) {
        uintptr_t word;
        memcpy(&word, reinterpret_cast<const char *>(&copy) + i, 8);
        if (on_stack(word))
            stop("%s (line %d, argument byte %u)", "an argument points to the host's stack", 0,
                 static_cast<unsigned>(i));
    }
    if constexpr (std::is_pointer_v<T>)
        if (v && !device_memory.empty() && !on_device(reinterpret_cast<uintptr_t>(v)))
            stop("%s (line %d, %u)", "an argument points to host memory", 0, 0u);
}
inline void protect(bool from_host)
{
#if defined(__SANITIZE_ADDRESS__)
    for (auto &m : device_memory)
        if (from_host) __asan_poison_memory_region(reinterpret_cast<void *>(m.first), m.second);
        else __asan_unpoison_memory_region(reinterpret_cast<void *>(m.first), m.second);
#else
    (void)from_host;
#endif
}
LGR_QUIET inline void begin_block(block &b, unsigned n, uint64_t number, uint64_t turn)
{
    b.idx = {static_cast<unsigned>(number % gridDim.x),
             static_cast<unsigned>(number / gridDim.x % gridDim.y),
             static_cast<unsigned>(number / gridDim.x / gridDim.y)};
    b.n = b.alive = n;
    b.waiting = 0;
    for (unsigned &v : b.warp_waiting) v = 0;
    for (auto &v : b.variables) v.key = nullptr;
    b.shared_used = b.shared_asked = 0;
    uint32_t noise = 12345 + static_cast<uint32_t>(number);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(b.shared, kArena);
#endif
    for (size_t i = 0; i < kArena; i += 4)
        *reinterpret_cast<uint32_t *>(b.shared + i) = noise = noise * 1664525u + 1013904223u;
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(b.shared, kArena);
#endif
    for (unsigned i = 0; i < n; ++i) {
        thread &t = b.threads[i];
        t.linear = i;
        t.idx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
#if !defined(__SANITIZE_THREAD__)
        turn = 0;
#endif
        prepare(t, turn * n + i); // under TSan the stack that belongs to the fiber
    }
}
LGR_QUIET inline void run_grid(dim3 grid, dim3 size)
{
    const char *seed = getenv("LGR_EMULATED_SEED");
    w.random = seed ? strtoull(seed, nullptr, 10) : 0;
    if (w.random > 1) w.random = w.random * 0x9e3779b97f4a7c15u + 0x1234567u;
    const unsigned n = size.x * size.y * size.z;
    const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    blockDim = size;
    gridDim = grid;
    protect(false);
#if defined(__SANITIZE_THREAD__)
    const uint64_t made =
        count; // nothing orders one block before another: each has its own fibers and memory
#else
    const uint64_t made = 1;
#endif
    block *blocks = new block[made];
    for (uint64_t i = 0; i < made; ++i)
        blocks[i].shared = static_cast<char *>(aligned_alloc(128, kArena));
#if defined(__SANITIZE_THREAD__)
    w.home.fiber = __tsan_get_current_fiber();
    for (uint64_t i = 0; i < made; ++i)
        for (unsigned j = 0; j < n; ++j) blocks[i].threads[j].fiber = fiber_of(i * n + j);
    __tsan_release(&w.begun);
#endif
    uint64_t step = 1; // an order of the blocks: number = start + i * step modulo count
    const uint64_t start = w.random > 1 ? dice(~0u) % count : w.random ? count - 1 : 0;
    if (w.random == 1) step = count - 1;
    if (w.random > 1) do
            step = dice(~0u) % count + 1;
        while (std::gcd(step, count) != 1);
    for (uint64_t i = 0, number = start; i < count; ++i, number = (number + step) % count) {
        block &b = blocks[made == 1 ? 0 : i];
        begin_block(b, n, number, i);
        w.b = &b;
        blockIdx = b.idx;
        run_block(b);
    }
    w.b = nullptr;
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&w.done);
#endif
    for (uint64_t i = 0; i < made; ++i) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(blocks[i].shared, kArena);
#endif
        free(blocks[i].shared);
    }
    delete[] blocks;
    protect(true);
}
LGR_QUIET inline unsigned lane() { return w.now->linear & 31; }
LGR_QUIET inline unsigned warp() { return w.now->linear >> 5; }
/* Brings up to four words, waits for the warp, and returns what all lanes brought. No memory order: that is __syncwarp. */
LGR_QUIET inline const uint64_t (*exchange(const char *what, int line, unsigned mask,
                                           const uint64_t *in, int words,
                                           void (*combine)(block &, unsigned) = nullptr))[4]
{
    block &b = *w.b;
    thread &t = *w.now;
    const unsigned i = warp();
    if (mask != ~0u) stop("%s, line %d: only full masks are emulated, got %x", what, line, mask);
    if ((i + 1) * 32 > b.n)
        stop("%s, line %d: the last warp has fewer than 32 threads (%u)", what, line, b.n);
    for (int k = 0; k < words; ++k) t.in[k] = in[k];
    for (unsigned l = 0; l < 32; ++l) {
        const thread &o = b.threads[i * 32 + l];
        if (o.state == GONE) stop("%s, line %d: lane %u has left the kernel", what, line, l);
        if (o.state == AT_WARP && (o.line != line || strcmp(o.what, what)))
            stop("%s, line %d: lane %u is at another warp operation", what, line, l);
    }
    if (++b.warp_waiting[i] < 32) {
        wait_here(AT_WARP, what, line);
    } else {
        b.warp_waiting[i] = 0;
        for (unsigned l = 0; l < 32; ++l) {
            thread &o = b.threads[i * 32 + l];
            for (int k = 0; k < 4; ++k) b.warp_in[i][l][k] = o.in[k];
            o.state = READY;
        }
        if (combine) combine(b, i); // by the last to come, for all
        give_way();
    }
    return b.warp_in[i];
}
// D = A (16 x 32, rows) * B (32 x 8, columns) + C of signed bytes, from the PTX manual's tables: lane = 4 * group + member;
// A: register r holds row group + 8 * (r & 1), columns 4 * member + 16 * (r >> 1) ..; B: register r holds column group, rows
// 4 * member + 16 * r ..; C: c[i] is row group + 8 * (i >> 1), column 2 * member + (i & 1). Sums wrap.
LGR_QUIET inline void product_of_warp(block &b, unsigned w)
{
    int8_t rows[16][32], columns[8][32];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned group = lane >> 2, member = lane & 3;
        const uint64_t *in = b.warp_in[w][lane];
        for (unsigned byte = 0; byte < 4; ++byte) {
            for (unsigned r = 0; r < 4; ++r)
                rows[group + 8 * (r & 1)][4 * member + 16 * (r >> 1) + byte] =
                    static_cast<int8_t>(in[r >> 1] >> (32 * (r & 1) + 8 * byte));
            for (unsigned r = 0; r < 2; ++r)
                columns[group][4 * member + 16 * r + byte] =
                    static_cast<int8_t>(in[2] >> (32 * r + 8 * byte));
        }
    }
    for (unsigned i = 0; i < 16; ++i)
        for (unsigned j = 0; j < 8; ++j) {
            int32_t sum = 0;
            for (unsigned k = 0; k < 32; ++k) sum += rows[i][k] * columns[j][k];
            b.warp_sums[w][i][j] = sum;
        }
}
LGR_QUIET inline void mma_m16n8k32_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2],
                                      int line)
{
    const uint64_t in[3] = {a[0] | static_cast<uint64_t>(a[1]) << 32,
                            a[2] | static_cast<uint64_t>(a[3]) << 32,
                            b[0] | static_cast<uint64_t>(b[1]) << 32};
    exchange("mma", line, ~0u, in, 3, product_of_warp);
    const unsigned group = lane() >> 2, member = lane() & 3;
    for (unsigned i = 0; i < 4; ++i)
        c[i] = static_cast<int32_t>(
            static_cast<uint32_t>(c[i]) +
            static_cast<uint32_t>(
                w.b->warp_sums[warp()][group + 8 * (i >> 1)][2 * member + (i & 1)]));
}
} // namespace emulated

LGR_QUIET inline void __syncthreads(int line = __builtin_LINE())
{
    emulated::block &b = *emulated::w.b;
    for (unsigned i = 0; i < b.n; ++i)
        if (b.threads[i].state == emulated::AT_BARRIER && b.threads[i].line != line)
            emulated::stop("%s in line %d and in line %u of one block", "threads wait at barriers",
                           line, static_cast<unsigned>(b.threads[i].line));
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&b);
#endif
    ++b.waiting;
    emulated::w.now->state = emulated::AT_BARRIER;
    emulated::release_if_all(b);
    if (emulated::w.now->state == emulated::AT_BARRIER)
        emulated::wait_here(emulated::AT_BARRIER, "__syncthreads", line);
    else emulated::give_way();
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&b);
#endif
}
LGR_QUIET inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE())
{
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&emulated::w.b->warp_waiting[emulated::warp()]);
#endif
    emulated::exchange("__syncwarp", line, mask, nullptr, 0);
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&emulated::w.b->warp_waiting[emulated::warp()]);
#endif
}
template <class T>
LGR_QUIET T __shfl_xor_sync(unsigned mask, T v, int d, int = 32, int line = __builtin_LINE())
{
    uint64_t in = 0;
    for (size_t i = 0; i < sizeof v; ++i)
        reinterpret_cast<char *>(&in)[i] = reinterpret_cast<const char *>(&v)[i];
    const uint64_t out = emulated::exchange("__shfl_xor_sync", line, mask, &in,
                                            1)[emulated::lane() ^ static_cast<unsigned>(d)][0];
    for (size_t i = 0; i < sizeof v; ++i)
        reinterpret_cast<char *>(&v)[i] = reinterpret_cast<const char *>(&out)[i];
    return v;
}
LGR_QUIET inline unsigned __ballot_sync(unsigned mask, int p, int line = __builtin_LINE())
{
    const uint64_t in = p != 0;
    const auto all = emulated::exchange("__ballot_sync", line, mask, &in, 1);
    unsigned v = 0;
    for (unsigned l = 0; l < 32; ++l) v |= static_cast<unsigned>(all[l][0]) << l;
    return v;
}
template <class T> T atomicMax(T *p, T v)
{
    emulated::give_way();
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v > old &&
           !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {}
    return old;
}
template <class T> T atomicAdd(T *p, T v)
{
    emulated::give_way();
    return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
}
inline void __threadfence() {}
inline int __float_as_int(float f)
{
    int i;
    memcpy(&i, &f, 4);
    return i;
}
inline float __int_as_float(int i)
{
    float f;
    memcpy(&f, &i, 4);
    return f;
}

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    void *attrs;
    unsigned numAttrs;
};
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...args)
{
    const dim3 g = config->gridDim, b = config->blockDim;
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z || g.x > 0x7fffffffu || g.y > 65535 ||
        g.z > 65535 || static_cast<uint64_t>(b.x) * b.y * b.z > 1024 || config->dynamicSmemBytes)
        return emulated::last() = cudaErrorInvalidConfiguration;
    static_assert((sizeof(P) + ... + 0) <= 4096, "arguments of a kernel: at most 4 KB");
    struct job {
        void (*kernel)(P...);
        std::tuple<P...> args;
    } j{kernel, std::tuple<P...>(static_cast<P>(args)...)};
    std::apply([](const auto &...v) { (emulated::check_argument(v), ...); }, j.args);
    emulated::w.job = &j;
    emulated::w.run = [](const void *p) {
        const job *k = static_cast<const job *>(p);
        std::apply(k->kernel, k->args);
    };
    emulated::run_grid(g, b);
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError()
{
    const cudaError_t e = emulated::last();
    emulated::last() = cudaSuccess;
    return e;
}
inline cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t)
{
    emulated::protect(false);
    memset(p, v, n);
    emulated::protect(true);
    return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
inline cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind)
{
    emulated::protect(false);
    memcpy(to, from, n);
    emulated::protect(true);
    return cudaSuccess;
}
inline cudaError_t cudaMalloc(void **p, size_t n)
{
    *p = malloc(n ? n : 1);
    emulated::device_memory[reinterpret_cast<uintptr_t>(*p)] = n;
    emulated::protect(true);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void *p)
{
    emulated::protect(false);
    emulated::device_memory.erase(reinterpret_cast<uintptr_t>(p));
    free(p);
    emulated::protect(true);
    return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess                     ? "no error"
           : e == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                                : "invalid argument";
}
