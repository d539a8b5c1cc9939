"""Functions as users write them, on tensors (N, C, ...) of any rank; what a chip lacks runs in float and is reported."""

import torch
from torch.nn import functional as F


def _images(run):
    """On images of some size; others pass."""
    return lambda x: run(x) if x.dim() == 4 and min(x.shape[2:]) > 2 else x


def _long(run):
    """On sequences of some length; others pass."""
    return lambda x: run(x) if x.dim() == 3 and x.shape[-1] > 2 else x


FUNCTIONS = {
    "stack": lambda x: torch.stack([x, x * 0.5], 1).flatten(1, 2),
    "split": lambda x: torch.cat(torch.split(x, 2, 1)[::-1], 1),
    "unbind": lambda x: x.unbind(1)[0],
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "sum": lambda x: x.sum(-1),
    "expand": lambda x: x.sum(1, keepdim=True).expand_as(x) + x,
    "mean": lambda x: x.mean(-1),
    "mean over channels": lambda x: x.mean(1),
    "amax": lambda x: x.amax(-1),
    "max": lambda x: x.max(-1)[0],
    "neg": lambda x: -x,
    "abs": lambda x: x.abs(),
    "rsub": lambda x: 1 - x,
    "div": lambda x: x / 3,
    "square": lambda x: x**2,
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: torch.roll(x, 1, -1),
    "repeat": lambda x: x.repeat(1, *([1] * (x.dim() - 2)), 2),
    "sum of broadcast": lambda x: x + x[:, :1],
    "product of broadcast": lambda x: x * x[..., :1],
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "clamp": lambda x: x.clamp(min=0.1),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "softplus": F.softplus,
    "hard": F.hardsigmoid,
    "rms": lambda x: x / (x.square().mean(-1, keepdim=True) + 1).sqrt(),
    "index": lambda x: x[:, [0, -1]],
    "narrow": lambda x: x.narrow(-1, 0, max(1, x.shape[-1] - 1)),
    "outer product": lambda x: x.flatten(1).unsqueeze(2) @ x.flatten(1).unsqueeze(1) if x[0].numel() < 30 else x,
    "interpolate": lambda x: F.interpolate(x, scale_factor=2) if x.dim() in (3, 4) and x[0].numel() < 100 else x,
    "ceil": _images(lambda x: F.avg_pool2d(x, 2, ceil_mode=True)),
    "uncounted": _images(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "pool 1d": _long(lambda x: F.avg_pool1d(x, 3, 1, 1)),
    "adaptive": _images(lambda x: F.adaptive_avg_pool2d(x, (2, 1))),
    "max ceil": _images(lambda x: F.max_pool2d(x, 2, ceil_mode=True)),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2) if x.dim() == 4 and x.shape[1] % 4 == 0 else x,
    "add_": lambda x: x.clone().add_(x),
    "log softmax": lambda x: F.log_softmax(x, -1),
    "softmax": lambda x: torch.softmax(x, 1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "reflect": _long(lambda x: F.pad(x, (1, 1), mode="reflect")),
    "crop": lambda x: F.pad(x, (-1, 0)) if x.shape[-1] > 1 else x,
    "pad": lambda x: F.pad(x, (1, 0), value=0.5),
    "cumsum": lambda x: x.cumsum(-1),
    "interleave": lambda x: x.unsqueeze(-1).expand(*x.shape, 2).flatten(-2),
    "swap": lambda x: x.swapaxes(1, -1) if x.dim() > 2 else x,
    "gated": lambda x: torch.tanh(x) * torch.sigmoid(x),
    "cat": lambda x: torch.cat([x, x * 2, x - 1], -1),
    "add constant": lambda x: x + torch.arange(x.shape[-1]) * 0.1,
    "mul constant": lambda x: x * torch.linspace(-1, 1, x.shape[-1]),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "add scalar tensor": lambda x: x + torch.tensor(0.25),
}
