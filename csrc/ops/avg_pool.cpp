// avg_pool.cpp - average pooling of codes, planar or interleaved. No arithmetic here.
#include "lgr/avg_pool.h"
#include "lgr/avg_pool_cuda.h"
#include "ops/device.h"
#include <vector>

namespace {
using lgr::ScalarType;
using lgr::Tensor;
using Ints = std::vector<int64_t>;

int64_t output_size(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride) {
    const int64_t room = size + before + after - kernel;
    STD_TORCH_CHECK(room >= 0, "avg_pool: the window of ", kernel,
                    " is larger than the padded input of ", size + before + after);
    return room / stride + 1;
}

struct Job {
    Tensor in, codes;
    lgr_avg_pool_params p = {};
    bool interleaved = false;

    Job(const Tensor &x, const Ints &kernel, const Ints &stride, const Ints &padding)
        : in(x), codes(x) {
        STD_TORCH_CHECK(x.dim() == 4, "avg_pool: x must have 4 dimensions, got ", x.dim());
        STD_TORCH_CHECK(x.scalar_type() == ScalarType::Char || x.scalar_type() == ScalarType::Int,
                        "avg_pool: codes must be int8 or int32");
        STD_TORCH_CHECK(kernel.size() == 2 && stride.size() == 2 && padding.size() == 4,
                        "avg_pool: kernel and stride need 2 values, padding 4");
        for (size_t i = 0; i < 4; ++i) {
            STD_TORCH_CHECK(kernel[i % 2] >= 1 && stride[i % 2] >= 1,
                            "avg_pool: kernel and stride must be positive");
            STD_TORCH_CHECK(padding[i] >= 0 && padding[i] <= kernel[i % 2],
                            "avg_pool: padding must be in [0, kernel], got ", padding[i]);
        }
        interleaved = lgr::is_channels_last(x);
        if (!interleaved) in = lgr::contiguous(x);
        const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
        const int64_t oh = output_size(h, padding[0], padding[2], kernel[0], stride[0]);
        const int64_t ow = output_size(w, padding[1], padding[3], kernel[1], stride[1]);
        codes = make(n, c, oh, ow,
                     x.scalar_type() == ScalarType::Char ? aoti_torch_dtype_int8()
                                                         : aoti_torch_dtype_int32());
        p.n = interleaved ? n : n * c;
        p.c = interleaved ? c : 1;
        p.h = h;
        p.w = w;
        p.oh = oh;
        p.ow = ow;
        p.kh = lgr::to_i32(kernel[0], "kernel");
        p.kw = lgr::to_i32(kernel[1], "kernel");
        p.sh = lgr::to_i32(stride[0], "stride");
        p.sw = lgr::to_i32(stride[1], "stride");
        p.pad_top = lgr::to_i32(padding[0], "padding");
        p.pad_left = lgr::to_i32(padding[1], "padding");
        p.bytes = x.scalar_type() == ScalarType::Char ? 1 : 4;
    }
    Tensor make(int64_t n, int64_t c, int64_t oh, int64_t ow, int32_t dtype) const {
        const int64_t sizes[] = {n, c, oh, ow};
        return interleaved ? lgr::fresh_channels_last(n, c, oh, ow, dtype, lgr::place_of(in))
                           : lgr::fresh(sizes, 4, dtype, lgr::place_of(in));
    }
    void run(float *value, const Tensor *scale) {
        const void *src = in.const_data_ptr();
        void *dst = codes.mutable_data_ptr();
        LGR_ON_GPU(in) {
            const float *at = scale ? lgr::scale_at("avg_pool", in, "scale", *scale) : nullptr;
            const lgr::DeviceQueue queue(in);
            return lgr::check(lgr_avg_pool_cuda(src, &p, at, dst, value, queue.stream()),
                              "avg_pool");
        }
        if (scale) p.exp2 = lgr::exp2_of(*scale, "avg_pool");
        const int64_t work =
            p.oh * p.ow * p.c * p.kh * p.kw + 1; // sums per image: 32 Ki are worth a thread
        const lgr_avg_pool_params q = p;
        lgr::for_range(p.n, 2 * lgr::kBlock / work + 1, "avg_pool", [=](int64_t b, int64_t e) {
            return lgr_avg_pool(src, &q, b, e, dst, value);
        });
    }
};

std::tuple<Tensor, Tensor> avg_pool(const Tensor &x, const Tensor &scale, Ints kernel, Ints stride,
                                    Ints padding, bool coarse) {
    Job job(x, kernel, stride, padding);
    job.p.coarse = coarse;
    const Tensor value =
        job.make(x.size(0), x.size(1), job.p.oh, job.p.ow, aoti_torch_dtype_float32());
    job.run(value.mutable_data_ptr<float>(), &scale);
    return {value, job.codes};
}

Tensor avg_pool_codes(const Tensor &x, Ints kernel, Ints stride, Ints padding) {
    Job job(x, kernel, stride, padding);
    job.run(nullptr, nullptr);
    return job.codes;
}
} // namespace

LGR_OPERATORS({"avg_pool(Tensor x, Tensor scale, int[] kernel, int[] stride, int[] padding, bool "
               "coarse=False) -> (Tensor value, Tensor codes)",
               LGR_BOX(avg_pool)},
              {"avg_pool_codes(Tensor x, int[] kernel, int[] stride, int[] padding) -> Tensor",
               LGR_BOX(avg_pool_codes)});
