/* numbers.c - the numbers inside the chips' functions, for files that compute them in standard operators. */
#include "python/python.h"

#include "lgr/avg_pool.h"
#include "lgr/chip_functions.h"
#include "lgr/layer_norm.h"
#include "lgr/softmax.h"

static PyObject *tuple_s32(const int32_t *from, Py_ssize_t n)
{
    PyObject *made = PyTuple_New(n);
    for (Py_ssize_t i = 0; made != NULL && i < n; ++i) {
        PyObject *one = PyLong_FromLong(from[i]);
        if (one == NULL || PyTuple_SetItem(made, i, one) < 0) Py_CLEAR(made);
    }
    return made;
}

PyObject *lgr_py_segments(PyObject *mod, PyObject *arg)
{
    (void)mod;
    const long table = PyLong_AsLong(arg);
    if (table == -1 && PyErr_Occurred()) return NULL;
    if (table < 0 || table >= LGR_N_TABLES)
        return PyErr_Format(PyExc_ValueError, "segments: table must be in [0, %d], got %ld",
                            LGR_N_TABLES - 1, table);
    const lgr_pwl *p = &lgr_chip_tables[table];
    int32_t thr[15]; /* below 2^31; the last segment has no end */
    for (int i = 0; i < 15; ++i) thr[i] = (int32_t)p->thr[i];
    return Py_BuildValue("(NNNNiii)", tuple_s32(thr, 15), tuple_s32(p->slope, 32),
                         tuple_s32(p->icpt, 32), tuple_s32(p->shift, 16), (int)p->half,
                         (int)p->least, (int)p->bits);
}

PyObject *lgr_py_exponential(PyObject *mod, PyObject *args)
{
    int once = 0, d = 0;
    (void)mod;
    if (!PyArg_ParseTuple(args, "pi:exponential", &once, &d)) return NULL;
    if (d > 0) return PyErr_Format(PyExc_ValueError, "exponential: d must be <= 0, got %d", d);
    return PyLong_FromLong(lgr_softmax_exp(once, d));
}

PyObject *lgr_py_exponential_numbers(PyObject *mod, PyObject *unused)
{
    static const int32_t powers[] = {LGR_EXP_P0, LGR_EXP_P1, LGR_EXP_P2, LGR_EXP_P3, LGR_EXP_P4};
    (void)mod;
    (void)unused;
    return Py_BuildValue("(iNNi)", LGR_LOG2E, tuple_s32(powers, 5), tuple_s32(lgr_ln_table, 512),
                         LGR_LN2);
}

PyObject *lgr_py_divider(PyObject *mod, PyObject *arg)
{
    (void)mod;
    const long d = PyLong_AsLong(arg);
    if (d == -1 && PyErr_Occurred()) return NULL;
    if (d < 1 || d > LGR_DIVISOR_MAX)
        return PyErr_Format(PyExc_ValueError, "divider: d must be in [1, %d], got %ld",
                            LGR_DIVISOR_MAX, d);
    const lgr_divider v = lgr_make_divider(d);
    return Py_BuildValue("(Li)", (long long)v.recip, (int)v.shift);
}

PyObject *lgr_py_layer_norm_eps(PyObject *mod, PyObject *args)
{
    int exp2 = 0;
    long long n = 0;
    (void)mod;
    if (!PyArg_ParseTuple(args, "iL:layer_norm_eps", &exp2, &n)) return NULL;
    if (n < 1 || n > LGR_LAYER_NORM_MAX)
        return PyErr_Format(PyExc_ValueError, "layer_norm_eps: n must be in [1, %d], got %lld",
                            LGR_LAYER_NORM_MAX, n);
    return PyLong_FromLongLong((long long)lgr_layer_norm_eps(exp2, n));
}
