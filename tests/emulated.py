"""pytest plugin: the operators run on their CUDA kernels, emulated on the CPU, in place of the CPU's own.

``make test-cuda-operators`` builds the library and runs the tests of the operators with it::

    LGR_EMULATED_LIBRARY=build/test-cuda/operators/emulated.so python -m pytest -p tests.emulated tests/ops
"""

import os
from pathlib import Path

import torch

import linger  # noqa: F401  registers the operators, which the library then overrides

_library = os.environ.get("LGR_EMULATED_LIBRARY")
if not _library or not Path(_library).exists():
    raise FileNotFoundError(f"LGR_EMULATED_LIBRARY must name the library of emulated operators, got {_library!r}")
torch.ops.load_library(str(Path(_library).resolve()))
