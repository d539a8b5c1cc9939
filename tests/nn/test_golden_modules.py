"""Every recorded case as a torch module: the parameters loaded into eval-mode layers give the chip's integers, with ``==``."""

import numpy as np
import pytest
import torch
from golden.cases import ARRAYS, CASES

import linger

from .rebuilt import fix, initialised, integers

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


def gru(case, path):
    """A recorded GRU as a layer in eval mode; venus swaps the roles of z and 1 - z, so its rows of z are negated."""
    q, w = case.about["params"], [torch.from_numpy(case.arrays[f"w_{i}"].copy()).double() for i in range(4)]
    ih, hh = q["q_x"] + q["q_iw"], q["q_h"] + q["q_hw"]
    size = w[1].shape[1]
    layer = torch.nn.GRU(w[0].shape[1], size, batch_first=True)
    for p, codes, exp2 in zip(layer.parameters(), w, (q["q_iw"], q["q_hw"], ih, hh), strict=True):
        if case.platform == "venus":
            codes[size : 2 * size] *= -1
        value = codes / 2.0**exp2
        assert torch.equal(value.float().double(), value), "a parameter that float32 does not hold"
        p.data = value.float()
    path.write_text(f"platform: {case.platform}\n")
    model = linger.init(layer, path).eval()
    exponents = {"input": "q_x", "weightih": "q_iw", "weighthh": "q_hw", "output": "q_h"}
    for name, exp2 in exponents.items():
        fix(getattr(model, f"{name}_quantizer"), 2.0 ** q[exp2])
    return model


RECORDED_GRU = [case for case in ARRAYS if case.op == "later_GRUInt"]


@pytest.mark.parametrize("case", RECORDED_GRU, ids=[case.id for case in RECORDED_GRU])
def test_eval_gru_gives_the_later_engines_integers(case, tmp_path):
    model = gru(case, tmp_path / "c.yaml")
    q = case.about["params"]
    x = torch.from_numpy(case.arrays["in_0"].copy()).float() / 2.0 ** q["q_x"]
    with torch.no_grad():
        y, h = model(x if q["go_forward"] else x.flip(1))  # torch has no layer that runs backwards only
    y = y if q["go_forward"] else y.flip(1)
    assert np.array_equal(y.numpy() * 2.0 ** q["q_h"], case.arrays["out_0"])
    assert np.array_equal(integers(h).numpy().flatten(), case.arrays["out_1"])
