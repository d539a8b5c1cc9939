"""Torch's layer functions in user code: on a layer's own parameters they are the layer, on others an operator of this call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger.quantizers import in_float
from linger.runtime import Leaf, factory, handles, info, operator_at_site, own_arithmetic, state
from linger.runtime.layer_calls import bound

from .conv import Conv1dInt, Conv2dInt
from .linear import LinearInt

if TYPE_CHECKING:
    from linger.settings import LayerSettings


class _Call:
    """Shared: a layer whose parameters the caller holds; it has quantizers alone."""

    def __init__(self, n_inputs: int, quant: LayerSettings) -> None:
        layer = cast(Any, self)
        nn.Module.__init__(layer)
        layer.set_quantizers(quant)

    def name_quantizers(self) -> None:
        """The operator's owner names them."""

    def node_facts(self, platform: str) -> None:
        """Nothing is known before the first call."""

    def extra_repr(self) -> str:
        """Formats as operators of user code print them."""
        quant = cast(Any, self).quant
        return f"data_bits:{quant.input_bits}, o_bits:{quant.output_bits}, weight_bits:{quant.weight_bits}"


class LinearCall(_Call, LinearInt):  # type: ignore[misc]
    """``F.linear`` at one call site with parameters that the caller holds; as :class:`LinearInt` otherwise."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        """Chip integers in forward, float gradients in backward."""
        self.out_features, self.in_features = weight.shape
        with torch._C.DisableTorchFunction():
            return self._product(x, weight, bias)


class _ConvCall(_Call):
    """Shared by the convolutions."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, form: dict[str, Any]) -> Tensor:
        """Chip integers in forward, float gradients in backward; ``form``: stride, padding, dilation, groups."""
        layer = cast(Any, self)
        layer.__dict__.update(form, padding_mode="zeros", transposed=False)
        layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * form["groups"]
        layer.kernel_size = tuple(weight.shape[2:])
        layer.__dict__["_given"] = (weight, bias)
        try:
            with torch._C.DisableTorchFunction():
                y: Tensor = layer._calibrate(x) if in_float() else layer._integers(x)
                return y
        finally:
            del layer.__dict__["_given"]

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        given: tuple[Tensor, Tensor | None] = self.__dict__["_given"]
        return given

    def _clamp_once(self) -> None:
        """The parameters are the caller's."""


class Conv1dCall(_ConvCall, Conv1dInt):  # type: ignore[misc]
    """``F.conv1d`` at one call site with parameters that the caller holds; as :class:`Conv1dInt` otherwise."""


class Conv2dCall(_ConvCall, Conv2dInt):  # type: ignore[misc]
    """``F.conv2d`` at one call site with parameters that the caller holds; as :class:`Conv2dInt` otherwise."""


@factory("linear")
def _make_linear(n_inputs: int, quant: Any) -> nn.Module:
    return LinearCall(n_inputs, quant)


@factory("convone")
def _make_conv1d(n_inputs: int, quant: Any) -> nn.Module:
    return Conv1dCall(n_inputs, quant)


@factory("convtwo")
def _make_conv2d(n_inputs: int, quant: Any) -> nn.Module:
    return Conv2dCall(n_inputs, quant)


def _own(owner: nn.Module, func: Callable[..., Any], named: dict[str, Any]) -> bool:
    """Whether this is the call that the running module was converted for."""
    return hasattr(type(owner), "_linger_layer") and own_arithmetic(owner, func, named)


def _run(owner: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = cast(Any, type(owner))._linger_layer.forward(owner, x)
    return y


def _of_float_layer(weight: Tensor, owner: nn.Module) -> bool:
    """Whether a weight belongs to a layer of torch that stays in float: the call is the layer's own, or shares its fate."""
    holders = (m for m in owner.modules() if m._parameters.get("weight") is weight)
    return any(isinstance(m, _FLOAT_LAYERS) and not isinstance(m, Leaf) for m in holders)


_FLOAT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def _is_layer(x: object, weight: object, owner: nn.Module) -> bool:
    """Whether a call is a layer of its own: on a Parameter or a view of one; on integers also on a buffer of the running module.

    A weight that the forward computes makes no layer, nor do a filter and a float input: that prepares the data.
    """
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or info(weight) is not None:
        return False
    if not (x.is_floating_point() and weight.is_floating_point()) or _of_float_layer(weight, owner):
        return False
    fmt = info(x)
    if fmt is not None and fmt.bits > 8:
        return False
    trained = isinstance(weight, nn.Parameter) or isinstance(weight._base, nn.Parameter)
    return trained or fmt is not None and any(weight is b for b in owner.buffers())


@handles("linear_call", "F.linear")
def _linear(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    owner, named = state.frames[-1].owner, bound(func, args, kwargs)
    if _own(owner, func, named):
        return _run(owner, named["input"])
    x, weight = named["input"], named["weight"]
    if not _is_layer(x, weight, owner) or weight.dim() != 2:
        return NotImplemented
    return operator_at_site("linear", 1)(x, weight, named.get("bias"))


@handles("conv_call", "F.conv1d F.conv2d")
def _conv(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    owner, named = state.frames[-1].owner, bound(func, args, kwargs)
    if _own(owner, func, named):
        return _run(owner, named["input"])
    x, weight = named["input"], named["weight"]
    n = 1 if func is F.conv1d else 2
    if not _is_layer(x, weight, owner) or x.dim() != n + 2:
        return NotImplemented

    def each(value: Any) -> Any:
        return (int(value),) * n if isinstance(value, int) else value if isinstance(value, str) else tuple(value)

    form = {k: each(named.get(k, d)) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1))}
    form["groups"] = named.get("groups", 1)
    return operator_at_site("convone" if n == 1 else "convtwo", 1)(x, weight, named.get("bias"), form)


@handles("own_layer", "F.batch_norm F.conv_transpose1d F.conv_transpose2d")
def _layer(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    owner, named = state.frames[-1].owner, bound(func, args, kwargs)
    return _run(owner, named["input"]) if _own(owner, func, named) else NotImplemented


__all__ = ["Conv1dCall", "Conv2dCall", "LinearCall"]
