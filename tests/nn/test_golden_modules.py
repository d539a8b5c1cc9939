"""Every recorded case as a torch module: the parameters loaded into eval-mode layers give the chip's integers, with ``==``."""

import numpy as np
import pytest
import torch
from golden.cases import CASES

from .rebuilt import initialised, integers

# what a float module with these quantizers cannot be, and why
LEFT_OUT = {
    "BatchNorm2dInt/extremes": "a bias that float32 does not hold",
    "Conv1dInt/saturate_extremes": "a bias of 31 bits: the exponent of the weight is lowered",
    "Conv2dInt/int32_accumulator_saturation": "a bias that float32 does not hold",
    "ConvTranspose2dInt/k3_s1_saturate": "a bias that float32 does not hold",
    "LayerNormInt/extreme_bias": "a bias that float32 does not hold",
    "LSTMInt/fine_scales_right_shift": "a bias that float32 does not hold",
    "LinearInt/extremes_no_int32_clamp": "a bias that float32 does not hold",
    "LinearInt/out_int32_leftshift": "a result finer than its sum: scale_o is at most scale_x * scale_w",
    "AvgPool2dInt/rescale_up": "pooling keeps its scale",
    "iqCat/left_shift_saturate": "on venusA the scale is the largest of the inputs'",
}
FILES_ONLY = {"Requant"}  # between two operators of a file; no module writes one alone


def _fits(case):
    if case.op in FILES_ONLY or case.op.startswith("later_"):
        return False
    return case.name not in LEFT_OUT or case.name.startswith("iqCat") and case.platform != "venusA"


FITTING = [case for case in CASES if _fits(case)]


@pytest.mark.parametrize("case", FITTING, ids=[case.id for case in FITTING])
def test_eval_modules_give_the_chips_integers(case, tmp_path):
    model, values = initialised(case, tmp_path / "c.yaml")
    with torch.no_grad():
        results = model(*values)
    wanted = list(case.outputs.values())
    assert len(results) == len(wanted)
    for got, want in zip(results, wanted, strict=True):
        array = (got if want.dtype == np.float32 else integers(got)).numpy()
        assert array.dtype == want.dtype and np.array_equal(array.reshape(want.shape), want)


def test_what_is_left_out_is_recorded():
    assert {case.name for case in CASES} >= set(LEFT_OUT)
    assert len(FITTING) >= 340
