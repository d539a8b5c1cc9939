"""Nets of the zoo on every chip: refused by check before training, or written as a file that has the model's integers."""

from pathlib import Path

import pytest

import linger

from . import CHIPS, ZOO
from .stages import chip, fresh, key, sqnr, trained, written

METHODS = ("MOM", "TQT")
NAMES = list(ZOO)
# every net once, the chips and methods in turn; all of them in the slow tests
TURNS = [(n, CHIPS[i % 4], METHODS[i // 4 % 2]) for i, n in enumerate(NAMES)]
REST = [(n, c, m) for n in NAMES for c in CHIPS for m in METHODS if (n, c, m) not in TURNS]


@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus"])
@pytest.mark.parametrize("name", NAMES)
def test_check_says_before_training_what_a_chip_lacks(name, platform):
    net = ZOO[name]
    with chip(platform):
        report = linger.check(fresh(net), platform, net.inputs())
    assert {key(v) for v in report.errors} == net.lacks(platform), str(report)
    assert report.ok == (not report.errors) and report.warnings == [], str(report)
    for v in report.errors:
        assert v.layer and v.what and v.limit and v.remedy, v


@pytest.mark.parametrize(
    ("name", "platform", "method"), TURNS + [pytest.param(*row, marks=pytest.mark.slow) for row in REST]
)
def test_a_trained_net_has_the_same_integers_in_its_file(name, platform, method, tmp_path):
    net = ZOO[name]
    with chip(platform, method):
        before = linger.check(fresh(net), platform, net.inputs())
        model, losses = trained(net)
        assert all(loss == loss and loss < float("inf") for loss in losses), losses
        assert sum(losses[-5:]) < sum(losses[:5]), losses
        file = written(model, net, tmp_path / "net.onnx")
        assert bool(file.refused) == any(v.refused for v in before.errors), file.refused
        if file.refused:
            return
        assert file.differing == 0
        assert file.report.ok == before.ok == linger.check(model, example_inputs=net.inputs()).ok
        assert (tmp_path / "net.pack.txt").exists() == (not before.ok or bool(before.options))
        if not before.ok:
            with pytest.raises(linger.onnx.ExportError):
                linger.onnx.export(model, net.inputs(), tmp_path / "strict.onnx", strict=True)


def test_calibration_keeps_the_outputs():
    with chip("venusA"):
        assert sqnr(ZOO["DS-CNN"]) > 20


def test_the_page_has_every_net():
    page = Path(__file__).parents[2] / "docs" / "zoo.md"
    first = page.read_text(encoding="utf-8").split("\n\n| what |")[0]
    rows = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")]
    assert rows[2:] == NAMES, "write it again: python -m tests.zoo > docs/zoo.md"
