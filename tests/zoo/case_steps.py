"""A thousand steps of every net, on one thread and two, with each width of vectors: no crash, no growth. ``make test-zoo``.

As a script it is one such run: ``python -m tests.zoo.case_steps NET THREADS MASK``.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import torch

import linger
from linger import _C

from . import ZOO
from .stages import chip, fresh

STEPS, SETTLED = 1000, 300
GROWTH = 6 << 20  # bytes: the allocator's own ups and downs
# torch's own kernels follow a variable of oneDNN, which is read once
LEVELS = {"avx2": "AVX2", "avx512": "DEFAULT"}
_FLAGS = {"avx2": _C.CPU_FLAGS["avx2"], "avx512": 0xFFFFFFFF}


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors_alive() -> int:
    """Tensors that Python knows."""
    return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())


def run(name: str, threads: int, level: str) -> str:
    """Train one net in this process; what was seen."""
    torch.set_num_threads(threads)
    _C.set_cpu_mask(_FLAGS[level])
    net = ZOO[name]
    with chip("venusA", "TQT" if threads == 2 else "MOM"):
        model = linger.init(fresh(net), example_inputs=net.inputs(2)).train()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
        first = last = before = alive = 0.0
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = net.loss(model(*net.inputs(4, step % 8)))
            loss.backward()
            optimizer.step()
            last = float(loss.detach())
            assert last == last and abs(last) < float("inf"), f"loss {last} at step {step}"
            if step == 0:
                first = last
            if step == SETTLED:
                before, alive = resident(), tensors_alive()
        growth, more = resident() - before, tensors_alive() - alive
    assert more <= 0, f"{more} tensors more than at step {SETTLED}"
    assert growth < GROWTH, f"{growth} bytes more than at step {SETTLED}"
    return f"{name}, {threads} thread(s), {level}: loss {first:.3f} -> {last:.3f}, {growth >> 10} KiB more"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ZOO)
def test_a_thousand_steps(name, threads, level):
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": LEVELS[level], "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "tests.zoo.case_steps", name, str(threads), level]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout.strip())


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
