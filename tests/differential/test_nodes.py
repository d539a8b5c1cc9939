"""Every node on random data against the oracle, on every chip: some seeds always, thousands with ``-m slow``."""

import zlib

import numpy as np
import pytest

from linger.onnx import OnnxRunner
from tests.differential.cases import MAKERS

PLATFORMS = ("arcs", "venusA", "venus")


def check(name, platform, seed):
    rng = np.random.default_rng([zlib.crc32(f"{name} {platform}".encode()), seed])
    case = MAKERS[name](rng, platform)
    if case is None:
        return
    (got,) = OnnxRunner(case.model(platform)).run(case.inputs, integers=True).values()
    where = f"{name} on {platform}, seed {seed}: {case.attributes}"
    assert got.dtype == case.want.dtype, where
    assert np.array_equal(got, case.want), f"{where}: {np.count_nonzero(got != case.want)} of {got.size} differ"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", MAKERS)
def test_nodes(name, platform):
    for seed in range(3):
        check(name, platform, seed)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", MAKERS)
def test_nodes_for_long(name, platform, isa):
    for seed in range(3, 100):
        check(name, platform, seed)
