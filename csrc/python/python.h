/* python.h - shared by the files of csrc/python. Limited API 3.10; the only folder that includes <Python.h>. */
#ifndef LGR_PYTHON_H
#define LGR_PYTHON_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Members of the module's state, listed once: traverse and clear walk this list. */
#define LGR_STATE_MEMBERS(X) X(ConfigError)

typedef struct lgr_mod_state {
#define LGR_DECLARE(name) PyObject *name;
    LGR_STATE_MEMBERS(LGR_DECLARE)
#undef LGR_DECLARE
} lgr_mod_state;

/* Method bodies of config.c; new reference, or NULL with an exception set. */
PyObject *lgr_py_config_error(PyObject *mod, PyObject *args, PyObject *kwargs);
PyObject *lgr_py_load_yaml(PyObject *mod, PyObject *args, PyObject *kwargs);
PyObject *lgr_py_yaml_scalar(PyObject *mod, PyObject *args, PyObject *kwargs);

/* Method bodies of numbers.c. */
PyObject *lgr_py_segments(PyObject *mod, PyObject *arg);
PyObject *lgr_py_exponential(PyObject *mod, PyObject *args);
PyObject *lgr_py_exponential_numbers(PyObject *mod, PyObject *unused);
PyObject *lgr_py_divider(PyObject *mod, PyObject *arg);
PyObject *lgr_py_layer_norm_eps(PyObject *mod, PyObject *args);

#endif
