"""The recorded vectors, read on demand: ``for case in CASES``."""

import io
import json
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PLATFORMS = ("arcs", "venus", "venusA")


class Case:
    """One recorded model: its bytes, what enters it, what leaves it."""

    def __init__(self, platform, name):
        self.platform, self.name = platform, name
        self.op = name.split("/")[0]
        self.id = f"{platform}/{name}"

    def _file(self, suffix):
        with zipfile.ZipFile(HERE / f"{self.platform}.zip") as archive:
            return archive.read(self.name + suffix)

    @cached_property
    def model(self):
        return self._file(".onnx")

    @cached_property
    def arrays(self):
        with np.load(io.BytesIO(self._file(".npz"))) as arrays:
            return dict(arrays)

    @cached_property
    def about(self):
        return json.loads(self._file(".json"))

    @property
    def inputs(self):
        """Integers by input name (float32 for the Quant cases)."""
        return {entry["name"]: self.arrays[entry["key"]] for entry in self.about["inputs"]}

    @property
    def floats(self):
        """The same as floats; indices, which have no scale, stay integers, and so do lengths and states."""
        scale = {entry["name"]: np.float32(entry["scale"] or 1) for entry in self.about["inputs"]}
        kept = (np.float32, np.int64)
        integer = {e["name"] for e in self.about["inputs"][1:] if self.op == "LSTMInt"}
        return {
            n: a if a.dtype in kept or n in integer else a.astype(np.float32) / scale[n] for n, a in self.inputs.items()
        }

    @property
    def outputs(self):
        """What the chip returned, by output name."""
        return {entry["name"]: self.arrays[entry["key"]] for entry in self.about["outputs"]}


def _names(platform):
    """Cases with a model, and those of plain arrays."""
    with zipfile.ZipFile(HERE / f"{platform}.zip") as archive:
        names = archive.namelist()
    models = {name.removesuffix(".onnx") for name in names if name.endswith(".onnx")}
    return sorted(models), sorted({name.removesuffix(".npz") for name in names if name.endswith(".npz")} - models)


CASES = [Case(platform, name) for platform in PLATFORMS for name in _names(platform)[0]]
ARRAYS = [Case(platform, name) for platform in PLATFORMS for name in _names(platform)[1]]
"""``kernel_<function>``: one chip function called directly. ``later_<operator>``: an operator of the later engine revision."""
