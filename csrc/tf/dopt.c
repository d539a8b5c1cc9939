/* dopt.c - the quantizing operators of TensorFlow graphs, over the kernels that torch's operators call. No arithmetic here.
 *
 *   DoptQuantize        x, state[42], quant, observe, calibrate -> y, mask, new_state
 *   DoptQuantizeWeight  w, quant -> y, mask, exp2
 *   DoptQuantizeGrad    dy, mask -> dx
 *
 * quant <= 0: y is the input itself, the mask is empty, the state is as it was. The rules of the state: lgr/fake_quantize.h.
 */
#include "lgr/fake_quantize.h"
#include "lgr/mask.h"
#include "tf/call.h"

#define STREAM ((int64_t)1 << 22) /* elements that leave no room in the cache, as in csrc/ops */

static lgr_status quantize_at(const float *x, int64_t n, int32_t exp2, int32_t rounding, float *y,
                              uint8_t *mask, lgr_range *range)
{
    const struct lgr_quantize_params p = {
        .exp2 = exp2, .bits = LGR_RANGE_BITS, .rounding = rounding, .stream = n >= STREAM};
    const struct lgr_quantize_out out = {.value = y, .mask = mask};
    return lgr_quantize_f32(x, n, &p, &out, range);
}

static lgr_status peak_of(const float *x, int64_t n, float *peak)
{
    lgr_range range = {0, 0};
    const lgr_status s = lgr_observe_f32(x, n, &range);
    *peak = lgr_range_peak(range, 0, 0.0f);
    return s;
}

/* With the guessed exponent while the maximum is found, and once more when the guess was stale. */
static lgr_status with_range(const float *x, int64_t n, float *state, int observe, float *y,
                             uint8_t *mask)
{
    const int32_t guess = lgr_range_guess(state);
    lgr_range range = {0, 0};
    const lgr_status s = guess == LGR_EXP2_NONE
                             ? lgr_observe_f32(x, n, &range)
                             : quantize_at(x, n, guess, LGR_FLOOR_ADD, y, mask, &range);
    if (s != LGR_OK) return s;
    const int32_t now = lgr_range_step(state, observe, lgr_range_peak(range, 0, 0.0f));
    return now == guess ? LGR_OK : quantize_at(x, n, now, LGR_FLOOR_ADD, y, mask, NULL);
}

static lgr_status calibrated(const float *x, int64_t n, float *state, float *y, uint8_t *mask)
{
    const struct lgr_squared_error_params p = lgr_range_errors();
    double error[LGR_RANGE_EXPS] = {0};
    float peak;
    lgr_status s = peak_of(x, n, &peak);
    if (s == LGR_OK) s = lgr_squared_error_f32(x, n, &p, error);
    if (s != LGR_OK) return s;
    return quantize_at(x, n, lgr_range_calibrate(state, peak, error), LGR_FLOOR_ADD, y, mask, NULL);
}

static void quantize(void *self, TF_OpKernelContext *ctx)
{
    (void)self;
    lgr_tf_call c = lgr_tf_begin(ctx, 5);
    if (lgr_tf_ok(&c)) {
        const int64_t n = TF_TensorElementCount(c.in[0]);
        const int on = *(const int32_t *)TF_TensorData(c.in[2]) > 0;
        const int observe = *(const uint8_t *)TF_TensorData(c.in[3]) != 0;
        const int calibrate = *(const uint8_t *)TF_TensorData(c.in[4]) != 0;
        lgr_tf_require(&c, TF_TensorElementCount(c.in[1]) == LGR_RANGE_STATE,
                       "DoptQuantize: state must have 42 elements");
        float *state = lgr_tf_vector(&c, 2, TF_FLOAT, LGR_RANGE_STATE, sizeof *state);
        uint8_t *mask = lgr_tf_vector(&c, 1, TF_UINT8, on ? lgr_mask_bytes(n) : 0, 1);
        if (state) memcpy(state, TF_TensorData(c.in[1]), LGR_RANGE_STATE * sizeof *state);
        float *y = on ? lgr_tf_values(&c) : NULL;
        if (!on) lgr_tf_hand_on(&c);
        else if (y && n > 0) { /* an empty batch says nothing */
            const float *x = TF_TensorData(c.in[0]);
            lgr_tf_check(&c, calibrate ? calibrated(x, n, state, y, mask)
                                       : with_range(x, n, state, observe, y, mask));
        }
    }
    lgr_tf_end(&c);
}

static lgr_status weight(const float *w, int64_t n, float *y, uint8_t *mask, int32_t *exp2)
{
    float peak;
    lgr_status s = peak_of(w, n, &peak);
    *exp2 = LGR_EXP2_NAN;
    if (s == LGR_OK && peak == peak) {
        const struct lgr_squared_error_params p = lgr_range_weight_errors(peak);
        double error[2] = {0};
        s = lgr_squared_error_f32(w, n, &p, error);
        *exp2 = lgr_range_weight_exp2(p.exp2, error);
    }
    return s == LGR_OK ? quantize_at(w, n, *exp2, LGR_HALF_EVEN, y, mask, NULL) : s;
}

static void quantize_weight(void *self, TF_OpKernelContext *ctx)
{
    (void)self;
    lgr_tf_call c = lgr_tf_begin(ctx, 2);
    if (lgr_tf_ok(&c)) {
        const int64_t n = TF_TensorElementCount(c.in[0]);
        const int on = *(const int32_t *)TF_TensorData(c.in[1]) > 0;
        uint8_t *mask = lgr_tf_vector(&c, 1, TF_UINT8, on ? lgr_mask_bytes(n) : 0, 1);
        int32_t *exp2 = lgr_tf_vector(&c, 2, TF_INT32, -1, sizeof *exp2);
        if (exp2) *exp2 = 0;
        float *y = on ? lgr_tf_values(&c) : NULL;
        if (!on) lgr_tf_hand_on(&c);
        else if (y) lgr_tf_check(&c, weight(TF_TensorData(c.in[0]), n, y, mask, exp2));
    }
    lgr_tf_end(&c);
}

static void quantize_grad(void *self, TF_OpKernelContext *ctx)
{
    (void)self;
    lgr_tf_call c = lgr_tf_begin(ctx, 2);
    if (lgr_tf_ok(&c)) {
        const int64_t n = TF_TensorElementCount(c.in[0]), n_mask = TF_TensorElementCount(c.in[1]);
        lgr_tf_require(&c, n_mask == 0 || n_mask == lgr_mask_bytes(n),
                       "DoptQuantizeGrad: mask must have one bit for each element of dy");
        if (n_mask == 0) lgr_tf_hand_on(&c);
        else if (lgr_tf_ok(&c)) {
            int64_t dims[LGR_TF_DIMS];
            const int n_dims = lgr_tf_dims(c.in[0], dims), candidate = 0;
            int from = -1;
            c.out[0] = TF_ForwardInputOrAllocateOutput(ctx, &candidate, 1, 0, dims, n_dims, &from,
                                                       c.status);
            if (lgr_tf_ok(&c))
                lgr_tf_check(&c, lgr_mask_grad_f32(TF_TensorData(c.in[0]), TF_TensorData(c.in[1]),
                                                   n, TF_TensorData(c.out[0])));
        }
    }
    lgr_tf_end(&c);
}

/* Output `to` has the shape of input `from`. */
static void shape_of(TF_ShapeInferenceContext *ctx, int from, int to, TF_Status *status)
{
    TF_ShapeHandle *h = TF_NewShapeHandle();
    TF_ShapeInferenceContextGetInput(ctx, from, h, status);
    if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetOutput(ctx, to, h, status);
    TF_DeleteShapeHandle(h);
}
static void same_shape(TF_ShapeInferenceContext *ctx, TF_Status *status)
{
    shape_of(ctx, 0, 0, status);
}
static void quantize_shapes(TF_ShapeInferenceContext *ctx, TF_Status *status)
{
    shape_of(ctx, 0, 0, status);
    if (TF_GetCode(status) == TF_OK) shape_of(ctx, 1, 2, status);
}

static void add_op(const char *name, const char *const *in, const char *const *out,
                   void (*shapes)(TF_ShapeInferenceContext *, TF_Status *),
                   void (*compute)(void *, TF_OpKernelContext *))
{
    TF_Status *status = TF_NewStatus(); /* a failure shows when Python looks for the operator */
    TF_OpDefinitionBuilder *b = TF_NewOpDefinitionBuilder(name);
    for (; *in; ++in) TF_OpDefinitionBuilderAddInput(b, *in);
    for (; *out; ++out) TF_OpDefinitionBuilderAddOutput(b, *out);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(b, shapes);
    TF_RegisterOpDefinition(b, status);
    if (TF_GetCode(status) == TF_OK)
        TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", NULL, compute, NULL),
                                 status);
    TF_DeleteStatus(status);
}

/* TensorFlow looks for no entry point: tf.load_op_library loads the library, which registers itself. */
__attribute__((constructor)) static void register_all(void)
{
    static const char *const quantize_in[] = {"x: float",      "state: float",    "quant: int32",
                                              "observe: bool", "calibrate: bool", NULL};
    static const char *const quantize_out[] = {"y: float", "mask: uint8", "new_state: float", NULL};
    static const char *const weight_in[] = {"w: float", "quant: int32", NULL};
    static const char *const weight_out[] = {"y: float", "mask: uint8", "exp2: int32", NULL};
    static const char *const grad_in[] = {"dy: float", "mask: uint8", NULL};
    static const char *const grad_out[] = {"dx: float", NULL};
    add_op("DoptQuantize", quantize_in, quantize_out, quantize_shapes, quantize);
    add_op("DoptQuantizeWeight", weight_in, weight_out, same_shape, quantize_weight);
    add_op("DoptQuantizeGrad", grad_in, grad_out, same_shape, quantize_grad);
}
