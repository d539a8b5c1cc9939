/* tf_abi.h - the part of TensorFlow's C interface (tensorflow/c: kernels, ops, tensors) that the operators here use.
 *
 * Declared, not included: the build needs no TensorFlow, and one binary serves 2.8 and later. Symbols of
 * libtensorflow_framework.so.2. */
#ifndef LGR_TF_ABI_H
#define LGR_TF_ABI_H
#include <stddef.h>
#include <stdint.h>

typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
enum { TF_FLOAT = 1, TF_INT32 = 3, TF_UINT8 = 4, TF_BOOL = 10 };
enum { TF_OK = 0, TF_INVALID_ARGUMENT = 3, TF_INTERNAL = 13 };

TF_Status *TF_NewStatus(void);
void TF_DeleteStatus(TF_Status *);
void TF_SetStatus(TF_Status *, int code, const char *);
int TF_GetCode(const TF_Status *);

void *TF_TensorData(const TF_Tensor *);
int TF_NumDims(const TF_Tensor *);
int64_t TF_Dim(const TF_Tensor *, int);
int64_t TF_TensorElementCount(const TF_Tensor *);
void TF_DeleteTensor(TF_Tensor *);

void TF_GetInput(TF_OpKernelContext *, int, TF_Tensor **, TF_Status *);
void TF_SetOutput(TF_OpKernelContext *, int, const TF_Tensor *, TF_Status *);
TF_Tensor *TF_AllocateOutput(TF_OpKernelContext *, int, int dtype, const int64_t *dims, int n_dims,
                             size_t bytes, TF_Status *);
TF_Tensor *TF_ForwardInputOrAllocateOutput(TF_OpKernelContext *, const int *candidates, int n,
                                           int output, const int64_t *dims, int n_dims, int *from,
                                           TF_Status *);
void TF_OpKernelContext_Failure(TF_OpKernelContext *, TF_Status *);

TF_KernelBuilder *TF_NewKernelBuilder(const char *op, const char *device,
                                      void *(*create)(TF_OpKernelConstruction *),
                                      void (*compute)(void *, TF_OpKernelContext *),
                                      void (*destroy)(void *));
void TF_RegisterKernelBuilder(const char *name, TF_KernelBuilder *, TF_Status *);

TF_OpDefinitionBuilder *TF_NewOpDefinitionBuilder(const char *op);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder *, const char *);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder *, const char *);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder *,
                                                     void (*)(TF_ShapeInferenceContext *,
                                                              TF_Status *));
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder *, TF_Status *);
TF_ShapeHandle *TF_NewShapeHandle(void);
void TF_DeleteShapeHandle(TF_ShapeHandle *);
void TF_ShapeInferenceContextGetInput(TF_ShapeInferenceContext *, int, TF_ShapeHandle *,
                                      TF_Status *);
void TF_ShapeInferenceContextSetOutput(TF_ShapeInferenceContext *, int, TF_ShapeHandle *,
                                       TF_Status *);
#endif
