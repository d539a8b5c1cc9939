"""The native operators, their gradients, and the choice between them and TensorFlow's own (:mod:`.plain`)."""

from __future__ import annotations

import ctypes
import os
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf2
import tensorflow.compat.v1 as tf

from . import plain

__all__ = ["N_STATE", "lib", "quantize", "quantize_weight", "use_native"]

N_STATE = 2 + plain.N_EXP2
"""Elements of a range's state: running maximum or 0, calibration batches, squared error per exponent."""


def _load() -> Any:
    path = Path(__file__).with_name("_ops.so")
    if os.environ.get("DOPT_NATIVE") == "0" or not path.exists():
        return None
    folder = Path(tf2.sysconfig.get_lib())
    try:
        for name in ("libtensorflow_framework.so.2", "libtensorflow_framework.2.dylib"):
            if (folder / name).exists():  # loaded already; some versions keep its C functions to themselves
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        found = tf2.load_op_library(str(path))
        return found if hasattr(found, "dopt_quantize") else _without(path, "it registers no operator")
    except (OSError, tf.errors.OpError) as e:
        return _without(path, str(e))


def _without(path: Path, why: str) -> None:
    warnings.warn(
        f"dopt: {path} cannot be loaded into TensorFlow {tf2.__version__} ({why}); the same values come from TensorFlow's "
        "own operations, slower", stacklevel=4
    )  # fmt: skip


lib: Any = _load()
"""The native operators, or None where there is no library (environment DOPT_NATIVE=0: not wanted)."""


def _quantize_grad(op: Any, dy: Any, *_: Any) -> list[Any]:
    return [lib.dopt_quantize_grad(dy=dy, mask=op.outputs[1]), None, None, None, None]


def _weight_grad(op: Any, dy: Any, *_: Any) -> list[Any]:
    return [lib.dopt_quantize_grad(dy=dy, mask=op.outputs[1]), None]


def _grad_grad(op: Any, ddx: Any) -> list[Any]:
    return [lib.dopt_quantize_grad(dy=ddx, mask=op.inputs[1]), None]


if lib is not None:
    tf.RegisterGradient("DoptQuantize")(_quantize_grad)
    tf.RegisterGradient("DoptQuantizeWeight")(_weight_grad)
    tf.RegisterGradient("DoptQuantizeGrad")(_grad_grad)


def use_native() -> bool:
    """Whether graphs are built of the native operators: on machines without GPU, where the library was built.

    They run on the CPU: in a GPU's graph every tensor would travel to them and back.
    """
    return lib is not None and not tf2.config.list_physical_devices("GPU")


def quantize(x: Any, state: Any, quant: Any, observe: Any, calibrate: Any, name: str) -> Any:
    """Activations: quantized where ``quant > 0``, with a range that moves first where a flag says so.

    Args:
        x: float32.
        state: The resource variable of the range, ``[N_STATE]``.
        quant: int32 scalar; at 0 the result is ``x`` itself.
        observe, calibrate: bool scalars.
        name: Of the operations.
    """
    before = state.read_value()
    if use_native():
        y, _, after = lib.dopt_quantize(x=x, state=before, quant=quant, observe=observe, calibrate=calibrate, name=name)
    else:
        y, after = plain.quantize(x, before, quant, observe, calibrate)
    moved = tf2.raw_ops.AssignVariableOp(resource=state.handle, value=after)
    with tf.control_dependencies([moved]):
        return tf.identity(y, name=name + "/value")


def quantize_weight(w: Any, quant: Any, name: str) -> tuple[Any, Any]:
    """Weights: the exponent that holds the maximum, or one finer where that errs less; the values and the exponent."""
    if use_native():
        y, _, exp2 = lib.dopt_quantize_weight(w=w, quant=quant, name=name)
        return y, exp2
    y, exp2 = plain.quantize_weight(w, quant)
    return tf.identity(y, name=name), exp2
