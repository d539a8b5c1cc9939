"""Attention as the operators it is made of: projections, matrix products, softmax; module and function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger.nn.base import Converted, no_operand
from linger.quantizers import Quantizer, clamp_weight_once, in_float
from linger.runtime import Composite, Format, Interception, current_tape, handles, info, state, tag

from .linear import LinearInt

if TYPE_CHECKING:
    from linger.settings import LayerSettings

_DEPTH_EXP2 = 4  # a masked score is lowered by 2**4: the position then weighs e**-16 of what it would
_MASK_EXP2 = 7 - _DEPTH_EXP2  # -128 codes are the depth


class ProjectionInt(LinearInt):
    """A linear layer whose weight and bias are parts of somebody else's Parameters, given with every call.

    Args:
        in_features, out_features, bias: As ``torch.nn.Linear``.
        quant: Number formats, clamps and platform.

    Source: docs/numerics.md, "Linear".
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, *, quant: LayerSettings) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.has_bias = in_features, out_features, bias
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.set_quantizers(quant)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, factor: float = 1.0) -> Tensor:  # type: ignore[override]
        """``factor * (x @ weight.T + bias)``: the factor is part of the weight, it costs nothing and rounds nothing more."""
        with torch._C.DisableTorchFunction():
            if self.training or in_float():
                clamp_weight_once(weight, self.weight_quantizer, self.quant.clamp)
            if factor != 1.0:
                weight, bias = weight * factor, None if bias is None else bias * factor
            return self._product(x, weight, bias)

    def extra_repr(self) -> str:
        """As a linear layer that holds its bias."""
        return super().extra_repr().replace("bias=False", f"bias={self.has_bias}", 1)


class MultiheadAttentionInt(Converted, Composite, nn.MultiheadAttention):
    """Multi-head attention from linear layers, matrix products and softmax in the chip's integers.

    ``1 / sqrt(head_dim)`` is part of the query's projection. Masks are constants of the file: what they forbid is lowered by
    16 before the softmax, which leaves it e**-16 of its weight.

    Args:
        *args: As ``torch.nn.MultiheadAttention``; ``add_bias_kv`` and ``add_zero_attn`` are not available.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        As ``torch.nn.MultiheadAttention``.

    Source: docs/numerics.md, "Attention".
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        LinearInt.from_float(self.out_proj, self.quant)

    def set_quantizers(self, quant: LayerSettings) -> None:
        """Create the projections of query, key and value, which hold the quantizers; the Parameters stay where they are."""
        self.quant, self.fused_relu = quant, False
        for name, width in (("q", self.embed_dim), ("k", self.kdim), ("v", self.vdim)):
            bias = self.in_proj_bias is not None
            self.add_module(f"{name}_proj", ProjectionInt(width, self.embed_dim, bias, quant=quant))

    def _parameters_of(self, i: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the projection of query (0), key (1) or value (2)."""
        rows, stacked = slice(i * self.embed_dim, (i + 1) * self.embed_dim), self.in_proj_weight
        weight = getattr(self, f"{'qkv'[i]}_proj_weight") if stacked is None else stacked[rows]
        return weight, None if self.in_proj_bias is None else self.in_proj_bias[rows]

    def limited_weights(self) -> list[tuple[Tensor, Quantizer]]:
        """The matrices of query, key and value; that of the result has a layer of its own."""
        return [
            (self._parameters_of(i)[0], getattr(self, f"{name}_proj").weight_quantizer) for i, name in enumerate("qkv")
        ]

    def keep_constrained(self) -> None:
        """A layer that was constrained computes with clamped parameters already: keep them."""
        limit = self.quant.clamp.clamp_bias_value
        for i, (weight, quantizer) in enumerate(self.limited_weights()):
            bias = self._parameters_of(i)[1]
            clamp_weight_once(weight, quantizer, self.quant.clamp)
            if bias is not None and limit is not None and bias.requires_grad:
                with torch.no_grad():
                    bias.clamp_(-limit, limit)

    def _project(self, i: int, x: Tensor, factor: float = 1.0) -> Tensor:
        """Query, key or value, (L, N, E) -> (L, N * heads, head_dim)."""
        with torch._C.DisableTorchFunction():
            weight, bias = self._parameters_of(i)
        y = getattr(self, f"{'qkv'[i]}_proj")(x, weight, bias, factor)
        return cast(Tensor, y.reshape(y.shape[0], -1, self.head_dim))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``torch.nn.MultiheadAttention``; ``is_causal`` is a hint there and here: ``attn_mask`` says what is masked."""
        for i, t in enumerate((query, key, value)):
            if not isinstance(t, Tensor):
                raise no_operand(t, getattr(self, f"{'qkv'[i]}_proj").input_quantizer)
        batched = query.dim() == 3
        q = self._sequence_first(query)
        k = q if key is query else self._sequence_first(key)
        v = q if value is query else k if value is key else self._sequence_first(value)
        length, n, sources = int(q.shape[0]), q.shape[1], int(k.shape[0])  # the batch may be a symbol
        masks = _blocking(self, attn_mask, "attn_mask"), _blocking(self, key_padding_mask, "key_padding_mask")
        mask = _merged(*masks, (n, self.num_heads, sources))
        queries = self._project(0, q, 1.0 / math.sqrt(self.head_dim)).transpose(0, 1)
        keys, values = self._project(1, k).permute(1, 2, 0), self._project(2, v).transpose(0, 1)
        out, shares = _attend(queries, keys, values, mask, self.dropout if self.training else 0.0)
        y = self.out_proj(out.transpose(0, 1).reshape(length, -1, self.embed_dim))
        if not batched:
            y = y.squeeze(1)
        elif self.batch_first:
            y = y.transpose(0, 1)
        if not need_weights:
            return y, None
        shares = shares.reshape(-1, self.num_heads, length, sources)
        weights = _unreported(torch.mean, shares, 1) if average_attn_weights else shares
        return y, weights if batched else weights.squeeze(0)

    def _sequence_first(self, t: Tensor) -> Tensor:
        """``t`` as (L, N, E)."""
        if t.dim() == 2:
            return t.unsqueeze(1)
        return t.transpose(0, 1) if self.batch_first else t


def _unreported(func: Callable[..., Tensor], *args: Any) -> Tensor:
    """A float call that is no island worth a message: its result is rarely used, and left out of the file then."""
    with torch._C.DisableTorchFunction():
        tape = current_tape()
        return func(*args) if tape is None else cast(Tensor, tape.float_call(func, args, {}))


def _blocking(owner: nn.Module, mask: Tensor | None, name: str) -> Tensor | None:
    """What a mask adds to the scores, as float; a bool mask says what is blocked."""
    if mask is None:
        return None
    tape = current_tape()
    with torch._C.DisableTorchFunction():
        if tape is not None and tape.has(mask):
            where = owner.__dict__.get("_linger_name", "") or name
            tape.violations.append(
                f"{where}: {name} computed from the inputs, a constant (pad to a fixed length, or leave the mask out)"
            )
        if mask.dtype == torch.bool:
            return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -math.inf)
        return mask.detach().float()


def _merged(attention: Tensor | None, padding: Tensor | None, sizes: tuple[int, int, int]) -> Tensor | None:
    """One mask that broadcasts with scores (N * heads, L, S); ``sizes`` are N, heads and S."""
    n, heads, sources = sizes
    with torch._C.DisableTorchFunction():
        if padding is not None:
            padding = padding.reshape(-1, 1, 1, sources).expand(n, heads, 1, sources).reshape(n * heads, 1, sources)
            attention = padding if attention is None else attention + padding
        return attention


def _coded_mask(mask: Tensor) -> Tensor:
    """An additive mask in int8: at most the depth, -inf included; finer where all of it is small."""
    with torch._C.DisableTorchFunction():
        low = mask.clamp(min=-(2.0**_DEPTH_EXP2)).nan_to_num(0.0)
        peak = low.abs().amax() if low.numel() else low.new_zeros(())
        exp2 = (7 - torch.frexp(peak).exponent).clamp(-20, 20)
        exp2 = torch.where(peak == 2.0**_DEPTH_EXP2, _MASK_EXP2, exp2)
        scale = torch.ldexp(torch.ones_like(peak), exp2)
        codes = (low * scale).round().clamp(-128, 127)
        value = tag(codes / scale, Format(scale, 8, codes.to(torch.int8)))
        tape = current_tape()
        if tape is not None:
            tape.bind(value, tape.constant(codes.to(torch.int8).cpu().numpy(), "mask"))
        return value


def _attend(q: Tensor, k_turned: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """softmax(q k + mask) v and the softmax, intercepted as user code; keys come as (..., head_dim, S)."""
    scores = torch.matmul(q, k_turned)
    if mask is not None:
        scores = scores + (mask if info(scores) is None else _coded_mask(mask))
    shares = F.softmax(scores, dim=-1)
    if dropout > 0.0:
        shares = F.dropout(shares, dropout)
    return torch.matmul(shares, v), shares


_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@handles("scaled_dot_product_attention", "F.scaled_dot_product_attention")
def _scaled_dot_product(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Attention of given queries, keys and values: the factor is a product with a number."""
    named = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    q, k, v = named["query"], named["key"], named["value"]
    if all(info(t) is None for t in (q, k, v)) or named.get("enable_gqa"):
        return NotImplemented
    mask, scale = named.get("attn_mask"), named.get("scale")
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if named.get("is_causal"):
        mask = torch.ones(int(q.shape[-2]), int(k.shape[-2]), dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        kept = mask.logical_not() if mask.dtype == torch.bool else mask
        tape = current_tape()
        if tape is not None and tape.has(mask) and kept is not mask:
            tape.poison(kept, "an attention mask computed from the inputs")
        mask = _blocking(state.frames[-1].owner, kept, "attn_mask")
    with Interception():
        if scale != 1.0:
            q = q * scale
        return _attend(q, k.transpose(-2, -1), v, mask, float(named.get("dropout_p", 0.0)))[0]


__all__ = ["MultiheadAttentionInt", "ProjectionInt"]
