/* recurrent_twin.h - the twin that an engine names. */
#ifndef LGR_RECURRENT_TWIN_H
#define LGR_RECURRENT_TWIN_H
#include "lgr/recurrent.h"

#if LGR_HAVE_AVX2
#define LGR_AVX2_OR(twin, ref) twin
#else
#define LGR_AVX2_OR(twin, ref) ref
#endif
#if LGR_HAVE_AVX512VNNI
#define LGR_AVX512VNNI_OR(twin, ref) twin
#else
#define LGR_AVX512VNNI_OR(twin, ref) ref
#endif
/* avx2: how the names of the AVX2 file end */
#define LGR_RECURRENT_TWIN(engine, name, avx2)                                                     \
    ((engine) == LGR_RECURRENT_AVX512VNNI ? LGR_AVX512VNNI_OR(name##_avx512vnni, name##_ref)       \
     : (engine) == LGR_RECURRENT_AVX2     ? LGR_AVX2_OR(name##avx2, name##_ref)                    \
                                          : name##_ref)
#endif
