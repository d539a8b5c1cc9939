"""Whether an operator runs in integers does not depend on the size of the batch: one sample gives the same alone."""

import pytest
import torch
from torch import nn

import linger


class Products(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.k, self.q = nn.Linear(8, 8), nn.Linear(8, 8)
        self.tokens, self.matrix = nn.Parameter(torch.randn(1, 3, 8)), nn.Parameter(torch.randn(3, 8))
        self.heads, self.gate = nn.Parameter(torch.randn(1, 2, 4, 5)), nn.Parameter(torch.rand(1, 5, 1))
        self.stack, self.row = nn.Parameter(torch.randn(1, 8, 4)), nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x):
        k = self.k(x)  # (N, 5, 8)
        split = k.reshape(x.shape[0], 5, 2, 4).transpose(1, 2)  # (N, 2, 5, 4)
        shared = self.q(self.tokens)  # (1, 3, 8), quantized
        match self.how:
            case "left":
                return self.tokens @ k.transpose(1, 2)
            case "left, quantized":
                return shared @ k.transpose(1, 2)
            case "right":
                return torch.matmul(k, self.stack)
            case "right, quantized":
                return torch.matmul(k, shared.transpose(1, 2))
            case "matrix on the left":
                return self.matrix @ k.mT
            case "heads":
                return split @ self.heads
            case "heads on the left":
                return self.heads @ split
            case "one head for all":
                return split[:, :1] @ self.heads
            case "reflected":
                return k.transpose(1, 2).__rmatmul__(self.tokens)
            case "added":
                return k + self.row
            case "gated":
                return k * self.gate
            case "pooled gate":
                return k * torch.sigmoid(k.mean(2, keepdim=True))
            case "outer":
                return k.unsqueeze(1) - k.unsqueeze(2)
            case "quantized row":
                return k * shared[:, :1]
            case "joined":
                return torch.cat([shared.expand(x.shape[0], -1, -1), k], 1)


HOWS = ["left", "left, quantized", "right", "right, quantized", "matrix on the left", "heads", "heads on the left"]
HOWS += ["one head for all", "reflected", "added", "gated", "pooled gate", "outer", "quantized row", "joined"]


@pytest.mark.parametrize("how", HOWS)
def test_one_sample_gives_the_same_alone(how, tmp_path):
    torch.manual_seed(0)
    q, x = linger.init(Products(how)), torch.randn(6, 5, 8)
    q(x).mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in q.parameters())
    every = q.eval()(x)
    for i in (0, 3):
        assert torch.equal(every[i : i + 1], q(x[i : i + 1]))
    assert linger.runtime.info(every) is not None and not linger.summary(q).islands
    linger.onnx.export(q, x[:1], tmp_path / "m.onnx")
    file = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1].numpy()).values()))
    assert torch.equal(torch.from_numpy(file), q(x[:1]).detach())


class Repeated(Products):
    """The same products with what is shared repeated by hand."""

    def forward(self, x):
        k, n = self.k(x), x.shape[0]
        if self.how == "left":
            return self.tokens.expand(n, -1, -1) @ k.transpose(1, 2)
        if self.how == "left, quantized":
            return self.q(self.tokens).expand(n, -1, -1) @ k.transpose(1, 2)
        if self.how == "right":
            return torch.matmul(k, self.stack.expand(n, -1, -1))
        if self.how == "matrix on the left":
            return self.matrix.expand(n, -1, -1) @ k.mT
        return k.reshape(n, 5, 2, 4).transpose(1, 2) @ self.heads.expand(n, -1, -1, -1)


@pytest.mark.parametrize("how", ["left", "left, quantized", "right", "matrix on the left", "heads"])
def test_gradients_are_those_of_repeated_operands(how):
    x, found = torch.randn(6, 5, 8), []
    for cls in (Products, Repeated):
        torch.manual_seed(0)
        q = linger.init(cls(how)).train()
        y = q(x)
        y.square().mean().backward()
        found.append([y.detach(), *(p.grad for p in q.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
