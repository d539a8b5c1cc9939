"""Random networks: layers, functions and shape operators in any order that the shapes allow."""

import random

import torch
from torch import nn
from torch.nn import functional as F

from tests.differential.spellings import FUNCTIONS


class Step(nn.Module):
    """A layer or a function, applied to the running tensor."""

    def __init__(self, name, run, layer=None):
        super().__init__()
        self.name, self.run, self.layer = name, run, layer

    def forward(self, x):
        return self.run(self.layer, x) if self.layer is not None else self.run(x)


class Branch(nn.Module):
    """Some steps beside others, joined again: sum, difference, product or concatenation."""

    def __init__(self, left, right, join):
        super().__init__()
        self.left, self.right, self.join = nn.ModuleList(left), nn.ModuleList(right), join

    def forward(self, x):
        y = x
        for step in self.left:
            x = step(x)
        for step in self.right:
            y = step(y)
        return {
            "add": lambda: x + y,
            "sub": lambda: x - y,
            "mul": lambda: x * y,
            "cat": lambda: torch.cat([x, y], 1),
        }[self.join]()


class Network(nn.Module):
    """Steps in order; ``text`` says what they are."""

    def __init__(self, steps, shape):
        super().__init__()
        self.steps, self.shape = nn.ModuleList(steps), shape

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


def _call(layer, x):
    return layer(x)


class Maker:
    """Draws steps that fit a shape (without batch): (C, H, W), (C, L), (T, F) or (F,)."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def layer(self, name, layer):
        return Step(name, _call, layer)

    def step(self, shape):
        """A step for this shape and the shape behind it."""
        kinds = {3: self.image, 2: self.sequence, 1: self.vector}[len(shape)]
        return kinds(shape)

    def same(self, shape):
        """A step that keeps the shape."""
        rng, kind = (
            self.rng,
            self.rng.choice(["relu", "relu6", "inplace", "sigmoid", "tanh", "number", "factor", "norm", "dropout"]),
        )
        if kind == "inplace":
            return self.layer(kind, rng.choice([nn.ReLU(True), nn.ReLU6(True), nn.LeakyReLU(0.1, True)]))
        if kind == "norm":
            axes = rng.choice(range(1, len(shape) + 1))
            return self.layer(kind, nn.LayerNorm(shape[-axes:], elementwise_affine=rng.random() < 0.7))
        if kind == "dropout":
            return self.layer(kind, nn.Dropout(0.0))
        value = rng.choice([0.5, -1.3, 2, 0.07])
        run = {
            "relu": torch.relu,
            "relu6": F.relu6,
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            "clamp": lambda x: x.clamp(-0.7, 1.1),
            "hard": F.hardswish,
            "silu": F.silu,
            "gelu": F.gelu,
            "number": lambda x: x + value,
            "factor": lambda x: value * x,
        }[kind]
        return Step(kind, run)

    def image(self, shape):
        c, h, w = shape
        rng = self.rng
        kind = rng.choice(
            ["conv", "conv", "depthwise", "bn", "same", "avg", "max", "up", "flat", "mean", "slice", "turn", "gate"]
        )
        if kind == "stride" and min(h, w) >= 4:
            k, o = rng.choice([1, 2, 3, 4]), rng.randint(1, 5)
            return self.layer(kind, nn.Conv2d(c, o, k, 2, k // 2)), (
                o,
                *((n + 2 * (k // 2) - k) // 2 + 1 for n in (h, w)),
            )
        if (
            kind in ("conv", "stride")
            or kind in ("avg", "max", "slice")
            and min(h, w) < 4
            or kind == "gate"
            and c > h * w
        ):
            o, k = rng.randint(1, 6), rng.choice([1, 3, (3, 1), 5])
            mode = rng.choice(["zeros", "zeros", "reflect", "replicate"]) if min(h, w) > 4 else "zeros"
            layer = nn.Conv2d(c, o, k, padding="same", bias=rng.random() < 0.7, padding_mode=mode)
            return self.layer("conv", layer), (o, h, w)
        if kind == "pad":
            return Step(kind, lambda x: F.pad(x, (1, 0, 2, 1))), (c, h + 3, w + 1)
        if kind == "shuffle" and c % 2 == 0:
            return self.layer(kind, nn.ChannelShuffle(2)), shape
        if kind == "depthwise":
            return self.layer(kind, nn.Conv2d(c, c, 3, 1, 1, groups=c)), shape
        if kind == "bn":
            return self.layer(kind, nn.BatchNorm2d(c, affine=rng.random() < 0.7)), shape
        if kind == "same":
            return self.same(shape), shape
        if kind in ("avg", "max"):
            pool = nn.AvgPool2d(2) if kind == "avg" else nn.MaxPool2d(3, 2, 1)
            out = (h // 2, w // 2) if kind == "avg" else ((h - 1) // 2 + 1, (w - 1) // 2 + 1)
            return self.layer(kind, pool), (c, *out)
        if kind == "up":
            o = rng.randint(1, 4)
            if h * w > 100:
                return self.same(shape), shape
            return self.layer(kind, nn.ConvTranspose2d(c, o, 2, 2)), (o, 2 * h, 2 * w)
        if kind == "flat":
            return Step(kind, lambda x: x.flatten(2)), (c, h * w)
        if kind == "mean":
            return Step(kind, lambda x: x.mean((2, 3))), (c,)
        if kind == "slice":
            return Step(kind, lambda x: x[:, :, 1:-1, 1:]), (c, h - 2, w - 1)
        if kind == "gate":
            return Step(kind, lambda x: x * F.adaptive_avg_pool2d(x, 1)), shape
        return Step(kind, lambda x: x.transpose(2, 3)), (c, w, h)

    def sequence(self, shape):
        c, length = shape
        rng = self.rng
        kind = rng.choice(
            ["conv", "same", "linear", "turn", "flat", "pool", "softmax", "bn", "attend", "mean", "dilated"]
        )
        if kind in ("conv", "dilated") or kind == "pool" and length < 4:
            o, d = rng.randint(1, 6), 2 if kind == "dilated" else 1
            return self.layer(kind, nn.Conv1d(c, o, 3, padding=d, dilation=d)), (o, length)
        if kind == "linear":
            o = rng.randint(1, 8)
            return self.layer(kind, nn.Linear(length, o)), (c, o)
        if kind == "turn":
            return Step(kind, lambda x: x.permute(0, 2, 1)), (length, c)
        if kind == "flat":
            return Step(kind, lambda x: x.reshape(x.shape[0], -1)), (c * length,)
        if kind == "pool":
            return Step(kind, lambda x: F.max_pool1d(x, 2)), (c, length // 2)
        if kind == "softmax":
            return Step(kind, lambda x: x.softmax(-1)), shape
        if kind == "bn":
            return self.layer(kind, nn.BatchNorm1d(c)), shape
        if kind == "heads" and length % 2 == 0:
            return Step(
                kind, lambda layer, x: layer(x, x, x)[0], nn.MultiheadAttention(length, 2, batch_first=True)
            ), shape
        if kind == "encoder" and length % 2 == 0:
            layer = nn.TransformerEncoderLayer(length, 2, 8, 0.0, batch_first=True, norm_first=rng.random() < 0.5)
            return self.layer(kind, layer), shape
        if kind in ("lstm", "gru"):
            o = rng.randint(1, 5)
            layer = (nn.LSTM if kind == "lstm" else nn.GRU)(length, o, batch_first=True)
            return Step(kind, lambda layer, x: layer(x)[0], layer), (c, o)
        if kind == "glu" and length % 2 == 0:
            return Step(kind, lambda x: F.glu(x, -1)), (c, length // 2)
        if kind == "attend":
            return Step(kind, lambda x: F.scaled_dot_product_attention(x, x, x)), shape
        if kind == "mean":
            return Step(kind, lambda x: x.mean(-1)), (c,)
        return self.same(shape), shape

    def vector(self, shape):
        (n,) = shape
        rng = self.rng
        kind = rng.choice(["linear", "linear", "same", "bn", "chunk"])
        if kind == "bn":
            return self.layer(kind, nn.BatchNorm1d(n)), shape
        if kind == "chunk" and n > 1 and n % 2 == 0:
            return Step(kind, lambda x: sum(x.chunk(2, 1))), (n // 2,)
        if kind == "same":
            return self.same(shape), shape
        o = rng.randint(1, 9)
        return self.layer("linear", nn.Linear(n, o)), (o,)

    def branch(self, shape):
        """Two ways that end in one shape."""
        rng = self.rng
        left, right = ([self.same(shape) for _ in range(rng.randint(0, 2))] for _ in range(2))
        join = rng.choice(["add", "sub", "mul", "cat"])
        out = (2 * shape[0], *shape[1:]) if join == "cat" else shape
        return Branch(left, right, join), out

    def network(self):
        """A network that begins with a layer."""
        rng = self.rng
        shape = rng.choice([(2, 7, 8), (3, 6, 6), (4, 10), (9,)])
        first = {
            3: lambda: self.layer("conv", nn.Conv2d(shape[0], 4, 3, padding=1)),
            2: lambda: self.layer("conv", nn.Conv1d(shape[0], 4, 3, padding=1)),
            1: lambda: self.layer("linear", nn.Linear(shape[0], 8)),
        }[len(shape)]()
        steps, now = [first], (8,) if len(shape) == 1 else (4, *shape[1:])
        for _ in range(rng.randint(2, 7)):
            step, now = self.branch(now) if rng.random() < 0.25 else self.step(now)
            steps.append(step)
        return Network(steps, shape)

    def mixed(self):
        """As :meth:`network`, with functions in between; the shapes are found by running it."""
        rng = self.rng
        net = self.network()
        steps = [net.steps[0]]
        x = steps[0](torch.randn(2, *net.shape))
        for _ in range(rng.randint(1, 5)):
            if rng.random() < 0.6 or x.dim() > 4:
                name = rng.choice(list(FUNCTIONS))
                step = Step(name, FUNCTIONS[name])
            else:
                step, _ = self.branch(tuple(x.shape[1:])) if rng.random() < 0.25 else self.step(tuple(x.shape[1:]))
            try:
                y = step(x)
            except (RuntimeError, ValueError, IndexError):  # does not fit this shape
                continue
            if y.dim() > 1 and 0 < y.numel() < 4000:
                steps.append(step)
                x = y.detach()
        return Network(steps, net.shape)


def describe(net):
    """Names of the steps."""
    return " ".join(f"{s.join}({len(s.left)},{len(s.right)})" if isinstance(s, Branch) else s.name for s in net.steps)
