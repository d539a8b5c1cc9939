"""Subclasses whose own code calls the layer's function, and functions on parameters that others hold: both are layers."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from convert.own_code_nets import IMAGE, OWN, ROWS, SOUND, trained
from torch import nn

import linger
from linger.nn import BatchNorm2dInt, Conv1dInt, Conv2dInt, LinearInt


def initialised(m, x, tmp_path, **options):
    (tmp_path / "c.yaml").write_text(
        "quant_info: {a_calibrate_name: abs_max}\nclamp_info: {clamp_factor_value: null}\n"
    )
    q = linger.init(m, config_file=tmp_path / "c.yaml", **options)
    with linger.calibration(q):
        q(x)
    return q


@pytest.mark.parametrize("stages", ["init", "step", "constrain"])
@pytest.mark.parametrize("seen", ["read", "run"])
@pytest.mark.parametrize("kind", OWN)
def test_the_call_is_the_layer(kind, seen, stages, tmp_path, caplog):
    m, x = trained(kind)
    want = m.eval()(x).detach()
    example = x if seen == "run" else None
    if stages == "constrain":
        m = linger.constrain(m, example_inputs=example)
    q = initialised(m, x, tmp_path, example_inputs=example, fold_bn="step" if stages == "step" else "once")
    rows = {r["name"]: r["layer"] for r in linger.summary(q).to_dict()["layers"]}
    wants = {nn.Conv2d: Conv2dInt, nn.Conv1d: Conv1dInt, nn.Linear: LinearInt}
    for name, layer in q.named_children():
        torchs = next((t for t in wants if isinstance(layer, t)), None)
        assert torchs is None or isinstance(layer, wants[torchs]) and name in rows
    norms = [n for n, c in q.named_modules() if isinstance(c, nn.BatchNorm2d) and c.running_mean is not None]
    alone = [n for n in norms if isinstance(q.get_submodule(n), BatchNorm2dInt)]
    assert alone == (["2"] if kind == "norm alone" else [])
    assert len(norms) - len(alone) == sum(n.endswith(".bn") for n in norms)  # the rest trains inside its layer
    q.train()(x)
    got = q.eval()(x)
    assert (got - want).pow(2).sum() < 0.15 * want.pow(2).sum()
    one = x[:1]
    linger.onnx.export(q, one, tmp_path / "m.onnx")
    file = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(one.numpy()).values()))
    assert torch.equal(torch.from_numpy(file), q(one).detach())
    assert "stay" not in caplog.text.replace("train without limits", "").replace("these layers train", "")
    assert all("pad stays in float" in i for i in linger.summary(q).islands)  # of the graph's float input


@pytest.mark.parametrize("kind", OWN)
def test_training_copies_and_checkpoints(kind, tmp_path):
    m, x = trained(kind)
    q = initialised(copy.deepcopy(m), x, tmp_path)
    optimizer = torch.optim.SGD(q.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        q.train()(x).square().mean().backward()
        assert all(p.grad is not None for p in q.parameters() if p.requires_grad)
        optimizer.step()
    want = q.eval()(x)
    assert torch.equal(copy.deepcopy(q)(x), want)
    file = io.BytesIO()
    torch.save(q, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), want)
    linger.save(q, tmp_path / "q.pt")
    fresh = copy.deepcopy(m)
    linger.load(fresh, tmp_path / "q.pt")
    assert torch.equal(fresh.eval()(x), want)


def test_statistics_of_a_norm_that_stands_alone_count_each_batch_once(tmp_path):
    for momentum in (0.1, None):
        m, x = trained("norm alone")
        m[2].momentum = momentum
        reference = copy.deepcopy(m[2])
        q = initialised(m, x, tmp_path)
        reference.num_batches_tracked.zero_(), q[2].num_batches_tracked.zero_()
        q.eval()
        y = q[1](q[0](x)).detach()
        q.train()(x), reference.train()(y)
        assert int(q[2].num_batches_tracked) == 1 and torch.allclose(
            q[2].running_mean, reference.running_mean, atol=0.02
        )


class Scaled(nn.Linear):
    """Its weight is computed: that is no layer's arithmetic, and said."""

    def forward(self, x):
        return F.linear(x, self.weight / self.weight.norm(), self.bias)


class OtherStride(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, stride=2)


@pytest.mark.parametrize(("layer", "shape"), [(Scaled(6, 4), ROWS), (OtherStride(3, 4, 2), IMAGE)])
def test_other_arithmetic_is_named(layer, shape, caplog):
    linger.init(nn.Sequential(layer))
    assert "overrides forward" in caplog.text and "its arithmetic is not the layer's" in caplog.text


class Shared(nn.Module):
    """Functions on parameters that another module holds."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b, self.table = nn.Linear(6, 6), nn.Linear(6, 6), nn.Embedding(5, 6)
        self.conv, self.line = nn.Conv2d(3, 3, 3, padding=1), nn.Conv1d(3, 3, 3)
        self.free = nn.Parameter(torch.randn(4, 6) / 2)
        self.register_buffer("fixed", torch.randn(4, 6) / 2)

    def forward(self, x):
        match self.how:
            case "weight":
                return F.linear(torch.relu(self.a(x)), self.b.weight)
            case "weight and bias":
                return F.linear(self.a(x), self.b.weight, self.b.bias)
            case "tied":
                return F.linear(self.a(x), self.table.weight)
            case "transposed":
                return F.linear(self.a(x), self.a.weight.t())
            case "parameter":
                return torch.nn.functional.linear(self.a(x), weight=self.free)
            case "buffer":
                return F.linear(self.a(x), self.fixed)
            case "part":
                return F.linear(self.a(x), self.b.weight[:3], self.b.bias[:3])
            case "conv2d":
                return F.conv2d(self.conv(x), self.conv.weight, self.conv.bias, stride=2, padding=1)
            case "conv2d, same":
                return F.conv2d(self.conv(x), self.conv.weight, padding="same")
            case "conv1d":
                return F.conv1d(self.line(x), self.line.weight, dilation=2)


FORMS = [
    "weight",
    "weight and bias",
    "tied",
    "transposed",
    "parameter",
    "buffer",
    "part",
    "conv2d",
    "conv2d, same",
    "conv1d",
]


@pytest.mark.parametrize("how", FORMS)
def test_functions_on_parameters_of_others(how, tmp_path):
    torch.manual_seed(0)
    m, x = Shared(how), torch.randn({"conv2": IMAGE, "conv1": SOUND}.get(how[:5], ROWS))
    want = m(x).detach()
    q = initialised(m, x, tmp_path)
    got = q.eval()(x)
    assert linger.runtime.info(got) is not None and not linger.summary(q).islands
    assert (got - want).pow(2).sum() < 0.15 * want.pow(2).sum()
    linger.onnx.export(q, x[:1], tmp_path / "m.onnx")
    file = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1].numpy()).values()))
    assert torch.equal(torch.from_numpy(file), q(x[:1]).detach())
    again = linger.init(Shared(how))
    again.load_state_dict(q.state_dict(), strict=False)
    assert torch.equal(again.eval()(x), got)
    q.train()(x).sum().backward()
    holders = {"tied": q.table.weight, "parameter": q.free, "conv1d": q.line.weight, "conv2d": q.conv.weight}
    if how in holders:
        assert bool(holders[how].grad.any())


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_a_function_on_a_float_input_is_a_layer_where_its_weight_is_trained(kind, trained, tmp_path):
    shape, size = {
        "linear": ((5, 6), (2, 6)),
        "conv1d": ((5, 3, 3), (2, 3, 9)),
        "conv2d": ((5, 3, 3, 3), (2, 3, 6, 6)),
    }[kind]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            weight = torch.randn(shape)
            if trained:
                self.filter = nn.Parameter(weight)
            else:
                self.register_buffer("filter", weight)
            self.behind = nn.Linear(5, 2)

        def forward(self, x):
            y = getattr(F, kind)(x, self.filter)
            return self.behind(y if y.dim() == 2 else y.flatten(2).mean(2))

    torch.manual_seed(0)
    x = torch.randn(size)
    q = initialised(Net(), x, tmp_path, example_inputs=x)
    floats = [i.split(":")[1].split()[0] for i in linger.summary(q).islands]
    assert (kind in floats) == (not trained)
    q.train()(x).sum().backward()
    assert not trained or q.filter.grad.abs().sum() > 0
    one = x[:1]
    want = q.eval()(one).detach()
    linger.onnx.export(q, one, tmp_path / "m.onnx")
    file = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(one.numpy()).values()))
    assert torch.equal(torch.from_numpy(file), want)
