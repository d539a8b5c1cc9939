"""A convolution or linear layer and the BatchNorm behind it as one constrained float layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linger import ops
from linger.errors import UnsupportedError
from linger.nn.constructor import also_positional
from linger.nn.masks import masks_of, move_masks, renew
from linger.ops.fold_bn import folded_real
from linger.quantizers import CUT_SAID
from linger.runtime import FOLDED, ahead, behind_norm, takes_its_own_forward

from .layers import Constrained, Limit, batch_norm, clamp, clamp_weight, convolve, eager, momentum_of

if TYPE_CHECKING:
    from linger.settings import ClampInfo

_F = TypeVar("_F", bound="FusedBN")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_OWN = {
    "training", "num_features", "eps", "momentum", "affine", "track_running_stats", "ahead_relu", "blend", "call_super_init",
}  # fmt: skip
MARK = "_linger_ignore_parameter"  # 3.x name of the parameter that marks a fused checkpoint
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


class Limits(NamedTuple):
    """Clamps of folded parameters, in real units; None = off."""

    weight: Limit = None
    factor: Limit = None
    bias: Limit = None


NO_LIMITS = Limits()


def fold(first: Any, bn: Any, mean: Tensor, var: Tensor, limits: Limits = NO_LIMITS) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that computes `first`, then `bn` with these statistics.

    ``W * g / sqrt(var + eps)`` along the output channels (of a transposed convolution too) and
    ``(b - mean) * g / sqrt(var + eps) + beta``, then clamped. Differentiable in everything, statistics included.

    Args:
        first: Conv, ConvTranspose or Linear layer.
        bn: BatchNorm with its own eps; ``affine=False`` counts as g = 1, beta = 0.
        mean, var: ``(C,)``.
    """
    w, b, transposed, groups = (
        first.weight,
        first.bias,
        getattr(first, "transposed", False),
        getattr(first, "groups", 1),
    )
    if w.dtype == mean.dtype == torch.float32 and w.device.type == "cpu" and not ops.transformed():
        off = 0.0  # what the kernel takes for "no clamp"
        return ops.fold_bn(
            w, b, bn.weight, bn.bias, mean, var, bn.eps, groups, transposed,
            limits.weight or off, limits.factor or off, limits.bias or off,
        )  # fmt: skip
    scaled, shift = folded_real(w, b, bn.weight, bn.bias, mean, var, bn.eps, groups, transposed)
    return clamp_weight(scaled.to(w.dtype), limits.weight, limits.factor), clamp(shift.to(w.dtype), limits.bias)


def _once(raw: Tensor, bn: Any) -> bool:
    """Whether normalisation and statistics come from one pass; torch's own operators serve the rest (other devices and types)."""
    plain = raw.device.type == "cpu" and raw.dtype in (torch.float32, torch.float64)
    plain = plain and eager()
    return plain and all(t is None or t.dtype == raw.dtype for t in (bn.weight, bn.running_mean))


def copy_layer(m: nn.Module) -> Any:
    """A second module object with the same Parameters, buffers and flags, without the user's forward hooks."""
    plain = type(m).__new__(type(m))
    fresh = nn.Module()
    for key, value in m.__dict__.items():
        if key in HOOKS:
            plain.__dict__[key] = fresh.__dict__[key]
        else:
            plain.__dict__[key] = value.copy() if key in ("_parameters", "_buffers", "_modules") else value
    return plain


def _added(m: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
    """Numbers, tensors and buffers that a tool (a counter of operations) has put on a module; its hooks go on using them."""
    attributes = {
        k: v
        for k, v in m.__dict__.items()
        if isinstance(v, (int, float, Tensor)) and k not in _OWN and not k.startswith(("_linger", "normalize_"))
    }
    buffers = {k: v for k, v in m._buffers.items() if k not in _STATISTICS and not k.endswith("_mask") and k != MARK}
    return attributes, buffers


def _restart(m: nn.Module, cls: type[nn.Module]) -> None:
    """Make `m` an empty module of another class; identity, training flag, forward hooks and wishes about it stay."""
    attributes, buffers = _added(m) if cls is EmptyBatchNorm else ({}, {})
    kept = {
        key: value
        for key, value in m.__dict__.items()
        if key in HOOKS or key == "training" or key.startswith("_linger_")
    }
    m.__class__ = cls
    m.__dict__.clear()
    nn.Module.__init__(m)
    m.__dict__.update(attributes | kept)
    m._buffers.update(buffers)


class FusedBN(Constrained):
    """Shared by the fused layers. Children: the layer (`.conv`, or `.linear`) and `.bn`, untouched torch modules.

    Training: ``y = a * BN(conv(x)) + (1 - a) * conv(x; folded with the batch's unbiased variance, clamped)``, then the
    output clamp; running statistics as in torch. Evaluation, and training with a frozen `.bn` (``.bn.eval()``):
    ``conv(x; folded with the running statistics, clamped)``, output clamp. Attributes that are not its own are those of
    the layer, so ``m.weight`` or ``m.stride`` still answer.

    Attributes:
        blend: a; 0.1 in the 3.x form, 1.0 in the classic one (the clamps of the parameters then act in evaluation only).

    Source: docs/numerics.md, "Constrained Conv+BN".
    """

    first: ClassVar[str] = "conv"
    bn_class: ClassVar[type[nn.Module]]
    blend: float
    bn: Any

    @also_positional(
        "eps",
        "momentum",
        "affine",
        "track_running_stats",
        "normalize_data",
        "normalize_weight",
        "normalize_bias",
        "ahead_relu",
    )
    def __init__(
        self,
        *args: Any,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        normalize_data: Limit = None,
        normalize_weight: Limit = None,
        normalize_bias: Limit = None,
        ahead_relu: bool = False,
        normalize_factor: Limit = None,
        blend: float = 0.1,
        constrain: None = None,
        **kwargs: Any,
    ) -> None:
        if constrain is not None:
            raise UnsupportedError(
                f"{type(self).__name__}: constrain: pass the limits as normalize_data, normalize_weight ..."
            )
        nn.Module.__init__(self)
        layer: Any = self.float_class(*args, **kwargs)
        width = layer.out_features if self.first == "linear" else layer.out_channels
        like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        setattr(self, self.first, layer)
        self.bn = self.bn_class(width, eps, momentum, affine, track_running_stats, **like)
        self.set_limits(normalize_data, normalize_weight, normalize_bias, normalize_factor, ahead_relu)
        self.set_blend(blend)

    @classmethod
    def fuse(cls: type[_F], layer: nn.Module, bn: nn.Module, info: ClampInfo | None = None, blend: float = 0.1) -> _F:
        """Turn two torch layers into one, in place: `layer` becomes it, `bn` becomes an :class:`EmptyBatchNorm`.

        Parameters, buffers and flags of both stay; forward hooks stay where they were (those of the layer then see the
        normalised output).

        Args:
            layer: Of class ``cls.float_class``.
            bn: Of class ``cls.bn_class``, or ``nn.SyncBatchNorm``, over the layer's output channels.
            info: The limits; None leaves them off.
            blend: See the class.

        Returns:
            `layer`.
        """
        inner, norm = copy_layer(layer), copy_layer(bn)
        for part, plain in ((inner, cls.float_class), (norm, cls.bn_class)):
            if isinstance(part, (Constrained, nn.SyncBatchNorm)):  # the latter: statistics are then each process's own
                part.__class__ = plain  # type: ignore[assignment]
        ahead_relu = bool(getattr(layer, "ahead_relu", False))
        move_masks(layer, inner)
        move_masks(bn, norm)
        buffers = _added(layer)[1]  # which the hooks, that stay outside, use
        for name in buffers:
            del inner._buffers[name]
        _restart(layer, cls)
        layer._buffers.update(buffers)
        EmptyBatchNorm.replace(bn)
        new = cast(_F, layer)
        new.set_limits(ahead_relu=ahead_relu)
        if info is not None:
            new.apply_clamp_info(info)
        setattr(new, cls.first, inner)
        new.bn = norm
        new.set_blend(blend)
        return new

    def unfuse(self) -> None:
        """Become the layer alone again, in place (`bn` is left out; whoever calls it folds it)."""
        inner = self.layer
        masks = masks_of(inner)
        attributes, buffers = _added(self)
        kept = {key: self.__dict__[key] for key in (*HOOKS, "training", FOLDED, CUT_SAID) if key in self.__dict__}
        self.__dict__.clear()
        self.__class__ = type(inner)
        self.__dict__.update(attributes | inner.__dict__ | kept)
        self._buffers.update(buffers)
        self._forward_pre_hooks.update(masks)

    def set_blend(self, blend: float) -> None:
        """Write a of the training expression, 0..1."""
        if not 0 <= blend <= 1:
            raise ValueError(f"{type(self).__name__}: blend must be in [0, 1], got {blend}")
        self.blend = blend

    @property
    def layer(self) -> Any:
        """The Conv, ConvTranspose or Linear child."""
        return self._modules[self.first]

    @property
    def limits(self) -> Limits:
        """Clamps of the folded parameters."""
        return Limits(self.normalize_weight, self.normalize_factor, self.normalize_bias)

    def run(self, x: Tensor, w: Tensor, b: Tensor | None, output_size: list[int] | None) -> Tensor:
        """The layer's own operation with other parameters."""
        return convolve(self.layer, x, w, b, output_size)

    def weights(self) -> list[Tensor]:
        """The folded weight of the evaluation, in front of the clamp."""
        if self.bn.running_mean is None:
            return []
        with torch.no_grad(), torch._C.DisableTorchFunction():
            return [fold(self.layer, self.bn, self.bn.running_mean, self.bn.running_var)[0]]

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the evaluation: folded with the running statistics, clamped.

        Raises:
            ValueError: The BatchNorm keeps no running statistics.
        """
        if self.bn.running_mean is None:
            raise ValueError(f"{type(self).__name__}: a BatchNorm without running statistics has no folded form")
        with torch._C.DisableTorchFunction():  # constants of an exported file
            return fold(self.layer, self.bn, self.bn.running_mean, self.bn.running_var, self.limits)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """See the class."""
        bn, layer = self.bn, self.layer
        renew(layer)
        renew(bn)
        if not bn.training and bn.running_mean is not None:
            return ahead(self.limited_output(self.run(x, *self.folded(), output_size)), self)
        raw = self.run(x, layer.weight, layer.bias, output_size)
        if bn.training and self.blend != 1.0 and _once(raw, bn):
            return ahead(self.limited_output(self._blended(x, raw, output_size)), self)
        if bn.training:
            y = batch_norm(bn, raw, bn.weight, bn.bias)
            if self.blend == 1.0:
                return ahead(self.limited_output(y), self)
        wide = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        axes = [d for d in range(raw.dim()) if d != 1]
        var, mean = torch.var_mean(wide, axes, correction=1 if bn.training else 0)
        z = self.run(x, *fold(layer, bn, mean, var, self.limits), output_size)
        return ahead(self.limited_output(torch.lerp(z, y, self.blend) if bn.training else z), self)

    def _blended(self, x: Tensor, raw: Tensor, output_size: list[int] | None) -> Tensor:
        """The blend with its two weights inside the parameters, and statistics from BatchNorm's own pass."""
        bn, a = self.bn, self.blend
        bn._check_input_dim(raw)
        factor = momentum_of(bn)
        like = raw.detach()
        w = like.new_full((bn.num_features,), a) if bn.weight is None else bn.weight * a
        b = like.new_zeros(bn.num_features) if bn.bias is None else bn.bias * a
        running = (bn.running_mean, bn.running_var) if bn.track_running_stats else (None, None)
        y, mean, var = ops.batch_norm(raw, w, b, running, factor, bn.eps)
        folded, shift = fold(self.layer, bn, mean, var, self.limits)
        return y.add_(self.run(x, folded * (1.0 - a), shift * (1.0 - a), output_size))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get(self.first)
            if layer is None or name.startswith("_"):
                raise
            if name in layer._buffers and not name.endswith("_mask"):  # a tool has put it there
                raise
            return getattr(layer, name)

    def extra_repr(self) -> str:
        """The classic line first."""
        return (
            f"normalize_data:{self.normalize_data},normalize_weight:{self.normalize_weight},"
            f"normalize_bias:{self.normalize_bias},ahead_relu:{self.ahead_relu},"
            f"normalize_factor:{self.normalize_factor},blend:{self.blend}"
        )


class NormalizeConvBN1d(FusedBN):
    """``nn.Conv1d`` and ``nn.BatchNorm1d``. Arguments of both (see :class:`FusedBN`).

    Shape:
        x ``(N, C, L)`` -> as ``nn.Conv1d``.
    """

    float_class, bn_class = nn.Conv1d, nn.BatchNorm1d


class NormalizeConvBN2d(FusedBN):
    """``nn.Conv2d`` and ``nn.BatchNorm2d``. Arguments of both (see :class:`FusedBN`).

    Shape:
        x ``(N, C, H, W)`` -> as ``nn.Conv2d``.
    """

    float_class, bn_class = nn.Conv2d, nn.BatchNorm2d


class NormalizeConvTransposeBN1d(FusedBN):
    """``nn.ConvTranspose1d`` and ``nn.BatchNorm1d``. Arguments of both (see :class:`FusedBN`).

    Shape:
        x ``(N, C, L)`` -> as ``nn.ConvTranspose1d``.
    """

    float_class, bn_class = nn.ConvTranspose1d, nn.BatchNorm1d


class NormalizeConvTransposeBN2d(FusedBN):
    """``nn.ConvTranspose2d`` and ``nn.BatchNorm2d``. Arguments of both (see :class:`FusedBN`).

    Shape:
        x ``(N, C, H, W)`` -> as ``nn.ConvTranspose2d``.
    """

    float_class, bn_class = nn.ConvTranspose2d, nn.BatchNorm2d


class NormalizeLinearBN1d(FusedBN):
    """``nn.Linear`` and ``nn.BatchNorm1d``: children `.linear` and `.bn`. Arguments of both (see :class:`FusedBN`).

    Shape:
        x ``(N, in_features)`` -> ``(N, out_features)``.
    """

    float_class, bn_class, first = nn.Linear, nn.BatchNorm1d, "linear"

    def run(self, x: Tensor, w: Tensor, b: Tensor | None, output_size: list[int] | None) -> Tensor:
        """The product with other parameters.

        Raises:
            ValueError: ``x`` is not 2-D: BatchNorm1d would then normalise another axis, which no folded layer can do.
        """
        if x.dim() != 2:
            raise ValueError(f"{type(self).__name__}: expected (N, in_features), got {tuple(x.shape)}")
        return F.linear(x, w, b)


class EmptyBatchNorm(nn.Module):
    """Stands where a BatchNorm was before it was fused into the layer in front of it: the identity.

    Its one buffer marks fused checkpoints, under the name that the 3.x generation gives to a parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(MARK, torch.zeros(1))

    @classmethod
    def replace(cls, bn: nn.Module) -> None:
        """Turn a BatchNorm into this, in place; its forward hooks stay.

        One with code of its own around ``F.batch_norm`` goes on running that code, without parameters.
        """
        reference = next((t for t in (*bn.parameters(), *bn.buffers())), torch.empty(0))
        if takes_its_own_forward(type(bn)) and not isinstance(bn, Constrained):
            counter = bn._buffers.get("num_batches_tracked")
            for table in (bn._parameters, bn._buffers):
                table.update(dict.fromkeys(("weight", "bias") if table is bn._parameters else _STATISTICS))
            if counter is not None:  # which its code may count
                bn.register_buffer("num_batches_tracked", torch.zeros_like(counter), persistent=False)
        else:
            _restart(bn, cls)
        bn.register_buffer(MARK, torch.zeros(1, device=reference.device))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer in front of it has computed, normalised there already.

        Raises:
            UnsupportedError: Another tensor arrives than that layer's result.
        """
        y: Tensor = behind_norm(x, self)
        return y

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        _, strict, _, unexpected_keys, _ = args
        given, mine = state_dict.get(prefix + MARK), getattr(self, MARK)
        if mine.is_meta and given is not None:  # load_state_dict(assign=True)
            setattr(self, MARK, torch.zeros(1, device=given.device))
        own = {prefix + k for k in self._buffers}
        unexpected_keys += [k for k in state_dict if strict and k.startswith(prefix) and k not in own]


FUSED: dict[tuple[type[nn.Module], type[nn.Module]], type[FusedBN]] = {
    (cls.float_class, bn): cls
    for cls in (
        NormalizeConvBN1d,
        NormalizeConvBN2d,
        NormalizeConvTransposeBN1d,
        NormalizeConvTransposeBN2d,
        NormalizeLinearBN1d,
    )
    for bn in (cls.bn_class, nn.SyncBatchNorm)
}
