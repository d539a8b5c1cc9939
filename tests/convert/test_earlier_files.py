"""Checkpoints and files of an earlier version (commit 03d180f) give the integers that they gave then.

``tests/data/earlier/make.py`` wrote them; where a later rule of arithmetic differs on purpose, `CHANGED` says so in one sentence.
"""

import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info

HERE = Path(__file__).parents[1] / "data" / "earlier"
_spec = importlib.util.spec_from_file_location("earlier_nets", HERE / "nets.py")
nets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(nets)

CHIPS = ("arcs", "mars", "venus", "venusA")
CHANGED = {}  # (chip, net) -> one sentence
ALL = [(chip, name) for chip in CHIPS for name in nets.NETS if (chip, name) not in CHANGED]


class Earlier:
    """What the archive of a chip holds of one network."""

    def __init__(self, chip, name, folder):
        with zipfile.ZipFile(HERE / f"{chip}.zip") as archive:
            self.kinds = {n.split(".")[1] for n in archive.namelist() if n.split(".")[0] == name}
            for kind in self.kinds:
                (folder / f"{name}.{kind}").write_bytes(archive.read(f"{name}.{kind}"))
        self.checkpoint, self.file = folder / f"{name}.pt", folder / f"{name}.onnx"
        with np.load(io.BytesIO((folder / f"{name}.npz").read_bytes())) as arrays:
            self.inputs = self._all(arrays, "input")
            self.values, self.scales = self._all(arrays, "value"), self._all(arrays, "scale")

    @staticmethod
    def _all(arrays, kind):
        return [arrays[k] for k in sorted(k for k in arrays.files if k.startswith(f"{kind}_"))]

    @property
    def tensors(self):
        return tuple(torch.from_numpy(a) for a in self.inputs)

    @property
    def integers(self):
        return [
            np.rint(v.astype(np.float64) * s).astype(np.int64) for v, s in zip(self.values, self.scales, strict=True)
        ]


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else [t for r in result for t in flat(r)]


def same_as_then(model, earlier):
    with torch.no_grad():
        outputs = flat(model.eval()(*earlier.tensors))
    assert [float(info(t).scale) for t in outputs] == [float(s) for s in earlier.scales]
    for got, want in zip(outputs, earlier.values, strict=True):
        assert np.array_equal(got.numpy(), want)


@pytest.mark.parametrize(("chip", "name"), ALL)
def test_a_saved_model_gives_the_integers_of_then(chip, name, tmp_path):
    earlier = Earlier(chip, name, tmp_path)
    model = nets.NETS[name]()
    linger.load(model, earlier.checkpoint)
    same_as_then(model, earlier)


@pytest.mark.parametrize(("chip", "name"), ALL)
def test_a_file_gives_the_integers_of_then(chip, name, tmp_path):
    earlier = Earlier(chip, name, tmp_path)
    if "onnx" not in earlier.kinds:  # the chip refused the network
        return
    found = OnnxRunner(earlier.file).run(earlier.inputs, integers=True)
    for got, want in zip(found.values(), earlier.integers, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize(("chip", "name"), ALL)
def test_a_saved_model_is_written_as_the_file_of_then_computes(chip, name, tmp_path):
    earlier = Earlier(chip, name, tmp_path)
    if "onnx" not in earlier.kinds:
        return
    model = nets.NETS[name]()
    linger.load(model, earlier.checkpoint)
    linger.onnx.export(model.eval(), earlier.tensors, tmp_path / "now.onnx")
    found = OnnxRunner(tmp_path / "now.onnx").run(earlier.inputs, integers=True)
    for got, want in zip(found.values(), earlier.integers, strict=True):
        assert np.array_equal(got, want)


def test_every_chip_wrote_most_networks():
    """The checks above do not run empty."""
    for chip in CHIPS:
        with zipfile.ZipFile(HERE / f"{chip}.zip") as archive:
            kinds = [n.split(".")[1] for n in archive.namelist()]
        assert kinds.count("pt") == kinds.count("npz") == len(nets.NETS) and kinds.count("onnx") >= 4
