"""Kernels as a share of what one core can do, measured in the same run."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import linger
from linger.quantizers import Quantizer

from .rows import Settings
from .timing import Timing, compare

TURNS = 100_000
# by instruction set: loops of peak.c and the multiply-adds of one turn
FLOAT, INT8 = (
    {"avx2": ("fma_256", 96), "avx512vnni": ("fma_512", 192)},
    {"avx2": ("dot_256", 192), "avx512vnni": ("dot_512", 768)},
)


class Share(NamedTuple):
    """One kernel.

    Attributes:
        what: Kernel and shape.
        rate, peak: Billions per second.
        unit: Of what.
    """

    what: str
    rate: float
    peak: float
    unit: str

    def text(self) -> str:
        """As a line of the table."""
        return f"{self.what:46s} {self.rate:8.1f} of {self.peak:8.1f} {self.unit:12s} {self.rate / self.peak:7.0%}"


def _loops() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def _times(calls: dict[str, Callable[[], object]], settings: Settings) -> dict[str, Timing]:
    # short and many: a block that nothing interrupted is what counts
    return compare(calls, "fma", rounds=10 * settings.rounds, block_s=0.001, budget_s=settings.budget_s)


def rows(settings: Settings) -> Iterator[Share]:
    """Integer convolution, its gradients and quantizing, over products and memory traffic at their best; x86 only."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _shares(settings)
    finally:
        torch.set_num_threads(before)


def _shares(settings: Settings) -> Iterator[Share]:
    flags = linger._C.cpu_flags()
    level = "avx512vnni" if flags & linger._C.CPU_FLAGS["avx512vnni"] else "avx2"
    loops, n = _loops(), ctypes.c_int64(TURNS)
    (fma, fma_ops), (dot, dot_ops) = FLOAT[level], INT8[level]
    large = torch.randn(1 << 24)
    into = torch.empty_like(large)
    calls: dict[str, Callable[[], object]] = {
        "fma": lambda: getattr(loops, fma)(n),
        "dot": lambda: getattr(loops, dot)(n),
        "copy": lambda: into.copy_(large),
    }
    products = {}
    for name, size, kernel, groups in (
        ("3x3 16 channels", (32, 16, 32, 32), 3, 1),
        ("3x3 64 channels", (32, 64, 8, 8), 3, 1),
        ("1x1 64 channels", (16, 64, 24, 20), 1, 1),
        ("depthwise 3x3 64 channels", (16, 64, 24, 20), 3, 64),
    ):
        c, edge = size[1], kernel // 2
        x = torch.randint(-127, 128, size, dtype=torch.int8).contiguous(memory_format=torch.channels_last)
        w = torch.randint(-127, 128, (c, c // groups, kernel, kernel), dtype=torch.int8)
        dy = torch.randn(size).contiguous(memory_format=torch.channels_last)
        geometry, one = ([1, 1], [edge] * 4, [1, 1], groups), torch.tensor(1.0)
        calls[f"conv {name}"] = lambda x=x, w=w, g=geometry: torch.ops.linger.conv_codes(x, w, None, *g, 9, 8, False)
        calls[f"conv_grad {name}"] = lambda dy=dy, x=x, w=w, g=geometry, s=one: torch.ops.linger.conv_grad(
            dy, None, x, s, w, s, None, *g, 7
        )
        products[name] = dy.numel() * w[0].numel()
    quantizer = Quantizer(8).train()
    with torch.no_grad():
        calls["fake-quant"] = lambda: quantizer(large)
        found = {name: t.min_us * 1e-6 for name, t in _times(calls, settings).items()}
    peak_f, peak_i = fma_ops * TURNS / found["fma"] / 1e9, dot_ops * TURNS / found["dot"] / 1e9
    for name, count in products.items():
        yield Share(f"conv {name}", count / found[f"conv {name}"] / 1e9, peak_i, "G int8 MAC/s")
    for name, count in products.items():
        yield Share(f"conv_grad {name}", 4 * count / found[f"conv_grad {name}"] / 1e9, 2 * peak_f, "GFLOP/s")
    traffic = 8 * large.numel() / found["copy"] / 1e9  # a float read, a float written
    yield Share("fake-quant 16 Mi elements", 9 * large.numel() / found["fake-quant"] / 1e9, traffic, "GB/s")
