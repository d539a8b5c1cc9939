"""Embedding tables: a row of integers per index (a standard Gather in files; read here too)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger import ops
from linger.nn.base import Converted, note_use, weight_quantizer
from linger.quantizers import Quantizer, clamp_weight_once, in_float
from linger.runtime import Format, Leaf, NodeReader, Tape, current_tape, reads, tag

if TYPE_CHECKING:
    from linger.settings import LayerSettings

_HALF_EVEN = 2


class EmbeddingInt(Converted, Leaf, nn.Embedding):
    """Embedding whose table holds the chip's integers; its rows come out at the table's scale.

    Args:
        *args: As ``torch.nn.Embedding``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        indices of any shape ``(...)`` -> ``(..., embedding_dim)``, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Operators that keep codes".
    """

    weight_quantizer: Quantizer

    def set_quantizers(self, quant: LayerSettings) -> None:
        """Create the table's quantizer on the layer's device."""
        self.quant = quant
        self.fused_relu = False
        self.weight_quantizer = weight_quantizer(quant)
        self.name_quantizers()

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward; the gradient of a row reaches the table where it does not saturate."""
        with torch._C.DisableTorchFunction():
            if self.training or in_float():
                clamp_weight_once(self.weight, self.weight_quantizer, self.quant.clamp)
            table = self._shortened(x)
            if in_float():
                self.weight_quantizer.observe_calibration(table)
                scale = self.weight_quantizer.scale.detach()  # live: it has no value so far
                return tag(self._rows(x, table), Format(scale, self.weight_quantizer.bits, exact=False))
            note_use(self.weight_quantizer)
            spec = self.weight_quantizer.weight_output(table)._replace(rounding=_HALF_EVEN)
            if self.sparse:  # the scale from the whole table, the gradient through the rows that were looked up
                out = ops.quantize(table.detach(), spec)
                y = ops.quantize(self._rows(x, table), spec._replace(observe=False)).value
            else:
                out = ops.quantize(table, spec)
                y = self._rows(x, out.value)
            y = tag(y, Format(out.scale, self.weight_quantizer.bits, F.embedding(x, out.codes)))
            tape = current_tape()
            if tape is not None:
                self._write(tape, x, out, y)
            return y

    @torch.no_grad()
    def _shortened(self, x: Tensor) -> Tensor:
        """The table under ``max_norm``: in training the rows looked up, in place as torch does it; else a copy of all."""
        if self.max_norm is None:
            return self.weight
        rows = x if self.training else torch.arange(self.num_embeddings, device=self.weight.device)  # a file has all
        table = self.weight if self.training else self.weight.detach().clone()
        torch.embedding_renorm_(table, rows.contiguous(), self.max_norm, self.norm_type)
        return table

    def _rows(self, x: Tensor, table: Tensor) -> Tensor:
        return F.embedding(x, table, self.padding_idx, None, 2.0, self.scale_grad_by_freq, self.sparse)

    def _write(self, tape: Tape, x: Tensor, table: ops.Coded, y: Tensor) -> None:
        name = self.__dict__.get("_linger_name", "") or "embedding"
        codes = table.codes.detach().cpu().numpy()
        attributes = {"axis": 0, "scale_o": float(table.scale), "platform": tape.platform}
        tape.node("Gather", [codes, x], [y], attributes, domain="linger", hint=name)

    def extra_repr(self) -> str:
        """The torch part first, then the formats."""
        q = self.quant
        return f"{super().extra_repr()}, weight_bits:{q.weight_bits}, platform:{q.platform}"


@reads("Gather")
def read_gather(node: NodeReader) -> None:
    """Rows of an int8 table or of int8 codes, along ``axis``; an exact copy. ``scale_o`` sets the table's scale."""
    indices = node.data(1)
    axis = node.integer("axis", 0)
    table = node.data(0)
    if indices.dtype not in (torch.int32, torch.int64):
        raise node.error(f"indices must be int32 or int64, got {indices.dtype}")
    if not -table.dim() <= axis < table.dim():
        raise node.error(f"attribute 'axis' must fit an input of {table.dim()} dimensions, got {axis}")
    axis %= table.dim()
    size = table.shape[axis]
    if indices.numel() and not (-size <= int(indices.min()) and int(indices.max()) < size):
        raise node.error(f"indices must lie in [{-size}, {size}), got {int(indices.min())}..{int(indices.max())}")
    node.room((*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :]))
    flat = indices.reshape(-1).long() % max(size, 1)
    rows = table.index_select(axis, flat).reshape(*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :])
    if node.has("scale_o"):
        node.match(0, node.scale("scale_o"))
        node.put(0, rows, node.scale("scale_o"))
    else:
        node.put_like(0, rows, 0)


__all__ = ["EmbeddingInt"]
