"""Fixtures for all tests: devices, instruction sets, and a fresh process-wide configuration for each test."""

import os
from collections.abc import Iterator

import pytest
import torch

from linger import _C, settings

try:
    from hypothesis import settings as hypothesis_settings
except ImportError:  # the tests that need it say so themselves
    pass
else:
    hypothesis_settings.register_profile("linger", deadline=None, derandomize=True, max_examples=100)
    hypothesis_settings.load_profile("linger")

_ALL = 0xFFFFFFFF
_LEVELS = {"ref": 0}  # name -> mask: the plain C reference, then each instruction set on top of the ones before it
for _name, _flag in sorted(_C.CPU_FLAGS.items(), key=lambda item: item[1]):
    _LEVELS[_name] = max(_LEVELS.values()) | _flag


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Cpu, then cuda. Without a GPU the second is skipped; LINGER_REQUIRE_CUDA=1 makes that a failure."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("LINGER_REQUIRE_CUDA") == "1":
            pytest.fail("LINGER_REQUIRE_CUDA=1, but torch finds no GPU")
        pytest.skip("no GPU")
    return torch.device(request.param)


@pytest.fixture(params=list(_LEVELS))
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """One run per instruction set: kernels may use this one and those before it, nothing newer."""
    mask = _LEVELS[request.param]
    try:
        if _C.set_cpu_mask(mask) != mask:
            pytest.skip(f"this processor has no {request.param}")
        yield request.param
    finally:
        _C.set_cpu_mask(_ALL)


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """Each test starts and ends with the default configuration."""
    settings.use(settings.defaults())
    yield
    settings.use(settings.defaults())
