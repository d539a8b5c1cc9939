"""Gradients of small convolutions do not depend on the processor or on the number of threads."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("isa", "threads"), [("AVX2", 1), ("AVX2", 2), ("AVX2", 4), ("ALL", 2)])
def test_gradients_of_small_convolutions_are_those_of_float64(isa, threads):
    """oneDNN on AVX2 writes past its memory there when asked directly; filled and checked memory shows that at once."""
    env = {"ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": str(threads), "MALLOC_PERTURB_": "85", "MALLOC_CHECK_": "3"}
    command = [sys.executable, "-m", "tests.nn.float_gradients", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=400)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout == ""
