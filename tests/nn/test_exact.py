"""One forward: training with frozen exponents, eval and the exported file give the same integers, on every chip."""

import warnings

import numpy as np
import pytest
import torch

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of
from tests.nn.zoo import ZOO, batch, tensors

PLATFORMS = ("arcs", "mars", "venus", "venusA")
CHIPS = [("arcs", "MOM"), ("mars", "TQT"), ("venus", "MOM"), ("venusA", "MOM"), ("venusA", "TQT")]
CHIPS += [pytest.param(p, m, marks=pytest.mark.slow) for p, m in (("arcs", "TQT"), ("mars", "MOM"), ("venus", "TQT"))]


def _config(tmp_path, platform, method):
    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    return str(path)


def _trained(cls, config, steps=3):
    torch.manual_seed(0)
    model = linger.init(cls(), config, example_inputs=batch(cls))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for step in range(steps):
        loss = sum(t.pow(2).mean() for t in tensors(model(*batch(cls, 4, step + 1))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    return model


@pytest.mark.parametrize(("platform", "method"), CHIPS)
@pytest.mark.parametrize("name", ZOO)
def test_zoo_runs_the_same_integers_everywhere(name, platform, method, tmp_path):
    cls = ZOO[name]
    model = _trained(cls, _config(tmp_path, platform, method))
    assert [i.operator for i in islands_of(model)] == getattr(cls, "islands", {}).get(platform, [])
    inputs = batch(cls, 1, 99)
    model.eval()
    with torch.no_grad():
        want = tensors(model(*inputs))
    refused = getattr(cls, "refused", {}).get(platform)
    if refused is not None:
        with pytest.raises(linger.onnx.ExportError, match=refused):
            linger.onnx.export(model, inputs, tmp_path / "m.onnx")
        return
    linger.onnx.export(model, inputs, tmp_path / "m.onnx")
    codes = list(OnnxRunner(tmp_path / "m.onnx").run(inputs, integers=True).values())
    values = list(OnnxRunner(tmp_path / "m.onnx").run(inputs).values())
    assert len(codes) == len(want)
    for got, value, expected in zip(codes, values, want, strict=True):
        scale = float(info(expected).scale)
        assert np.array_equal(got, (expected * scale).round().to(torch.int64).numpy())
        assert np.array_equal(value, expected.numpy())


@pytest.mark.parametrize("name", ZOO)
def test_training_with_frozen_statistics_equals_eval(name, tmp_path):
    cls = ZOO[name]
    model = _trained(cls, _config(tmp_path, "venusA", "MOM"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inputs = batch(cls, 3, 7)
    with torch.no_grad():
        want = tensors(model.eval()(*inputs))
    model.train()
    linger.freeze_statistics(model, batch_norm=True)
    for got, expected in zip(tensors(model(*inputs)), want, strict=True):
        assert torch.equal(got.detach(), expected)


def test_export_is_deterministic_and_leaves_the_model_alone(tmp_path):
    cls = ZOO["ConvNet"]
    model = _trained(cls, _config(tmp_path, "venusA", "MOM"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = batch(cls, 1)
    files = []
    for i, mode in enumerate((True, False)):
        model.train(mode)
        with torch.set_grad_enabled(not mode):
            linger.onnx.export(model, x, tmp_path / f"{i}.onnx", aten=True, strip_doc_string=False)
        assert model.training is mode
        files.append((tmp_path / f"{i}.onnx").read_bytes())
    assert files[0] == files[1]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_export_before_any_data_lists_every_layer(tmp_path):
    cls = ZOO["ConvNet"]
    model = linger.init(cls(), example_inputs=batch(cls))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(linger.onnx.ExportError, match=r"running_x.*stem.*depthwise.*fc"):
            linger.onnx.export(model, batch(cls, 1), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_eval_before_any_data_warns_once():
    cls = ZOO["Two"]
    model = linger.init(cls()).eval()
    with pytest.warns(UserWarning, match="have seen no data"):
        model(*batch(cls))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(*batch(cls))


def test_nan_shows_at_once_and_enters_no_statistics():
    cls = ZOO["ConvNet"]
    model = linger.init(cls(), example_inputs=batch(cls)).train()
    model(*batch(cls))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    (x,) = batch(cls)
    x[0, 0, 3, 3] = float("nan")
    y = model(x)
    assert torch.isnan(y).all()
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if "put_quantizer" in k)
    assert model.stem[0].output_quantizer.n_skipped == 1


def test_backward_works_in_eval_mode():
    cls = ZOO["ConvNet"]
    model = linger.init(cls(), example_inputs=batch(cls))
    model(*batch(cls))
    model.eval()(*batch(cls)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class _Strided(torch.nn.Module):
    """Kernels below their stride, which no chip takes as they are; odd and even sizes."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Conv2d(2, 3, 1, stride=2)
        self.b = torch.nn.Conv2d(3, 4, (3, 1), stride=(1, 4), padding=1)
        self.c = torch.nn.Conv1d(4, 4, 1, stride=2)

    def forward(self, x):
        return self.c(self.b(self.a(x)).flatten(2))


@pytest.mark.parametrize("size", [(9, 11), (10, 12), (11, 8)])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_kernels_below_the_stride_are_written_in_a_form_the_chip_takes(platform, size, tmp_path):
    torch.manual_seed(0)
    model = linger.init(_Strided(), _config(tmp_path, platform, "MOM"))
    for _ in range(3):
        model(torch.randn(2, 2, *size))
    x = torch.randn(1, 2, *size)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model.eval()(x).detach().numpy())


def test_a_value_read_in_forward_is_said_at_export(tmp_path):
    class Reads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x)
            return y[:, :2] if float(y.detach().sum()) > 1e9 else y.view_as(x)

    model = linger.init(Reads())
    model(torch.randn(2, 4))
    with pytest.warns(UserWarning, match=r"reads the value of a tensor"):
        linger.onnx.export(model, torch.randn(1, 4), tmp_path / "m.onnx")
