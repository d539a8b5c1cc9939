"""The zoo in standard operators: no integer differs in onnxruntime. A few nets by default, all in the slow tests."""

from pathlib import Path

import pytest

from linger.onnx import ExportError
from tests.onnx.standard_runs import assert_exact
from tests.onnx.standard_table import exported
from tests.zoo import CHIPS, ZOO
from tests.zoo.stages import chip

FAST = [("CRNN + CTC", "venusA"), ("Transformer encoder", "arcs"), ("U-Net", "venus"), ("MobileNetV3", "mars")]
REST = [(n, c) for n in ZOO for c in CHIPS if (n, c) not in FAST]


@pytest.mark.parametrize(("name", "platform"), FAST + [pytest.param(*r, marks=pytest.mark.slow) for r in REST])
@pytest.mark.filterwarnings("ignore")
def test_no_integer_differs(name, platform):
    with chip(platform):
        try:
            data = exported(ZOO[name])
        except ExportError as refused:
            assert ZOO[name].lacks(platform), refused
            return
    for seed in range(2):
        assert_exact(data, seed=seed, levels=("none", "all"), strict=False)


def test_the_page_has_every_net():
    page = (Path(__file__).parents[2] / "docs" / "standard-nets.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|")][2:]
    assert {r[1].strip() for r in rows} == set(ZOO), (
        "write it: python -m tests.onnx.standard_table > docs/standard-nets.md"
    )
    assert all(r[4].strip().startswith("0") or r[4].strip() == "refused" for r in rows)
