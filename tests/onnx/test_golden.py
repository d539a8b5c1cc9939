"""Every recorded case through the runner, with ``==``: from floats, from integers, and the floats behind the Dequant."""

import numpy as np
import pytest
from golden.cases import CASES, PLATFORMS

from linger.onnx import OnnxRunner

each_case = pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])


STATES = ("hn", "cn", "hf", "cf", "hb", "cb")  # recorded without their axes of size one


def shaped(name, got, want):
    return got.reshape(want.shape) if name in STATES and got.size == want.size else got


def assert_same(got, want):
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        assert np.array_equal(shaped(name, got[name], array), array)


@each_case
def test_integers_are_the_chips(case):
    runner = OnnxRunner(case.model)
    assert runner.platform == case.platform
    kept = all(array.dtype != np.float32 for array in case.outputs.values())  # Quant cases hold floats
    assert_same(runner.run(case.floats, integers=kept), case.outputs)
    assert_same(runner.run(case.inputs, integers=kept), case.outputs)


@each_case
def test_floats_are_integers_over_scale(case):
    got, want = OnnxRunner(case.model).run(case.floats), case.outputs
    for entry in case.about["outputs"]:
        name, scale = entry["name"], entry["scale"]
        if want[name].dtype == np.float32 or got[name].dtype != np.float32:  # no Dequant: the integers themselves
            assert np.array_equal(shaped(name, got[name], want[name]), want[name])
        else:
            assert np.array_equal(got[name], want[name].astype(np.float32) / np.float32(scale))


def test_every_platform_and_operator_is_there():
    assert {case.platform for case in CASES} == set(PLATFORMS)
    assert {case.op for case in CASES} >= {
        *(
            "Conv1dInt",
            "Conv2dInt",
            "LinearInt",
            "iqAdd",
            "AvgPool2dInt",
            "MaxPool",
            "Relu",
            "Quant",
            "Requant",
            "iqCat",
        ),
        *("BatchNorm2dInt", "Flatten", "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Split", "net"),
    }
    assert len(CASES) >= 200
