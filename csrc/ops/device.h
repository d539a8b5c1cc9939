// device.h - operators on a GPU: where they run, the queue, outputs that kernels fill, checks of devices. No arithmetic.
//
// An adapter serves the CPU and CUDA: `LGR_ON_GPU(x) { ...; return ...; }` is its second half where CUDA kernels are built.
// LGR_EMULATE (tests/c/cuda): the same adapters over kernels that run on the CPU; every tensor counts as one on a GPU.
#pragma once
#include "ops/state.h"
#if LGR_HAVE_CUDA && !LGR_EMULATE
#include "ops/cuda_stream.h"
#endif

#define LGR_ON_GPU(x)                                                                              \
    if constexpr (lgr::kCuda)                                                                      \
        if (lgr::on_gpu(x))

namespace lgr {
constexpr bool kCuda = LGR_HAVE_CUDA;
#if LGR_EMULATE
inline bool on_gpu(const Tensor &) { return true; }
#else
inline bool on_gpu(const Tensor &x) { return !x.is_cpu(); }
#endif

// As long as it lives, the device of x is the current one.
class DeviceQueue {
  public:
#if LGR_HAVE_CUDA && !LGR_EMULATE
    explicit DeviceQueue(const Tensor &x)
        : guard_(x.get_device_index()), stream_(current_cuda_stream(x.get_device_index())) {}
    void *stream() const { return stream_; }

  private:
    torch::stable::accelerator::DeviceGuard guard_;
    void *stream_;
#else
    explicit DeviceQueue(const Tensor &) {}
    void *stream() const { return nullptr; }
#endif
};

inline std::string device_name(const Tensor &t) {
    return t.is_cpu() ? "cpu" : "cuda:" + std::to_string(t.get_device_index());
}
// Every operand must be where x is.
struct Named {
    const char *name;
    const Tensor *tensor; // nullptr: none was given
    Named(const char *n, const Tensor &t) : name(n), tensor(&t) {}
    Named(const char *n, const Tensor *t) : name(n), tensor(t) {}
    Named(const char *n, const OptTensor &t) : name(n), tensor(t ? &*t : nullptr) {}
};
inline void same_device(const char *op, const Tensor &x, std::initializer_list<Named> others) {
    for (const Named &other : others) {
        const Tensor *t = other.tensor;
        STD_TORCH_CHECK(!t || (t->is_cpu() == x.is_cpu() &&
                               (x.is_cpu() || t->get_device_index() == x.get_device_index())),
                        op, ": ", other.name, " is on ", device_name(*t), ", x on ", device_name(x),
                        "; move one of them");
    }
}
// Pointer to one float32 where x is.
inline const float *scale_at(const char *op, const Tensor &x, const char *name, const Tensor &t) {
    same_device(op, x, {{name, t}});
    STD_TORCH_CHECK(t.numel() == 1 && t.scalar_type() == ScalarType::Float, op, ": ", name,
                    " must be one float32, got ", t.numel(), " elements");
    return t.const_data_ptr<float>();
}

// Tensors that a kernel fills, where x is.
inline Tensor scalar_at(const Tensor &x, int32_t dtype) {
    return fresh(nullptr, 0, dtype, place_of(x));
}
inline Tensor scratch_at(const Tensor &x, int64_t bytes) {
    return fresh_1d(bytes, aoti_torch_dtype_uint8(), place_of(x));
}
template <class T> const T *data_at(const OptTensor &t) {
    return t ? t->const_data_ptr<T>() : nullptr;
}
} // namespace lgr
