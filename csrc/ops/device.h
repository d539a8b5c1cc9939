// device.h - queueing work on a GPU: its device made current, the stream of torch.
#pragma once
#include "ops/tensor.h"
#if LGR_HAVE_CUDA
#include "ops/cuda_stream.h"

namespace lgr {
// As long as it lives, the device of x is the current one.
class DeviceQueue {
  public:
    explicit DeviceQueue(const Tensor &x)
        : guard_(x.get_device_index()), stream_(current_cuda_stream(x.get_device_index())) {}
    void *stream() const { return stream_; }

  private:
    torch::stable::accelerator::DeviceGuard guard_;
    void *stream_;
};
} // namespace lgr
#endif
