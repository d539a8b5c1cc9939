"""What can stand for an operator that a chip or its engine does not compute: the remedy that ``check`` names."""

from __future__ import annotations

_NEAREST = {
    "sigmoid": "nn.Hardsigmoid",
    "tanh": "nn.Hardtanh",
    "softsign": "nn.Hardtanh",
    "silu": "nn.Hardswish",
    "mish": "nn.Hardswish",
    "gelu": "nn.Hardswish or nn.ReLU",
    "elu": "nn.LeakyReLU",
    "selu": "nn.LeakyReLU",
    "celu": "nn.LeakyReLU",
    "softplus": "nn.ReLU",
    "softmax": "nn.Hardsigmoid or nn.ReLU on the scores",
    "group_norm": "nn.BatchNorm2d",
    "instance_norm": "nn.BatchNorm2d",
    "sqrt": "a mean of absolute values for a root of squares",
    "rsqrt": "a mean of absolute values for a root of squares",
    "std": "a mean of absolute values",
    "var": "a mean of absolute values",
    "gru": "nn.LSTM",
}


def nearest(operator: str, otherwise: str) -> str:
    """What every chip computes in place of a torch function, and what else helps.

    Args:
        operator: Name of the function, as in ``torch.nn.functional``.
        otherwise: What helps where nothing is near, or the model may not change.
    """
    stand_in = _NEAREST.get(operator)
    return otherwise if stand_in is None else f"{stand_in}, which every chip computes; or {otherwise}"


__all__ = ["nearest"]
