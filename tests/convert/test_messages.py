"""What a newcomer does wrong, or need not know: one sentence that names layer, what arrived and what to write."""

import io

import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4 * 4 * 4, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def trained():
    torch.manual_seed(0)
    model = linger.init(Net())
    model(X)
    return model.eval()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("platform: arcs\nseed: 7\ncalibration: true\n")
    return path


@pytest.mark.parametrize("stage", ["constrain", "init"])
def test_seeding_is_said_with_file_and_line_and_how_to_stop_it(stage, config, caplog):
    getattr(linger, stage)(Net(), config)
    said = [m for m in caplog.messages if "seeded torch" in m]
    assert said == [
        f"linger.{stage}: seeded torch, numpy and random with 7 ({config}, line 2); to leave them alone, remove the line `seed`"
    ]
    first = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(first, torch.rand(3))


def test_nothing_is_seeded_or_said_without_the_key(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text("platform: arcs\n")
    model, state = Net(), torch.random.get_rng_state()
    linger.init(linger.constrain(model, tmp_path / "c.yaml"), tmp_path / "c.yaml")
    assert torch.equal(state, torch.random.get_rng_state()) and "seeded" not in caplog.text


def test_calibration_in_a_file_starts_nothing_and_init_says_what_does(config, caplog):
    linger.init(Net(), config)
    (said,) = [m for m in caplog.messages if "`calibration: true`" in m]
    assert said.startswith(f"linger.init: `calibration: true` ({config}, line 3) starts nothing")
    assert "`with linger.calibration(model):`" in said


def test_constraining_twice_is_said(caplog):
    model = linger.constrain(Net())
    assert "constrained already" not in caplog.text
    linger.constrain(model)
    (said,) = [m for m in caplog.messages if "constrained already" in m]
    assert "(conv, fc)" in said and "linger.constrain(Net(), ...)" in said


def test_an_empty_batch_in_calibration_is_said(caplog):
    model = linger.init(Net())
    with linger.calibration(model):
        model(X[:0])
    (said,) = [m for m in caplog.messages if "empty" in m]
    assert "'conv' got an empty batch, of shape (0, 3, 4, 4)" in said and "at least one sample" in said
    caplog.clear()
    with linger.calibration(model):
        model(X)
    assert "empty" not in caplog.text


@pytest.mark.parametrize("call", ["forward", "calibrate", "export"])
def test_an_integer_image_is_said(call, tmp_path):
    model, image = trained(), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    match = r"'conv.input_quantizer': .* got torch.uint8 of shape \(2, 3, 4, 4\); write x.float\(\), and .* x.float\(\) / 255"
    with pytest.raises(TypeError, match=match):
        if call == "forward":
            model(image)
        elif call == "calibrate":
            with linger.calibration(model):
                model(image)
        else:
            linger.onnx.export(model, image, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_without_a_batch_axis_says_what_to_write(tmp_path):
    match = (
        r"input of shape \(3, 4, 4\) \('fc': linear: .*\(4, 16\).*; it does with a batch axis in front: "
        r"write linger.onnx.export\(model, x\[None\], ...\)"
    )
    with pytest.raises(linger.errors.ExportError, match=match):
        linger.onnx.export(trained(), X[0], tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"^'conv': conv: x has 4 channels"):  # a batch axis would not help
        linger.onnx.export(trained(), torch.ones(1, 4, 4, 4), tmp_path / "m.onnx")


def test_errors_in_a_forward_name_the_layer():
    model = trained()
    with pytest.raises(ValueError, match=r"^'fc': linear: x must be \(..., K\)"):
        model(torch.ones(1, 3, 5, 5))
    deep = linger.init(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Conv2d(5, 1, 1)))
    with pytest.raises(ValueError, match=r"^'1': conv: x has 4 channels, which does not fit weight \(1, 5, 1, 1\)"):
        deep(X)


@pytest.mark.parametrize(
    ("read", "writer"),
    [
        (OnnxRunner, "linger.onnx.export"),
        (linger.check, "linger.onnx.export"),
        (linger.onnx.pack_report, "linger.onnx.export"),
        (lambda path: linger.load(Net(), path), "linger.save"),
        (lambda path: linger.init(Net()).load_state_dict(path), "linger.save"),
    ],
)
def test_paths_that_do_not_exist(read, writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        read("none.file")
    assert str(error.value).startswith(
        f"cannot read 'none.file' in the folder '{tmp_path}': there is no such file; {writer}("
    )
    with pytest.raises(IsADirectoryError, match=rf"^cannot read '{tmp_path}': it is a folder$"):
        read(str(tmp_path))


def test_a_check_is_true_where_it_is_ok():
    good, bad = linger.check(trained(), example_inputs=X[:1]), linger.check(nn.Conv2d(1, 2, 3, 3), "venus")
    assert bool(good) is good.ok is True
    assert bool(bad) is bad.ok is False and len(bad)


def step(model, *optimizers, x=X):
    model.train()(x).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def missing(caplog):
    return [m for m in caplog.messages if "optimizer lacks" in m]


def test_an_optimizer_without_thresholds_is_said_in_the_first_step(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text("quant_info: {qat_method: TQT}\n")
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model = linger.init(model, tmp_path / "c.yaml")
    step(model, optimizer)
    (said,) = missing(caplog)
    thresholds = [n for n, p in model.named_parameters() if "quantizer" in n and p.grad is not None]
    assert thresholds and all(name in said for name in thresholds) and "conv.weight," not in said
    assert f"lacks {len(thresholds)} parameters" in said and "requires_grad = False" in said
    step(model, optimizer)
    assert len(missing(caplog)) == 1


def test_optimizers_that_have_everything_between_them_are_not_named(caplog):
    model = linger.init(Net())
    parts = [torch.optim.SGD(part.parameters(), 1e-3) for part in (model.conv, model.fc)]
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), 1e-3)
    step(nn.Linear(3, 2), other, x=torch.ones(1, 3))
    step(model, *parts)
    assert not missing(caplog)


def test_frozen_parameters_are_not_named(caplog):
    model = linger.init(Net())
    model.conv.requires_grad_(False)
    step(model, torch.optim.SGD(model.fc.parameters(), 1e-3))
    assert not missing(caplog)
    model = linger.init(Net())
    step(model, torch.optim.SGD(model.fc.parameters(), 1e-3))
    (said,) = missing(caplog)
    assert "conv.weight," in said and "fc.weight" not in said


def test_a_long_list_is_shortened(caplog):
    model = linger.init(nn.Sequential(*(nn.Linear(4, 4) for _ in range(15))))
    step(model, torch.optim.SGD(model[0].parameters(), 1e-3), x=torch.randn(2, 4))
    (said,) = missing(caplog)
    assert "lacks 28 parameters" in said and "and 8 more" in said


def test_a_file_object_is_read_as_before():
    model, file = trained(), io.BytesIO()
    linger.save(model, file)
    file.seek(0)
    assert torch.equal(linger.load(Net(), file).eval()(X), model(X))


class Ways(nn.Module):
    """A layer, and an operator of user code that runs where ``on`` says so."""

    def __init__(self, operator):
        super().__init__()
        self.a, self.b, self.operator, self.on = nn.Linear(4, 4), nn.Linear(4, 4), operator, True

    def forward(self, x):
        x, y = self.a(x), self.b(x)
        return self.operator(x, y) if self.on else x


OPERATORS = {
    "x + y": lambda x, y: x + y,
    "x * y": lambda x, y: x * y,
    "x @ y": lambda x, y: x @ y,
    "cat": lambda x, y: torch.cat([x, y], 1),
    "sigmoid": lambda x, y: torch.sigmoid(x) * torch.tanh(y),
    "mean": lambda x, y: (x - y).mean(1),
}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("how", OPERATORS)
def test_thresholds_that_are_born_in_a_step_are_named_in_it(how, later, tmp_path, caplog):
    (tmp_path / "c.yaml").write_text("quant_info: {qat_method: TQT}\n")

    def fresh(**more):
        torch.manual_seed(0)
        return linger.init(Ways(OPERATORS[how]), tmp_path / "c.yaml", **more)

    x = torch.randn(4, 4)
    model = fresh()
    optimizer = torch.optim.Adam(model.parameters())
    if later:  # another way through the model comes in the third step
        model.on = False
        step(model, optimizer, x=x)
        step(model, optimizer, x=x)
        assert not missing(caplog)
        model.on = True
    step(model, optimizer, x=x)
    (said,) = missing(caplog)
    assert "_linger_qtensor_" in said and "example_inputs" in said
    assert any(n in said for n, _ in model.named_parameters() if "_linger_qtensor_" in n and "output_quantizer" in n)
    step(model, optimizer, x=x)
    assert len(missing(caplog)) == 1
    caplog.clear()
    cured, again = fresh(example_inputs=x), fresh(example_inputs=x)
    optimizer = torch.optim.Adam(cured.parameters())
    step(cured, optimizer, x=x)
    again.load_state_dict(cured.state_dict())
    resumed = torch.optim.Adam(again.parameters())
    resumed.load_state_dict(optimizer.state_dict())
    step(again, resumed, x=x)
    assert not missing(caplog)
