// device_memory.h - host and device arrays that compare by bytes; the same tests run emulated and on a GPU.
#pragma once
#include <cuda_runtime.h>
#include "harness.h"
#include <vector>
#define CUDA_CHECK(call) CHECK((call) == cudaSuccess)

template <class T> class host {
  public:
    explicit host(int64_t n = 0) : v_((size_t)n + 1)
    {
        memset((void *)v_.data(), 0, v_.size() * sizeof(T));
    }
    host(int64_t n, T v) : host(n)
    {
        for (int64_t i = 0; i < n; ++i) memcpy((void *)&v_[(size_t)i], &v, sizeof v);
    }
    T *data() { return v_.data(); }
    const T *data() const { return v_.data(); }
    T &operator[](int64_t i) { return v_[(size_t)i]; }
    size_t size() const { return v_.size() - 1; }

  private:
    std::vector<T> v_;
};

template <class T> class device { // filled with 0xa5: what a kernel forgets to write shows
  public:
    explicit device(int64_t n = 0) { resize(n); }
    void resize(int64_t n)
    {
        cudaFree(at_);
        void *p = nullptr;
        n_ = (size_t)n;
        CUDA_CHECK(cudaMalloc(&p, n_ * sizeof(T)));
        at_ = (T *)p;
        CUDA_CHECK(cudaMemsetAsync(at_, 0xa5, n_ * sizeof(T), nullptr));
    }
    device(const device &) = delete;
    ~device() { cudaFree(at_); }
    T *data() { return at_; }
    void put(const T *from)
    {
        if (n_) CUDA_CHECK(cudaMemcpy(at_, from, n_ * sizeof(T), cudaMemcpyHostToDevice));
    }
    host<T> get() const
    {
        host<T> h((int64_t)n_);
        CUDA_CHECK(cudaDeviceSynchronize());
        if (n_)
            CUDA_CHECK(cudaMemcpy((void *)h.data(), at_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
        return h;
    }
    bool operator==(const host<T> &o) const
    {
        const host<T> h = get();
        return h.size() == o.size() &&
               memcmp((const void *)h.data(), (const void *)o.data(), h.size() * sizeof(T)) == 0;
    }

  private:
    T *at_ = nullptr;
    size_t n_ = 0;
};
