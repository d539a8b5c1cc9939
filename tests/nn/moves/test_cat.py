"""Concatenation and stacking in every spelling, on every chip, from module to file."""

import pytest
import torch
from torch import nn

import linger
from linger.runtime import SPELLINGS, resolve
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Cats(nn.Module):
    """Branches of very different ranges, two and three inputs, one of them a float tensor."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(6, 5, 1)
        with torch.no_grad():
            self.a.weight *= gain
            self.a.bias *= gain
            self.b.weight /= gain
            self.b.bias /= gain

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = self.c(torch.cat([a, b], 1))
        y = torch.cat((y, a, x), dim=-3)
        return torch.concat([y[:, :, :2], torch.concatenate([y, y], axis=3)[:, :, 2:, :5]], 2)


RELATIVES = ("hstack", "vstack", "dstack", "column_stack")


def batches(*shapes, n=3):
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randn(1, *s, generator=generator) for s in shapes) for _ in range(n)]


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("gain", [1.0, 1 / 16, 2048.0])
def test_cat(gain, platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Cats(gain), batches((3, 4, 5)), tmp_path, platform, method)
    assert nodes.count("iqCat") == 4
    if gain == 2048.0 and method == "MOM":  # far apart
        assert ("Requant" in nodes) == (platform == "venusA")  # whose iqCat narrows nothing


def test_venusa_keeps_the_range_of_the_largest_operand(tmp_path):
    torch.manual_seed(1)
    outputs = []
    for platform in ("venus", "venusA"):
        torch.manual_seed(1)
        model = Cats(16.0)
        assert_same_everywhere(model, batches((3, 4, 5)), tmp_path, platform)
        outputs.append(model(*batches((3, 4, 5))[0]))
    assert torch.equal(*outputs)


class Stacks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x):
        return torch.stack([self.a(x), self.b(x), self.b(x)], dim=-1)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_stack(platform, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Stacks(), batches((4,)), tmp_path, platform)
    assert nodes.count("Unsqueeze") == 3


class Stacked(nn.Module):
    def __init__(self, func, shape):
        super().__init__()
        self.a, self.b, self.func, self.shape = nn.Linear(4, 6), nn.Linear(4, 6), func, shape

    def forward(self, x):
        return self.func([self.a(x).view(self.shape), self.b(x).view(self.shape)])


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 3, 2), (1, 3, 1, 2)], ids=len)
@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_stack(name, shape, tmp_path):
    if (name, len(shape)) == ("hstack", 1):
        shape = (2, 3)  # the chips join tensors of two axes and more
    torch.manual_seed(1)
    model = Stacked(getattr(torch, name), shape)
    nodes = assert_same_everywhere(model, batches((4,)), tmp_path, "venusA")
    assert nodes.count("iqCat") == 1


@pytest.mark.parametrize("spelling", [s for name in RELATIVES for s in SPELLINGS[name]])
def test_relatives_of_stack_in_float(spelling, tmp_path):
    """Inside an island, tensors of several ranks."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            y = torch.exp(self.a(x))
            low = y if spelling == "torch.hstack" else y.flatten()
            return func([low, y.T if "column" in spelling else y])

    func, x = resolve(spelling), torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = linger.init(Net())
    model(x)
    y = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values()
    assert got.shape == tuple(y.shape) and (torch.from_numpy(got) == y).all()


@pytest.mark.parametrize(
    "spelling", [*SPELLINGS["cat"], *(s for name in ("stack", *RELATIVES) for s in SPELLINGS[name])]
)
def test_spellings(spelling):
    func = resolve(spelling)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return func((self.a(x), x), 1) if "stack" not in spelling else func([self.a(x), self.a(x)])

    torch.manual_seed(0)
    model = linger.init(Net())
    y = model(torch.randn(2, 4))
    assert linger.runtime.is_quantized(y)
    assert any(name.endswith("qcat_0") for name, _ in model.named_modules())


def test_more_inputs_than_before_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, *xs):
            return torch.cat([self.a(x) for x in xs], 1)

    model = linger.init(Net())
    x = torch.randn(2, 4)
    model(x, x)
    with pytest.raises(linger.errors.UnsupportedError, match=r"created for 2 tensor\(s\) and now got 3"):
        model(x, x, x)


@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus"])
@pytest.mark.parametrize("dim", [0, 1, 2, 4, -2])
def test_cat_of_more_axes_than_a_chip_has(dim, platform, tmp_path):
    torch.manual_seed(1)
    model = Stacked(lambda xs: torch.cat([*xs, xs[0] + xs[1]], dim), (-1, 2, 1, 3, 1))
    nodes = assert_same_everywhere(model, batches((4,)), tmp_path, platform)
    assert nodes.count("iqCat") == 1
