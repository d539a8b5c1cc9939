"""Networks of the FAQ's tests, and what the tests do with them."""

import onnx
import torch
from torch import nn

import linger

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Conv, BatchNorm, ReLU twice, an addition, a Linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AvgPool2d(4), nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x))) + x
        return self.fc(self.pool(x).flatten(1))


class Cat(nn.Module):
    """Two branches and a concatenation."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(12, 3)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), torch.sigmoid(self.b(x))], 1))


def float_net(kind=Net, x=X, steps=3) -> nn.Module:
    """A float network whose BatchNorms have seen data."""
    torch.manual_seed(0)
    net = kind()
    for _ in range(steps):
        net(x)
    return net.eval()


def loss_of(model, x=X) -> torch.Tensor:
    """Cross entropy against classes that the position in the batch gives."""
    y = model(x)
    return nn.functional.cross_entropy(y, torch.arange(len(y)) % y.shape[1])


def train(model, x=X, steps=3, lr=0.01, optimizer=None) -> list[float]:
    """A few steps of ordinary training: tell the first inputs from the others by class; returns the losses."""
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr)
    model.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, x)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def ready(model, x=X, **how) -> nn.Module:
    """An initialised and calibrated model in eval mode."""
    model = linger.init(model, **how)
    with linger.calibration(model):
        model(x)
    return model.eval()


def graph_of(model, args, path, **how) -> onnx.GraphProto:
    """The graph of the exported file, which computes what the model computes."""
    linger.onnx.export(model, args, path, **how)
    inputs = args if isinstance(args, tuple) else (args,)
    names = linger.onnx.OnnxRunner(path).inputs
    given = [t for t in inputs if isinstance(t, torch.Tensor)][: len(names)]
    (got,) = linger.onnx.OnnxRunner(path).run(given).values()
    assert torch.equal(torch.from_numpy(got), model(*inputs).detach())
    return onnx.load(path).graph


def operators(graph) -> list[str]:
    return [node.op_type for node in graph.node]


def attributes(node) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def sqnr(want: torch.Tensor, got: torch.Tensor) -> float:
    """Signal to quantization noise in dB."""
    want, got = want.detach(), got.detach()
    noise = (got.double() - want.double()).square().sum()
    return float(10 * torch.log10(want.double().square().sum() / noise.clamp(min=1e-30)))


def layer_outputs(model, x) -> dict[str, torch.Tensor]:
    """What every layer hands on in one forward."""
    found, handles = {}, []
    for name, m in model.named_modules():
        if isinstance(m, (linger.LinearInt, linger.Conv2dInt)):

            def keep(module, args, y, name=name):
                with torch._C.DisableTorchFunction():
                    found[name] = y.detach().clone()

            handles.append(m.register_forward_hook(keep))
    model(x)
    for handle in handles:
        handle.remove()
    return found
