/* older_exp.h - the exp() that every glibc on x86-64 has: the same function as that of 2.29, which sets no errno. */
#ifndef LGR_OLDER_EXP_H
#define LGR_OLDER_EXP_H
#include <math.h>

#if defined(__x86_64__) && defined(__GLIBC__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
#endif

#endif
