"""Float layers of the first stage: parameters and outputs are clamped in every forward, in training and in evaluation."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from linger import ops
from linger.nn.base import convert_class
from linger.nn.constructor import also_positional
from linger.quantizers import CUT_SAID, WeightCut, cut_note, weight_cut
from linger.runtime import LAYER_FUNCTIONS, current_tape, own_arithmetic, refuse_script
from linger.runtime.layer_calls import bound

if TYPE_CHECKING:
    from linger.settings import ClampInfo

_C = TypeVar("_C", bound="Constrained")
Limit = float | None
_SEEN = "_linger_limit_seen"  # in the __dict__ of a layer: modes whose first output was looked at
_log = logging.getLogger("linger")


def _native(x: Tensor) -> bool:
    """Whether the C kernel serves this tensor; on other devices and dtypes, and under ``torch.func``, torch computes the same."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not ops.transformed()


def eager() -> bool:
    """Whether numbers can be read: nobody compiles, records or transforms."""
    return not (torch.compiler.is_compiling() or ops.transformed() or torch._C._get_tracing_state() is not None)


def clamp(x: Tensor, limit: Limit) -> Tensor:
    """Clamp to ±limit (None: unchanged). The gradient is 0 outside."""
    if limit is None:
        return x
    return ops.clamp(x, float(limit)) if _native(x) else x.clamp(-limit, limit)


def clamp_weight(w: Tensor, value: Limit, factor: Limit) -> Tensor:
    """Clamp to ±value, or else to ±factor * mean|w|, a constant for autograd (both None: unchanged)."""
    if value is None and factor is None:
        return w
    if _native(w):
        return ops.clamp_weight(w, value, factor)
    if value is not None:
        return w.clamp(-value, value)
    limit = w.detach().abs().mean() * cast(float, factor)
    return w.clamp(-limit, limit)


class Constrained(nn.Module):
    """What every constrained layer shares: four limits, and whether a ReLU is its only consumer.

    Every constrained layer takes the arguments of its torch class and then these, by keyword or by position. ``ahead_sigmoid``
    is taken and not needed: a sigmoid is an operator of its own on every chip.

    Attributes:
        normalize_data: Limit of the output, in real units; None = off.
        normalize_weight: Static limit of the weight; it wins over `normalize_factor`.
        normalize_bias: Static limit of the bias.
        normalize_factor: Dynamic limit of the weight, in multiples of mean|w|.
        ahead_relu: A ReLU is the layer's only consumer (written by ``trace_layers`` and ``constrain``).

    Source: docs/numerics.md, "Constrained layers".
    """

    float_class: ClassVar[type[nn.Module]]
    own_code: ClassVar[bool] = False  # the forward is the user's code around the layer's function
    normalize_data: Limit
    normalize_weight: Limit
    normalize_bias: Limit
    normalize_factor: Limit
    ahead_relu: bool

    @also_positional("normalize_data", "normalize_weight", "normalize_bias", "ahead_relu", "ahead_sigmoid")
    def __init__(
        self,
        *args: Any,
        normalize_data: Limit = None,
        normalize_weight: Limit = None,
        normalize_bias: Limit = None,
        ahead_relu: bool = False,
        ahead_sigmoid: bool = False,
        normalize_factor: Limit = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.set_limits(normalize_data, normalize_weight, normalize_bias, normalize_factor, ahead_relu)

    def set_limits(
        self,
        data: Limit = None,
        weight: Limit = None,
        bias: Limit = None,
        factor: Limit = None,
        ahead_relu: bool = False,
    ) -> None:
        """Write the limits; each must be None or above zero.

        Raises:
            ValueError: A limit is zero, negative or not a number.
        """
        given = {"normalize_data": data, "normalize_weight": weight, "normalize_bias": bias, "normalize_factor": factor}
        for name, value in given.items():
            if value is not None and not value > 0:
                raise ValueError(f"{type(self).__name__}: {name} must be None or > 0, got {value}")
            setattr(self, name, value)
        self.ahead_relu = ahead_relu

    def apply_clamp_info(self, info: ClampInfo) -> None:
        """Take the limits from a configuration; `ahead_relu` stays."""
        self.set_limits(
            info.clamp_activation_value,
            info.clamp_weight_value,
            info.clamp_bias_value,
            info.clamp_factor_value,
            self.__dict__.get("ahead_relu", False),
        )

    @classmethod
    def from_float(cls: type[_C], m: nn.Module, info: ClampInfo) -> _C:
        """Turn a torch layer into its constrained form in place and return it: Parameters, hooks and flags stay.

        Args:
            m: A layer of class ``cls.float_class``.
            info: The limits.

        Raises:
            TypeError: ``m`` is another kind of layer.
        """
        if not isinstance(m, cls.float_class):
            raise TypeError(f"{cls.__name__}.from_float: expected {cls.float_class.__name__}, got {type(m).__name__}")
        convert_class(m, cls)
        layer = cast(_C, m)
        layer.apply_clamp_info(info)
        return layer

    @classmethod
    def around(cls, user: type[nn.Module]) -> Callable[..., Any]:
        """The forward of a user's class whose call of the layer's function on its own parameters has limits."""

        @functools.wraps(user.forward)
        def forward(self: Constrained, *args: Any, **kwargs: Any) -> Any:
            with _LimitedCall(self):
                return user.forward(self, *args, **kwargs)

        return forward

    def limited_weight(self, w: Tensor) -> Tensor:
        """The weight as the forward uses it (a constant of an exported file, not an operator)."""
        with torch._C.DisableTorchFunction():
            return clamp_weight(w, self.normalize_weight, self.normalize_factor)

    def limited_bias(self, b: Tensor | None) -> Tensor | None:
        """The bias as the forward uses it."""
        if b is None:
            return None
        with torch._C.DisableTorchFunction():
            return clamp(b, self.normalize_bias)

    def limited_output(self, y: Tensor) -> Tensor:
        """The output as the next layer sees it."""
        limit = self.normalize_data
        if self.training not in self.__dict__.get(_SEEN, ()) and eager():
            self._look(y.detach(), limit)
        if limit is not None and current_tape() is not None:
            return y.clamp(-limit, limit)  # the operator that a file can hold
        return clamp(y, limit)

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What ``torch.jit.trace`` runs. It cannot record our backward: the traced module is for inference."""
        with torch.no_grad():
            return super()._slow_forward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __prepare_scriptable__(self) -> None:
        """What ``torch.jit.script`` asks first."""
        raise refuse_script(self)

    def weights(self) -> list[Tensor]:
        """The weights that a limit holds for, each on its own, in front of the clamp."""
        weight: Tensor | None = getattr(self, "weight", None)
        return [] if weight is None else [weight]

    def weight_cuts(self) -> list[WeightCut]:
        """What the limit cuts from each of them."""
        return [weight_cut(w, self.normalize_weight, self.normalize_factor) for w in self.weights()]

    def _look(self, y: Tensor, limit: Limit) -> None:
        """Say once in training, and once in evaluation, what the limits cut of the weights and of the first output."""
        self.__dict__[_SEEN] = (*self.__dict__.get(_SEEN, ()), self.training)
        name = self.__dict__.get("_linger_name", "") or type(self).__name__
        if CUT_SAID not in self.__dict__:
            note = cut_note((name, cut) for cut in self.weight_cuts())
            if note:
                self.__dict__[CUT_SAID] = True
                _log.warning("linger: %s", note)
        share = float((y.abs() > limit).float().mean()) if limit is not None and y.numel() else 0.0
        if share > 0.01:
            _log.warning(
                "linger: %s: clamp_activation_value %g cuts %.1f %% of its output (it reaches %.4g): raise it, or null it, in a "
                "section whose name covers '%s', or normalise the input",
                name,
                limit,
                100 * share,
                float(y.abs().max()),
                name,
            )

    def extra_repr(self) -> str:
        """The torch part first, then the limits."""
        limits = (
            f"clamp_activation:{self.normalize_data}, clamp_weight:{self.normalize_weight}, "
            f"clamp_bias:{self.normalize_bias}, clamp_factor:{self.normalize_factor}"
        )
        return ", ".join(filter(None, (super().extra_repr(), limits)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.__dict__.setdefault("ahead_relu", False)


class _LimitedCall(TorchFunctionMode):
    """While user code runs: the call that is the layer has clamped parameters and a clamped result."""

    def __init__(self, layer: Constrained) -> None:
        super().__init__()
        self.layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in LAYER_FUNCTIONS:
            return func(*args, **kwargs)
        named, layer = bound(func, args, kwargs), self.layer
        if not own_arithmetic(layer, func, named):
            return func(*args, **kwargs)
        named |= {"weight": layer.limited_weight(named["weight"]), "bias": layer.limited_bias(named.get("bias"))}
        return layer.limited_output(func(**named))


class _Conv(Constrained):
    """Shared by the convolutions, whatever their dimension."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the clamped parameters, clamp the output."""
        return self.limited_output(convolve(self, x, self.limited_weight(self.weight), self.limited_bias(self.bias)))


class NormalizeConv1d(_Conv, nn.Conv1d):
    """``nn.Conv1d`` with clamps.

    Shape:
        x ``(N, C, L)`` or ``(C, L)`` -> as ``nn.Conv1d``.
    """

    float_class = nn.Conv1d


class NormalizeConv2d(_Conv, nn.Conv2d):
    """``nn.Conv2d`` with clamps.

    Shape:
        x ``(N, C, H, W)`` or ``(C, H, W)`` -> as ``nn.Conv2d``.
    """

    float_class = nn.Conv2d


class _ConvTranspose(_Conv):
    """Shared by the transposed convolutions."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve with the clamped parameters, clamp the output."""
        w, b = self.limited_weight(self.weight), self.limited_bias(self.bias)
        return self.limited_output(convolve(self, x, w, b, output_size))


class NormalizeConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with clamps.

    Shape:
        x ``(N, C, L)`` -> as ``nn.ConvTranspose1d``.
    """

    float_class = nn.ConvTranspose1d


class NormalizeConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with clamps.

    Shape:
        x ``(N, C, H, W)`` -> as ``nn.ConvTranspose2d``.
    """

    float_class = nn.ConvTranspose2d


class NormalizeLinear(Constrained, nn.Linear):
    """``nn.Linear`` with clamps.

    Shape:
        x ``(..., in_features)`` -> ``(..., out_features)``.
    """

    float_class = nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Multiply with the clamped parameters, clamp the output."""
        return self.limited_output(F.linear(x, self.limited_weight(self.weight), self.limited_bias(self.bias)))


class _BatchNorm(Constrained):
    """Shared by the batch normalisations."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the clamped parameters, clamp the output; statistics as in torch."""
        m: Any = self
        w = None if m.weight is None else self.limited_weight(m.weight)
        return self.limited_output(batch_norm(m, x, w, self.limited_bias(m.bias)))


class NormalizeBatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` with clamps.

    Shape:
        x ``(N, C)`` or ``(N, C, L)`` -> same.
    """

    float_class = nn.BatchNorm1d


class NormalizeBatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with clamps.

    Shape:
        x ``(N, C, H, W)`` -> same.
    """

    float_class = nn.BatchNorm2d


class NormalizeLayerNorm(Constrained, nn.LayerNorm):
    """``nn.LayerNorm`` with clamps.

    Shape:
        x ``(..., *normalized_shape)`` -> same.
    """

    float_class = nn.LayerNorm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the clamped parameters, clamp the output."""
        w = None if self.weight is None else self.limited_weight(self.weight)
        b = self.limited_bias(self.bias)
        return self.limited_output(F.layer_norm(x, self.normalized_shape, w, b, self.eps))


class NormalizeEmbedding(Constrained, nn.Embedding):
    """``nn.Embedding`` with clamps. Only the rows that are looked up are clamped, so that sparse gradients keep working.

    Shape:
        x integer ``(*)`` -> ``(*, embedding_dim)``.
    """

    float_class = nn.Embedding

    def forward(self, x: Tensor) -> Tensor:
        """Look up, clamp as a weight and as an output."""
        rows = super().forward(x)
        limit = self.normalize_weight
        if limit is None and self.normalize_factor is not None:
            bound = self.weight.detach().abs().mean() * self.normalize_factor
            return self.limited_output(rows.clamp(-bound, bound))
        return self.limited_output(clamp(rows, limit))


def convolve(m: Any, x: Tensor, w: Tensor, b: Tensor | None, output_size: list[int] | None = None) -> Tensor:
    """What the torch layer `m` (any Conv or ConvTranspose) computes, with other parameters.

    Args:
        m: Gives stride, padding and its mode, dilation, groups, output padding.
        output_size: As in ``nn.ConvTranspose2d.forward``.
    """
    n = len(m.kernel_size)
    if not m.transposed:
        padding = m.padding
        if m.padding_mode != "zeros":
            x, padding = F.pad(x, m._reversed_padding_repeated_twice, mode=m.padding_mode), 0
        return (F.conv1d if n == 1 else ops.float_conv2d)(x, w, b, m.stride, padding, m.dilation, m.groups)
    extra = m._output_padding(x, output_size, m.stride, m.padding, m.kernel_size, n, m.dilation)
    run = F.conv_transpose1d if n == 1 else F.conv_transpose2d
    return run(x, w, b, m.stride, m.padding, extra, m.groups, m.dilation)


def batch_norm(m: Any, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    """What the torch layer `m` (a BatchNorm) computes, with other affine parameters; moves its statistics in training."""
    m._check_input_dim(x)
    factor = momentum_of(m)
    keep = not m.training or m.track_running_stats
    mean, var = (m.running_mean, m.running_var) if keep else (None, None)
    return F.batch_norm(x, mean, var, w, b, m.training or m.running_mean is None, factor, m.eps)


def momentum_of(m: Any) -> float:
    """The weight of this batch in the running statistics of the BatchNorm `m`; counts the batch in training."""
    if m.training and m.track_running_stats and m.num_batches_tracked is not None:
        m.num_batches_tracked.add_(1)
        if m.momentum is None:  # cumulative average
            return 1.0 / float(m.num_batches_tracked)
    return 0.0 if m.momentum is None else float(m.momentum)


CONSTRAINED: dict[type[nn.Module], type[Constrained]] = {
    cls.float_class: cls
    for cls in (
        NormalizeConv1d,
        NormalizeConv2d,
        NormalizeConvTranspose1d,
        NormalizeConvTranspose2d,
        NormalizeLinear,
        NormalizeBatchNorm1d,
        NormalizeBatchNorm2d,
        NormalizeLayerNorm,
        NormalizeEmbedding,
    )
}
