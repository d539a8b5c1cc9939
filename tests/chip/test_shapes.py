"""Sizes and widths that the rules follow through a graph are those that the chip returned."""

import numpy as np
import pytest
from golden.cases import CASES

from linger.convert.findings import walk
from linger.onnx.graph_facts import graph_facts
from linger.onnx.loader import load

FILES = [case for case in CASES if not case.op.startswith("later_")]
UNKNOWN = {"iqPad", "ShuffleChannel"}  # no rule asks for the sizes of their results


@pytest.mark.parametrize("case", FILES, ids=[case.id for case in FILES])
def test_sizes_and_widths(case):
    facts = {}
    for entry, node in walk(*graph_facts(load(case.model))):
        integers = node.inputs if node.op_type == "Dequant" and case.op != "Quant" else node.outputs
        facts |= dict(zip(entry[4], integers, strict=True))
    for name, array in case.outputs.items():
        known = facts[name]
        if known.shape is None:
            assert case.op in UNKNOWN
            continue
        if "lstm" not in case.name.lower():  # lengths cut the sequence, states come flat
            assert known.shape == array.shape
        assert known.bits == (0 if array.dtype == np.float32 else array.dtype.itemsize * 8) or name.startswith("c")
