"""Skips without a GPU or without the kernels; LINGER_REQUIRE_CUDA=1 makes that a failure."""

import os

import pytest
import torch

from linger.ops.checks import has_cuda_kernels


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available() or not has_cuda_kernels():
        why = "no GPU" if has_cuda_kernels() else "built without CUDA kernels"
        (pytest.fail if os.environ.get("LINGER_REQUIRE_CUDA") == "1" else pytest.skip)(why)
    return torch.device("cuda")
