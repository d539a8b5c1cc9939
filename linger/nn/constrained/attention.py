"""Multi-head attention of the first stage: the projections' matrices and the result are clamped in every forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import CONSTRAINED, Constrained

_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class NormalizeMultiheadAttention(Constrained, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with clamps; the limits hold for the matrix of each projection on its own.

    Shape:
        As ``nn.MultiheadAttention``.
    """

    float_class = nn.MultiheadAttention

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """False keeps torch's transformer layers off their fused evaluation, which would read the parameters past the clamps."""
        return False

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, value: bool) -> None:
        self.__dict__["_qkv_same_embed_dim"] = value  # what torch's own class reads after a conversion

    def weights(self) -> list[Tensor]:
        """The matrices of query, key and value; that of the result has a layer of its own."""
        stacked = self.in_proj_weight
        return [getattr(self, name) for name in _SEPARATE] if stacked is None else list(stacked.chunk(3))

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
        """As torch's layer, with clamped parameters and output."""
        turned = self.batch_first and query.dim() == 3
        q, k, v = (t.transpose(0, 1) if turned else t for t in (query, key, value))
        last: Any = self.out_proj
        limits: Constrained = last if isinstance(last, Constrained) else self
        separate = self.in_proj_weight is None
        with torch._C.DisableTorchFunction():  # constants of a file
            limited = [self.limited_weight(w) for w in self.weights()]
            stacked = None if separate else torch.cat(limited)
        apart: dict[str, Any] = dict(zip(_SEPARATE, limited, strict=True)) if separate else {}
        out, shares = F.multi_head_attention_forward(
            q,
            k,
            v,
            self.embed_dim,
            self.num_heads,
            stacked,
            self.limited_bias(self.in_proj_bias),
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            limits.limited_weight(last.weight),
            limits.limited_bias(last.bias),
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=separate,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            **apart,
        )
        out = limits.limited_output(out)
        return (out.transpose(0, 1) if turned else out), shares


CONSTRAINED |= {nn.MultiheadAttention: NormalizeMultiheadAttention}

__all__ = ["NormalizeMultiheadAttention"]
