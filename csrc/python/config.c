/* config.c - the Python face of csrc/config. */
#include "python/python.h"

#include <stdlib.h>

#include "config/config.h"

static int set_number(PyObject *error, const char *name, Py_ssize_t value)
{
    PyObject *number = PyLong_FromSsize_t(value);
    const int rc = number == NULL ? -1 : PyObject_SetAttrString(error, name, number);
    Py_XDECREF(number);
    return rc;
}

/* A ConfigError: "file, line 3, column 5: what". line and column 0, file and key NULL or None: not known. */
static PyObject *new_error(PyObject *mod, PyObject *what, PyObject *file, Py_ssize_t line,
                           Py_ssize_t column, PyObject *key)
{
    const lgr_mod_state *st = PyModule_GetState(mod);
    const int has_file = file != NULL && file != Py_None, has_key = key != NULL && key != Py_None;
    PyObject *place = NULL, *message = NULL, *error = NULL;

    place = line <= 0     ? PyUnicode_FromString("")
            : column <= 0 ? PyUnicode_FromFormat("%sline %zd", has_file ? ", " : "", line)
                          : PyUnicode_FromFormat("%sline %zd, column %zd", has_file ? ", " : "",
                                                 line, column);
    if (place == NULL) goto fail;
    message = has_file   ? PyUnicode_FromFormat("%S%U: %U", file, place, what)
              : line > 0 ? PyUnicode_FromFormat("%U: %U", place, what)
                         : PyUnicode_FromObject(what);
    if (message == NULL) goto fail;
    error = PyObject_CallFunctionObjArgs(st->ConfigError, message, NULL);
    if (error == NULL) goto fail;
    if (has_file && PyObject_SetAttrString(error, "file", file) < 0) goto fail;
    if (has_key && PyObject_SetAttrString(error, "key", key) < 0) goto fail;
    if (line > 0 && set_number(error, "line", line) < 0) goto fail;
    if (line > 0 && column > 0 && set_number(error, "column", column) < 0) goto fail;
    Py_DECREF(place);
    Py_DECREF(message);
    return error;
fail:
    Py_XDECREF(place);
    Py_XDECREF(message);
    Py_XDECREF(error);
    return NULL;
}

static int to_position(PyObject *number, const char *name, Py_ssize_t *out)
{
    *out = 0;
    if (number == NULL || number == Py_None) return 0;
    *out = PyLong_AsSsize_t(number);
    if (*out == -1 && PyErr_Occurred()) return -1;
    if (*out >= 0) return 0;
    PyErr_Format(PyExc_ValueError, "config_error: %s must be >= 0, got %zd", name, *out);
    return -1;
}

PyObject *lgr_py_config_error(PyObject *mod, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "file", "line", "column", "key", NULL};
    PyObject *what = NULL, *file = NULL, *line = NULL, *column = NULL, *key = NULL;
    Py_ssize_t at_line = 0, at_column = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|$OOOO:config_error", names, &what, &file,
                                     &line, &column, &key))
        return NULL;
    if (to_position(line, "line", &at_line) < 0 || to_position(column, "column", &at_column) < 0)
        return NULL;
    return new_error(mod, what, file, at_line, at_column, key);
}

static void raise_error(PyObject *mod, const lgr_config_error *err, PyObject *file)
{
    const lgr_mod_state *st = PyModule_GetState(mod);
    PyObject *key = NULL, *shown = NULL, *what = NULL, *error = NULL;
    if (err->key == NULL) {
        what = PyUnicode_FromString(err->what);
    } else if ((key = PyUnicode_FromString(err->key)) != NULL &&
               (shown = PyUnicode_Substring(key, 0, 60)) != NULL) {
        what = PyUnicode_FromFormat("%R: %s", shown, err->what);
    }
    if (what != NULL)
        error = new_error(mod, what, file, (Py_ssize_t)err->line, (Py_ssize_t)err->column, key);
    if (error != NULL) PyErr_SetObject(st->ConfigError, error);
    Py_XDECREF(key);
    Py_XDECREF(shown);
    Py_XDECREF(what);
    Py_XDECREF(error);
}

/* The value of a node from the finished nodes in front of it. */
static PyObject *node_value(const lgr_yaml_node *node, PyObject *const *done)
{
    if (node->kind == LGR_YAML_NULL) Py_RETURN_NONE;
    if (node->kind == LGR_YAML_PLAIN || node->kind == LGR_YAML_QUOTED)
        return PyUnicode_DecodeUTF8(node->text, (Py_ssize_t)node->len, "strict");
    const size_t step = node->kind == LGR_YAML_MAP ? 2 : 1;
    PyObject *list = PyList_New((Py_ssize_t)(node->n / step));
    for (size_t i = 0; list != NULL && i < node->n; i += step) {
        PyObject *item = step == 2 ? PyTuple_Pack(2, done[node->item[i]], done[node->item[i + 1]])
                                   : done[node->item[i]];
        if (step == 1) Py_INCREF(item);
        if (item == NULL || PyList_SetItem(list, (Py_ssize_t)(i / step), item) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *to_python(const lgr_yaml *doc)
{
    static const char *const kind[] = {"null", "plain", "quoted", "list", "map"};
    PyObject *root = NULL;
    size_t n = 0;
    PyObject **done = PyMem_Calloc(doc->n, sizeof *done);
    if (done == NULL) return PyErr_NoMemory();
    for (; n < doc->n; ++n) {
        const lgr_yaml_node *node = &doc->node[n];
        PyObject *value = node_value(node, done);
        if (value == NULL) break;
        done[n] = Py_BuildValue("(sNnn)", kind[node->kind], value, (Py_ssize_t)node->line,
                                (Py_ssize_t)node->column);
        if (done[n] == NULL) break;
    }
    if (n == doc->n) {
        root = done[n - 1];
        Py_INCREF(root);
    }
    while (n-- > 0) Py_DECREF(done[n]);
    PyMem_Free(done);
    return root;
}

PyObject *lgr_py_load_yaml(PyObject *mod, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "file", NULL};
    const char *text = NULL;
    Py_ssize_t len = 0;
    PyObject *file = NULL;
    lgr_yaml doc;
    lgr_config_error err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|$O:load_yaml", names, &text, &len, &file))
        return NULL;
    if (lgr_yaml_parse(text, (size_t)len, &doc, &err) < 0) {
        raise_error(mod, &err, file);
        lgr_config_error_clear(&err);
        return NULL;
    }
    PyObject *out = to_python(&doc);
    lgr_yaml_free(&doc);
    return out;
}

PyObject *lgr_py_yaml_scalar(PyObject *mod, PyObject *args, PyObject *kwargs)
{
    (void)mod;
    static char *names[] = {"", "quoted", NULL};
    const char *text = NULL;
    Py_ssize_t len = 0;
    int quoted = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|$p:yaml_scalar", names, &text, &len,
                                     &quoted))
        return NULL;
    char *line = lgr_yaml_scalar(text, (size_t)len, quoted);
    if (line == NULL) {
        PyErr_SetString(PyExc_ValueError, "yaml_scalar: text cannot be written as YAML");
        return NULL;
    }
    PyObject *out = PyUnicode_FromString(line);
    free(line);
    return out;
}
