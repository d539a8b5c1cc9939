"""Operators of user code as modules, as both older generations have them: ``self.add = iqAddLayer()``, ``self.add(x, y)``.

Each runs the torch function that user code would call. ``isinstance`` is also true for the state that a converted model keeps
for a call of that operator, however it is spelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linger.nn.constructor import OWN_SETTINGS
from linger.runtime import FACTORIES, Composite
from linger.settings import QuantMode, defaults

from .tensors import quant_tensor


@cache
def _state(operator: str) -> type[nn.Module]:
    """The class of the modules that keep the state of an operator's calls."""
    return type(FACTORIES[operator](1, defaults().layer("")))


class _ByOperator(type):
    """``isinstance`` is true for the modules of that operator's calls, too."""

    kind: str = ""  # name of the operator; empty for one without state

    def __instancecheck__(cls, value: Any) -> bool:
        return super().__instancecheck__(value) or bool(cls.kind) and isinstance(value, _state(cls.kind))


def _wish(m: nn.Module, data_bits: int | None, mode: QuantMode | None, o_bits: int | None) -> None:
    """Note the widths and the rounding that were asked for: ``linger.init`` gives them to the call inside the module."""
    given = {
        "quant_info.input_bits": data_bits,
        "quant_info.output_bits": o_bits,
        "quant_info.round_mode": None if mode is None else QuantMode(mode).name,
    }
    m.__dict__[OWN_SETTINGS] = {key: value for key, value in given.items() if value is not None}


class _Operator(Composite, metaclass=_ByOperator):
    """What the modules share.

    Args:
        data_bits, o_bits: Widths of operands and result; None: those of the configuration.
        mode: Rounding of the result; None: that of the configuration.
        clamp_data: Taken and not needed: what exceeds the width saturates.
    """

    def __init__(
        self,
        data_bits: int | None = None,
        mode: QuantMode | None = None,
        o_bits: int | None = None,
        clamp_data: float | None = None,
    ) -> None:
        super().__init__()
        _wish(self, data_bits, mode, o_bits)


class iqAddLayer(_Operator):
    """``x + y``."""

    kind = "add"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Any shapes that broadcast."""
        return x + y


class iqMulLayer(_Operator):
    """``x * y``."""

    kind = "mul"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Any shapes that broadcast."""
        return x * y


class iqDivLayer(_Operator):
    """``x / y``."""

    kind = "div"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Any shapes that broadcast."""
        return x / y


class iqSumLayer(_Operator):
    """``x.sum(...)``."""

    kind = "sum"

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As ``torch.sum``."""
        return x.sum(*args, **kwargs)


class iqCatLayer(_Operator):
    """``torch.cat(tensors, dim)``."""

    kind = "cat"

    def forward(self, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
        """As ``torch.cat``."""
        return torch.cat(list(tensors), dim)


class iqClampLayer(_Operator):
    """``x.clamp(min, max)``; it keeps the format of ``x`` and has no state."""

    def forward(self, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:  # noqa: A002
        """As ``torch.clamp``."""
        return x.clamp(min, max)


class iqSigmoidLayer(_Operator):
    """``torch.sigmoid(x)``."""

    kind = "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.sigmoid(x)


class iqTanhLayer(_Operator):
    """``torch.tanh(x)``."""

    kind = "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.tanh(x)


class iqVarLayer(_Operator):
    """``x.var(...)``: no chip computes a variance, it stays in float and is reported."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As ``torch.var``."""
        return x.var(*args, **kwargs)


class softmaxIntLayer(_Operator):
    """``softmax(x, dim)``."""

    kind = "softmax"

    def forward(self, x: Tensor, dim: int = -1) -> Tensor:
        """As ``torch.softmax``."""
        return torch.softmax(x, dim)


class logsoftmaxIntLayer(_Operator):
    """``log_softmax(x, dim)``."""

    kind = "logsoftmax"

    def forward(self, x: Tensor, dim: int = -1) -> Tensor:
        """As ``torch.log_softmax``."""
        return torch.log_softmax(x, dim)


class BmmInt(_Operator):
    """``torch.bmm(x, y)``."""

    kind = "bmm"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``(B, N, K)`` and ``(B, K, M)`` -> ``(B, N, M)``."""
        return torch.bmm(x, y)


class QGelu(_Operator):
    """``F.gelu(x)``."""

    kind = "gelu"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.gelu(x)


class QSwish(_Operator):
    """``F.silu(x)``."""

    kind = "swish"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.silu(x)


class QGLU(_Operator):
    """``F.glu(x, dim)``."""

    kind = "glu"

    def forward(self, x: Tensor, dim: int = -1) -> Tensor:
        """As ``F.glu``."""
        return F.glu(x, dim)


class ScaledRoundLayer(Composite):
    """Quantizes a float tensor inside a ``forward`` (:func:`linger.quant_tensor`).

    Args:
        bits: 8, 16 or 32.
        mode: ``QuantMode.QValue``, the only one.
        zero_point: 0, the only one.
    """

    def __init__(self, bits: int = 8, mode: QuantMode | None = None, zero_point: int = 0) -> None:
        super().__init__()
        self.bits, self.zero_point = bits, zero_point

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; a float model gets the tensor back as it is."""
        return quant_tensor(self, x, bits=self.bits, zero_point=self.zero_point)


class AvgPool2dInt(Composite, nn.AvgPool2d, metaclass=_ByOperator):
    """``nn.AvgPool2d`` with widths of its own.

    Args:
        *args: As ``torch.nn.AvgPool2d``.
        data_bits, mode, o_bits: Widths and rounding; None: those of the configuration.
        **kwargs: As ``torch.nn.AvgPool2d``.
    """

    kind = "avg_pool"

    def __init__(
        self,
        *args: Any,
        data_bits: int | None = None,
        mode: QuantMode | None = None,
        o_bits: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _wish(self, data_bits, mode, o_bits)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """``(N, C, H, W)`` -> as ``torch.nn.AvgPool2d``."""
        return super().forward(input)


class _AsReLU6(type):
    """``isinstance`` is true for torch's own layer, which a converted model keeps."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, nn.ReLU6)


class ReLU6Int(nn.ReLU6, metaclass=_AsReLU6):
    """``nn.ReLU6``: the limit keeps the format of its input, widths mean nothing here.

    Args:
        inplace: As in torch.
        data_bits, mode: Taken and not needed.
    """

    def __init__(self, inplace: bool = False, data_bits: int = 8, mode: QuantMode | None = None) -> None:
        super().__init__(inplace)
