"""Fixtures for all tests: devices, instruction sets, and a fresh process-wide configuration for each test."""

import os
from collections.abc import Iterator

import pytest

# Read when torch loads: threads that spin while they wait stand still on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
_HERE = _C.set_cpu_mask(_ALL)
# name -> mask of what this processor has: the plain C reference, AVX2, and each newer instruction set on top of it
_LEVELS = {"ref": 0} | {n: (f | _C.CPU_FLAGS["avx2"]) & _HERE for n, f in _C.CPU_FLAGS.items() if f & _HERE}
_LACKING = [n for n, f in _C.CPU_FLAGS.items() if not f & _HERE]


def pytest_report_header() -> str:
    """Which kernels this run covers."""
    lacking = f"; this processor lacks {', '.join(_LACKING)}" if _LACKING else ""
    return f"kernels: {', '.join(_LEVELS)}{lacking}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On CUDA kernels, emulated or real, the tests marked ``on_cpu`` do not run."""
    if any(config.pluginmanager.has_plugin(name) for name in ("tests.emulated", "tests.gpu.through_gpu")):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("on_cpu")])
        items[:] = [item for item in items if not item.get_closest_marker("on_cpu")]


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
    """One run per instruction set that this processor has: kernels may use what its mask allows."""
    try:
        assert _C.set_cpu_mask(_LEVELS[request.param]) == _LEVELS[request.param]
        yield request.param
    finally:
        _C.set_cpu_mask(_ALL)


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """Each test starts and ends with the default configuration."""
    settings.use(settings.defaults())
    yield
    settings.use(settings.defaults())
