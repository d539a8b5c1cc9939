"""The older generations' names: a thin layer over the core, which does not know that it exists.

* ``names``: other names of the core's classes, and names that say what to write instead.
* ``switches``: the setters. ``stages``: the calls around the two stages. ``tensors``: quantized tensors and operators.
* ``checkpoints``: keys of classic files. ``migrate``: what a file or a script becomes today.
* ``tools``, ``files``: tables of weights, dumps of layers, ONNX files.
"""

from __future__ import annotations

from . import checkpoints  # noqa: F401  classic keys load into converted models
from .files import redirect_torch_onnx_export

__all__ = ["redirect_torch_onnx_export"]
