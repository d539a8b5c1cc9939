"""Padding in every spelling, mode and axis, on every chip, from module to file."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.runtime import SPELLINGS, info, islands_of, resolve
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Net(nn.Module):
    """A layer, so that the padding meets codes."""

    def __init__(self, change, flat=False):
        super().__init__()
        self.layer, self.change = (nn.Conv1d if flat else nn.Conv2d)(2, 3, 1), change

    def forward(self, x):
        return self.change(self.layer(x))


INF = float("inf")
CASES = {
    "F.pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "ZeroPad2d": nn.ZeroPad2d((0, 3, 1, 1)),
    "one side": lambda x: F.pad(x, [0, 1]),
    "wider than the tensor": lambda x: F.pad(x, (9, 0, 11, 0)),
    "a number": nn.ConstantPad2d(1, 0.37),
    "a large number": lambda x: F.pad(x, (1, 1), "constant", 1e6),
    "minus infinity": lambda x: F.pad(x, (1, 1, 1, 1), value=-INF),
    "channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "cut": lambda x: F.pad(x, (-1, 2, 1, -2)),
    "cut only": lambda x: F.pad(x, (-1, -1)),
    "reflect": lambda x: F.pad(x, (2, 1, 1, 3), mode="reflect"),
    "replicate": nn.ReplicationPad2d(2),
    "circular": nn.CircularPad2d((1, 2, 0, 1)),
    "mode by name": lambda x: torch.nn.functional.pad(pad=(1, 1), input=x, mode="constant", value=-0.5),
    "a sequence": lambda x: F.pad(x.flatten(2), (3, 0)),
    "a matrix": lambda x: F.pad(x.flatten(1), (3, 0), value=0.25),
    "a sequence, reflected": lambda x: nn.ReflectionPad1d((2, 3))(x.flatten(2)),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_padding_is_the_same_everywhere(case, platform, tmp_path):
    torch.manual_seed(0)
    batches = [(torch.randn(1, 2, 5, 6),) for _ in range(2)]
    nodes = assert_same_everywhere(Net(CASES[case]), batches, tmp_path, platform)
    native = case in ("F.pad", "ZeroPad2d", "one side", "wider than the tensor")
    assert ("iqPad" in nodes) == (platform == "venus" and native)


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("a large number", "minus infinity")])
def test_values_are_torchs_on_the_grid_of_the_input(case):
    torch.manual_seed(0)
    model, kept = linger.init(Net(CASES[case])), []
    model.layer.register_forward_hook(lambda m, a, y: kept.append(y))
    y = model(torch.randn(2, 2, 5, 6))
    want, scale = CASES[case](kept[0].detach()), info(kept[0]).scale
    assert ((y - want).abs() * scale).max() <= 0.5
    assert torch.equal(info(y).scale, scale)
    grad = torch.randn(y.shape)
    leaf = kept[0].detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(CASES[case](leaf), leaf, grad)
    (got,) = torch.autograd.grad(y, kept[0], grad)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("spelling", SPELLINGS["padding"])
def test_every_spelling_keeps_the_integers(spelling):
    func = resolve(spelling)
    model = linger.init(Net(lambda x: func(x, (1, 1))))
    assert linger.runtime.is_quantized(model(torch.randn(1, 2, 5, 6)))
    assert islands_of(model) == []


def test_constants_saturate_and_follow_the_grid():
    torch.manual_seed(0)
    for fill, code in ((-INF, -128), (INF, 127), (1e6, 127), (-1e6, -128)):
        y = linger.init(Net(lambda x, fill=fill: F.pad(x, (1, 1), value=fill)))(torch.randn(1, 2, 4, 4))
        assert (y[..., 0] * info(y).scale == code).all()


class Causal(nn.Module):
    """Paddings in front of convolutions, as sequence models write them."""

    def __init__(self):
        super().__init__()
        self.first, self.a = nn.Conv1d(2, 2, 1), nn.Conv1d(2, 4, 5)
        self.b = nn.Conv1d(4, 4, 3, dilation=2, padding=1)
        self.c = nn.Conv2d(4, 4, (3, 3), stride=2, padding=(0, 1))

    def forward(self, x):
        x = self.a(F.pad(self.first(x), (4, 0)))
        x = self.b(F.pad(x, (4, 0)))
        x = F.pad(x.unflatten(2, (4, -1)), (0, 1, 0, 2))
        return self.c(x)


@pytest.mark.parametrize("platform", ["arcs", "mars", "venusA"])
def test_a_padding_with_zeros_becomes_the_convolutions_own(platform, tmp_path):
    import onnx

    torch.manual_seed(0)
    nodes = assert_same_everywhere(Causal(), [(torch.randn(1, 2, 14),)] * 2, tmp_path, platform)
    file = onnx.load(tmp_path / "m.onnx")
    pads = [list(a.ints) for n in file.graph.node for a in n.attribute if a.name == "pads"]
    assert pads[1] in ([4, 0], [0, 4, 0, 0])
    assert pads[2] == [0, 1, 0, 1]  # 4 + 1 is more than its kernel
    assert pads[3] == [0, 1, 2, 2]
    assert nodes.count("iqCat") == 1


def test_a_padded_tensor_with_other_consumers_stays(tmp_path):
    class Net2(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3)

        def forward(self, x):
            x = F.pad(self.a(x), (1, 1, 1, 1))
            return self.b(x) + x[:, :, 1:-1, 1:-1]

    torch.manual_seed(0)
    nodes = assert_same_everywhere(Net2(), [(torch.randn(1, 2, 5, 6),)] * 2, tmp_path, "arcs")
    assert nodes.count("iqCat") == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_padding_that_always_loses_before_a_maximum(platform, tmp_path):
    torch.manual_seed(0)
    change = lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-INF), 2)  # noqa: E731
    model = Net(change)
    with torch.no_grad():
        model.layer.bias -= 5
    assert_same_everywhere(model, [(torch.randn(1, 2, 5, 7),)] * 2, tmp_path, platform)


def test_other_axes_and_batches(tmp_path):
    from linger.onnx import OnnxRunner

    torch.manual_seed(0)
    model = linger.init(Net(lambda x: F.pad(x, (1, 1, 0, 0, 2, 0), value=0.5)))
    model(torch.randn(2, 2, 4, 4))
    axes = {"input": [0], "output": [0]}
    linger.onnx.export(model, torch.randn(1, 2, 4, 4), tmp_path / "m.onnx", dynamic_axes=axes)
    x = torch.randn(3, 2, 4, 4)
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model.eval()(x).detach().numpy())


class First(nn.Module):
    """Moves of the network's input, which is still float."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 2), nn.Conv2d(1, 3, (1, 3), padding=(0, 1))

    def forward(self, x):
        a = self.a(F.pad(x, (1, 1, 1, 1)))
        b = self.b(F.max_pool2d(x, 2, 1, 1, ceil_mode=True).flip(3))
        return a + b[:, :, :5, :6] + self.c(x[:, :1].squeeze(1).unsqueeze(1))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_moves_of_the_input_happen_behind_its_quant(platform, tmp_path):
    import onnx

    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 6)
    x[0, 0, 2, 2] = x[0, 1, 2, 2] = 3.0  # one range for all consumers
    nodes = assert_same_everywhere(First(), [(x,)] * 2, tmp_path, platform)
    assert nodes.count("Quant") == 1
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert all(n.op_type == "Quant" for n in graph.node if graph.input[0].name in n.input)
    assert "Pad" not in nodes
    assert nodes.count("Conv2dInt") == 3


@pytest.mark.parametrize("platform", PLATFORMS)
def test_five_axes(platform, tmp_path):
    torch.manual_seed(0)
    change = lambda x: F.pad(x.unflatten(3, (2, 3)), (1, 0, 0, 1, 2, 0), value=0.5)  # noqa: E731
    nodes = assert_same_everywhere(Net(change), [(torch.randn(1, 2, 5, 6),)] * 2, tmp_path, platform)
    assert nodes.count("iqCat") == 3


class Focus(nn.Module):
    """Pixels to channels by slices of the input, as detectors write them; two inputs beside each other."""

    def __init__(self):
        super().__init__()
        self.conv, self.stacked = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        y = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        z = torch.stack([x[:, 0, ::2, ::2], x[:, 1, ::2, ::2]], dim=1)
        return self.conv(y) + self.stacked(z)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_concatenation_of_inputs_happens_behind_their_quant(platform, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 6)
    x[0, :2, ::2, ::2] = 3.0  # one range for both
    nodes = assert_same_everywhere(Focus(), [(x,)] * 2, tmp_path, platform)
    assert nodes[0] == "Quant"
    assert nodes.count("Quant") == 1
    assert nodes.count("iqCat") == 2
    assert "Concat" not in nodes
