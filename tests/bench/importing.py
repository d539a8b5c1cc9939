"""What ``import linger`` adds to ``import torch``, in fresh interpreters, alternated with an empty import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from .rows import Row, Settings
from .timing import Timing

CODE = """
import sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import linger
end = time.perf_counter()
assert "onnx" not in sys.modules, "import linger loads onnx"
for name in linger.__all__:
    getattr(linger, name)
print(middle - start, end - middle, time.perf_counter() - middle)
"""


def rows(settings: Settings) -> Iterator[Row]:
    """Torch, what linger adds, and that with the modules of all public names, which load on first use.

    Bytecode is kept, as for installed packages, in a folder of its own: a source tree may forbid it.
    """
    times: list[list[float]] = []
    with tempfile.TemporaryDirectory() as cache:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
        for i in range(4 if settings.quick else 8):
            done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=env)
            if i:  # the first run fills the caches
                times.append([float(t) for t in done.stdout.split()])
    base, *_ = columns = list(zip(*times, strict=True))
    for who, own in zip(("torch", "linger over torch", "linger, every public name"), columns, strict=True):
        ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
        yield Row("import", who, Timing(min(own) * 1e6, statistics.median(own) * 1e6, min(own) / min(base), ratio))
