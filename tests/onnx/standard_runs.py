"""onnxruntime beside ``OnnxRunner``, for the tests of files in standard operators."""

import io
import warnings

import numpy as np
import onnxruntime

from linger.onnx import OnnxRunner, to_standard
from linger.onnx.loader import load

LEVELS = onnxruntime.GraphOptimizationLevel
ENDS = {"none": LEVELS.ORT_DISABLE_ALL, "all": LEVELS.ORT_ENABLE_ALL}


def session(model, level="all", **entries):
    """An onnxruntime session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ENDS[level]
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(model, inputs, level="all"):
    """Outputs by name."""
    s = session(model, level)
    return dict(zip([o.name for o in s.get_outputs()], s.run(None, inputs), strict=True))


def inputs_of(data, seed=0, batch=1):
    """Random inputs of a file: ties, saturation, small and large values."""
    rng, found = np.random.default_rng(seed), {}
    for port in load(data).inputs:
        sizes = tuple(batch if size is None else size for size in port.shape)
        if port.dtype.is_floating_point:
            x = rng.normal(0, 10 ** rng.uniform(-1, 1.5), sizes)
            found[port.name] = np.where(rng.random(sizes) < 0.2, np.round(x * 8) / 16, x).astype(np.float32)
        else:
            found[port.name] = rng.integers(0, 2, sizes).astype(str(port.dtype).removeprefix("torch."))
    return found


def assert_exact(source, inputs=None, levels=("all",), batch=1, seed=0, strict=True):
    """Integers of the translation in onnxruntime and of the runner, ``==``; returns the translated model.

    ``strict``: it says nothing about float operators; else float outputs may differ by a rounding.
    """
    data = source.getvalue() if isinstance(source, io.BytesIO) else source
    runner, model = OnnxRunner(data), None
    inputs = inputs_of(data, seed, batch) if inputs is None else inputs
    want = runner.run(inputs, integers=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        model = to_standard(data, outputs="codes")
    for level in levels:
        got = run(model, inputs, level)
        assert set(got) == set(want)
        for name, array in want.items():
            assert got[name].dtype == array.dtype and got[name].shape == array.shape
            if not strict and array.dtype.kind == "f":
                assert np.allclose(got[name], array, rtol=1e-4, atol=1e-5)
                continue
            assert np.array_equal(got[name], array), f"{name}: {np.sum(got[name] != array)} of {array.size} differ"
    return model
