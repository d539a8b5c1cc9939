"""What ``import linger`` adds to ``import torch``, in fresh interpreters, alternated with an empty import."""

from __future__ import annotations

import statistics
import subprocess
import sys
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
print(middle - start, end - middle)
"""


def rows(settings: Settings) -> Iterator[Row]:
    """One row for torch, one for what linger adds."""
    base, own = [], []
    for i in range(4 if settings.quick else 8):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        torch_s, linger_s = map(float, done.stdout.split())
        if i:  # the first run fills the caches
            base.append(torch_s)
            own.append(linger_s)
    for who, times in (("torch", base), ("linger over torch", own)):
        ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
        yield Row(
            "import", who, Timing(min(times) * 1e6, statistics.median(times) * 1e6, min(times) / min(base), ratio)
        )
