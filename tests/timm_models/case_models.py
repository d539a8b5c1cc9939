"""Models of timm, without weights, on 64 x 64 pixels: nothing is float on venusA, files have the integers. ``make test-timm``."""

import warnings

import numpy as np
import pytest
import timm
import torch

import linger
from linger import settings
from linger.onnx import OnnxRunner

NAMES = (
    "test_resnet resnet10t resnet18d mobilenetv2_035 mobilenetv3_small_050 mobilenetv3_large_075 efficientnet_lite0 "
    "tf_efficientnet_lite0 test_efficientnet repvgg_a0 test_byobnet regnetx_002 regnety_002 lcnet_035 ghostnet_050 tinynet_e "
    "convnext_atto test_convnext mobileone_s0"
).split()
# docs/operators.md: venusA has the erf form of gelu alone
FLOAT = {"test_convnext": {"gelu"}}


def made(name):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=10)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_float_and_the_file_has_the_integers(name, tmp_path):
    settings.use(settings.loads("platform: venusA\n"))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = linger.check(made(name), "venusA", x[:1])
        assert {v.value for v in report if v.what == "float operator"} == FLOAT.get(name, set())
        model = linger.init(made(name), example_inputs=x)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model.train()(x), torch.tensor([1, 2])).backward()
            optimizer.step()
        assert {i.split(": ")[1].split()[0] for i in linger.summary(model).islands} == FLOAT.get(name, set())
        with torch.no_grad():
            want = model.eval()(x[:1]).numpy()
        assert np.isfinite(want).all()
        if any(v.refused for v in report.errors):
            with pytest.raises(linger.onnx.ExportError):
                linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
            return
        linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
        (got,) = OnnxRunner(tmp_path / "m.onnx").run(x[:1].numpy()).values()
    assert np.array_equal(got, want)
