/* call.h - one call of an operator: its tensors, and the status that ends it. No arithmetic. */
#ifndef LGR_TF_CALL_H
#define LGR_TF_CALL_H
#include "lgr/status.h"
#include "tf/tf_abi.h"
#include <string.h>

enum {
    LGR_TF_IN = 5,
    LGR_TF_OUT = 3,
    LGR_TF_DIMS = 254
}; /* TensorFlow's own limit of dimensions */

typedef struct lgr_tf_call {
    TF_OpKernelContext *ctx;
    TF_Status *status;
    TF_Tensor *in[LGR_TF_IN];
    TF_Tensor *out[LGR_TF_OUT];
} lgr_tf_call;

static inline int lgr_tf_ok(const lgr_tf_call *c) { return TF_GetCode(c->status) == TF_OK; }

static inline lgr_tf_call lgr_tf_begin(TF_OpKernelContext *ctx, int n_in)
{
    lgr_tf_call c;
    memset(&c, 0, sizeof c);
    c.ctx = ctx;
    c.status = TF_NewStatus();
    for (int i = 0; i < n_in && lgr_tf_ok(&c); ++i) TF_GetInput(ctx, i, &c.in[i], c.status);
    return c;
}
static inline void lgr_tf_end(lgr_tf_call *c)
{
    if (!lgr_tf_ok(c)) TF_OpKernelContext_Failure(c->ctx, c->status);
    for (int i = 0; i < LGR_TF_IN; ++i)
        if (c->in[i]) TF_DeleteTensor(c->in[i]);
    for (int i = 0; i < LGR_TF_OUT; ++i)
        if (c->out[i]) TF_DeleteTensor(c->out[i]);
    TF_DeleteStatus(c->status);
}

static inline void lgr_tf_check(lgr_tf_call *c, lgr_status s)
{
    if (lgr_tf_ok(c) && s != LGR_OK) TF_SetStatus(c->status, TF_INTERNAL, lgr_status_str(s));
}
static inline void lgr_tf_require(lgr_tf_call *c, int holds, const char *sentence)
{
    if (lgr_tf_ok(c) && !holds) TF_SetStatus(c->status, TF_INVALID_ARGUMENT, sentence);
}

/* Output i as a vector of n elements, or a scalar for n < 0. NULL on failure. */
static inline void *lgr_tf_vector(lgr_tf_call *c, int i, int dtype, int64_t n, size_t item)
{
    if (!lgr_tf_ok(c)) return NULL;
    const size_t bytes = (n < 0 ? 1 : (size_t)n) * item;
    c->out[i] = TF_AllocateOutput(c->ctx, i, dtype, &n, n < 0 ? 0 : 1, bytes, c->status);
    return lgr_tf_ok(c) ? TF_TensorData(c->out[i]) : NULL;
}
static inline int lgr_tf_dims(const TF_Tensor *t, int64_t dims[LGR_TF_DIMS])
{
    const int n = TF_NumDims(t);
    for (int i = 0; i < n; ++i) dims[i] = TF_Dim(t, i);
    return n;
}
/* Output 0 with the shape of input 0. NULL on failure. */
static inline float *lgr_tf_values(lgr_tf_call *c)
{
    if (!lgr_tf_ok(c)) return NULL;
    int64_t dims[LGR_TF_DIMS];
    const int n = lgr_tf_dims(c->in[0], dims);
    const size_t bytes = (size_t)TF_TensorElementCount(c->in[0]) * sizeof(float);
    c->out[0] = TF_AllocateOutput(c->ctx, 0, TF_FLOAT, dims, n, bytes, c->status);
    return lgr_tf_ok(c) ? TF_TensorData(c->out[0]) : NULL;
}
/* Output 0 is input 0 itself: no copy. */
static inline void lgr_tf_hand_on(lgr_tf_call *c)
{
    if (lgr_tf_ok(c)) TF_SetOutput(c->ctx, 0, c->in[0], c->status);
}
#endif
