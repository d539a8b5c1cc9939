// convolution.h - the integer engine behind convolution and linear, as a Kernel of output.h. No arithmetic here.
#pragma once
#include "lgr/conv.h"
#include "lgr/conv_cuda.h"
#include "ops/output.h"

namespace lgr {
constexpr int64_t kTaskProducts = 1 << 18; // products worth a task of their own
constexpr int64_t kTaskWeights = 1 << 16; // weights to reorder, the same

// Weights packed for one engine, as one tensor: what they were packed for, then the weights, then their sums.
struct Packed {
    struct Head {
        int64_t engine, o, c, kh, kw, groups, stride_w, bytes;
    };
    static_assert(sizeof(Head) == 64, "the packed weights stay aligned");
    static Head head(const lgr_conv_params &p, lgr_conv_engine engine) {
        return {engine, p.o,      p.c,        p.kh,
                p.kw,   p.groups, p.stride_w, lgr_conv_packed_bytes(&p, engine)};
    }
    static int64_t sums_at(const Head &h) { return 64 + (h.bytes + 63) / 64 * 64; }
    static int64_t size(const lgr_conv_params &p, const Head &h, lgr_conv_engine engine) {
        return sums_at(h) + 4 * lgr_conv_wsum_count(&p, engine);
    }
    static bool serves(const Tensor &t, const lgr_conv_params &p, lgr_conv_engine engine) {
        const Head h = head(p, engine);
        return t.scalar_type() == ScalarType::Byte && t.is_cpu() && t.is_contiguous() &&
               t.numel() == size(p, h, engine) && memcmp(t.const_data_ptr(), &h, sizeof h) == 0;
    }
    static Tensor make(const lgr_conv_params &p, lgr_conv_engine engine, const int8_t *src) {
        const Head h = head(p, engine);
        const Tensor out = fresh_1d(size(p, h, engine), aoti_torch_dtype_uint8());
        uint8_t *to = out.mutable_data_ptr<uint8_t>();
        memcpy(to, &h, sizeof h);
        void *packed = to + 64;
        int32_t *wsum = reinterpret_cast<int32_t *>(to + sums_at(h));
        const int64_t block = 16 * (p.c / p.groups) * p.kh * p.kw;
        torch::stable::parallel_for(
            0, lgr_conv_pack_blocks(&p, engine), (1 << 16) / block + 1,
            [&](int64_t b, int64_t e) { lgr_conv_pack(&p, engine, src, b, e, packed, wsum); });
        return out;
    }
};

// The scales of the operands and the float bias, of the training form.
struct ConvolutionScales {
    const Tensor *x = nullptr, *w = nullptr;
    const OptTensor *bias = nullptr;
};

// A convolution whose weights are packed for the engine that this processor and shape have; `ready`: from an earlier call.
// A class of its own adds fresh(). Every tensor outlives it.
class Convolution {
  public:
    Convolution(const char *op, const lgr_conv_params &p, const Tensor &x, const Tensor &w,
                bool sat32, const ConvolutionScales &scales = {},
                const OptTensor &ready = std::nullopt)
        : op_(op), x_(x), scales_(scales), sat32_(sat32), job_() {
        begin(p);
        STD_TORCH_CHECK(w.scalar_type() == ScalarType::Char, op, ": x and w must be int8 codes");
        same_device(op, x, {{"w", w}});
        LGR_ON_GPU(x) {
            STD_TORCH_CHECK(lgr_conv_cuda_has(&p), op,
                            ": on a GPU a result has fewer than 2^31 pixels and a sum fewer than "
                            "2^31 products");
            taps_ = channels_last(w);
            return;
        }
        const Tensor codes = lgr::contiguous(w);
        pack(codes.const_data_ptr<int8_t>(), ready);
    }
    // On the CPU, of contiguous codes that this constructor alone reads.
    Convolution(const char *op, const lgr_conv_params &p, const Tensor &x, const int8_t *w,
                bool sat32, const ConvolutionScales &scales)
        : op_(op), x_(x), scales_(scales), sat32_(sat32), job_() {
        begin(p);
        pack(w, std::nullopt);
    }
    Sums sums() const {
        const lgr_conv_params &p = job_.p;
        Sums s = {p.n * lgr_conv_out_h(&p) * lgr_conv_out_w(&p), p.o, scales_.x, scales_.w};
        s.sat32 = sat32_;
        s.bias = scales_.bias;
        return s;
    }
    void bias(const int32_t *codes) { job_.bias = codes; }

    void run(const lgr_epilogue &ep, const lgr_outputs &out, Extremes *extremes) {
        job_.ep = &ep;
        job_.out = out;
        check(lgr_conv_begin(&job_), op_);
        const lgr_conv_params &p = job_.p;
        const int64_t pixels = p.n * job_.oh * job_.ow,
                      products = pixels * p.o * (p.c / p.groups) * p.kh * p.kw;
        const int64_t grain = job_.units * kTaskProducts / (products + 1) + 1,
                      bytes = lgr_conv_scratch_bytes(&job_);
        const lgr_conv_job *job = &job_;
        torch::stable::parallel_for(0, job_.units, grain, [=](int64_t b, int64_t e) {
            int64_t seen[2] = {0, 0};
            lgr_conv_run(job, b, e, thread_scratch(bytes), seen);
            if (extremes) extremes->merge(seen);
        });
    }
    lgr_status cuda(const lgr_output_cuda &q, void *stream) const {
        const lgr_conv_params &p = job_.p;
        const Sums s = sums();
        const int64_t apart = lgr_conv_cuda_apart(&p) ? s.rows * s.o : 0;
        const Tensor products = fresh_1d(apart, aoti_torch_dtype_int32(), place_of(x_));
        const lgr_conv_cuda_job job = {p, x_.const_data_ptr<int8_t>(),
                                       taps_.const_data_ptr<int8_t>(),
                                       apart ? products.mutable_data_ptr<int32_t>() : nullptr, q};
        return lgr_conv_cuda(&job, stream);
    }

  protected:
    const lgr_conv_params &params() const { return job_.p; }
    const Tensor &input() const { return x_; }

  private:
    void begin(const lgr_conv_params &p) {
        STD_TORCH_CHECK(x_.scalar_type() == ScalarType::Char, op_, ": x and w must be int8 codes");
        check(lgr_conv_check(&p), op_);
        job_.p = p;
    }
    void pack(const int8_t *w, const OptTensor &ready) {
        const lgr_conv_params &p = job_.p;
        job_.engine = lgr_conv_pick(&p);
        packed_ = ready && Packed::serves(*ready, p, job_.engine) ? *ready
                                                                  : Packed::make(p, job_.engine, w);
        init_ = fresh_1d(lgr_conv_wsum_count(&p, job_.engine), aoti_torch_dtype_int32());
        const uint8_t *from = packed_.const_data_ptr<uint8_t>();
        job_.packed = from + 64;
        job_.wsum =
            reinterpret_cast<const int32_t *>(from + Packed::sums_at(Packed::head(p, job_.engine)));
        job_.init = init_.mutable_data_ptr<int32_t>();
        job_.x = x_.const_data_ptr<int8_t>();
    }
    static Tensor channels_last(const Tensor &w) { // [o][kh][kw][c / groups]
        if (w.dim() == 3) return torch::stable::contiguous(torch::stable::transpose(w, 1, 2));
        return w.dim() == 4
                   ? torch::stable::contiguous(w, torch::headeronly::MemoryFormat::ChannelsLast)
                   : lgr::contiguous(w);
    }
    const char *op_;
    Tensor x_;
    ConvolutionScales scales_;
    bool sat32_;
    lgr_conv_job job_;
    Tensor packed_ = absent(aoti_torch_dtype_uint8()), init_ = packed_;
    Tensor taps_ = packed_; // on a GPU: the weights, [o][kh][kw][c / groups]
};
} // namespace lgr
