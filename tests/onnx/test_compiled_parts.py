"""Models with compiled parts: what looks at one forward runs it as it is written."""

import pytest
import torch
from torch import nn

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)) + x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.fc = Block(), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.block(x).mean((2, 3)))


def wrapped(model):
    model.block = torch.compile(model.block, backend="eager")
    return model


def in_place(model):
    model.compile(backend="eager")
    return model


def part_in_place(model):
    model.block.compile(backend="eager")
    return model


def layer(model):
    model.fc = torch.compile(model.fc, backend="eager")
    return model


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("given", [False, True], ids=["read", "recorded"])
@pytest.mark.parametrize("compiled", [wrapped, in_place, part_in_place, layer])
def test_compiled_parts_are_converted_checked_and_exported(compiled, given, tmp_path):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    outputs, files, found = [], [], []
    for change in (lambda m: m, compiled):
        torch.manual_seed(0)
        float_model = change(Net())
        found.append(sorted((v.what, v.value) for v in linger.check(float_model, "venusA", x[:1])))
        model = linger.init(float_model, example_inputs=x if given else None)
        assert not any(type(m) is nn.BatchNorm2d for m in model.modules())
        model(x).sum().backward()
        outputs.append(model.eval()(x[:1]))
        path = tmp_path / f"{len(files)}.onnx"
        linger.onnx.export(model, x[:1], path)
        files.append(linger.onnx.OnnxRunner(path).run(x[:1].numpy()))
        assert sorted(r[1] for r in linger.summary(model).rows).count("OptimizedModule") == 0
    assert torch.equal(*outputs) and found[0] == found[1]
    assert all((torch.from_numpy(next(iter(f.values()))) == outputs[0]).all() for f in files)


@pytest.mark.parametrize("compiled", [wrapped, in_place, part_in_place])
def test_compiled_parts_are_constrained_on_example_inputs(compiled):
    x = torch.randn(2, 3, 6, 6)
    model = linger.constrain(compiled(Net()), example_inputs=x)
    assert sum(type(m).__name__ == "NormalizeConvBN2d" for m in model.modules()) == 1
