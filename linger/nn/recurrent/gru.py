"""GRU layers: the module (written by ``write.py``, read back in ``gru_nodes.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from linger import ops
from linger.chip import limits_of
from linger.ops.gru import gru
from linger.ops.recurrent import Result, Walk, Weights

from .layer import RecurrentInt
from .states import InputRows
from .write import Direction

if TYPE_CHECKING:
    from linger.quantizers import Quantizer


class GRUInt(RecurrentInt, nn.GRU):
    """GRU that computes the chip's integers (later engine revision) in forward and float gradients in backward.

    Takes what ``torch.nn.GRU`` takes. venus gives its update gate to the candidate where PyTorch gives it to the state: the
    rows and biases of z enter negated there, which is exact. arcs and mars apply the reset gate to the state before the
    recurrent product: another function, to be trained as it is.

    Args:
        *args: As ``torch.nn.GRU``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        As ``torch.nn.GRU``; output and state are float32 on a power-of-two grid, tagged with their format.

    Source: docs/numerics.md, "GRU".
    """

    gates = 3
    op_type = "GRUInt"

    @property
    def difference(self) -> str:
        """What training has to make up for, for the report of ``init``."""
        if not limits_of(self.quant.platform).gru_resets_first:
            return ""
        return f"{self.quant.platform} applies the reset gate before the recurrent product: another formula, train it"

    def weights(self, d: Direction) -> Weights:
        """Parameters as the chip has them, and the settings of their quantizers."""
        w = super().weights(d)
        if not limits_of(self.quant.platform).gru_updates_new:
            return w
        sign = w.w_ih.new_ones(3 * self.hidden_size)
        sign[self.hidden_size : 2 * self.hidden_size] = -1.0
        b_ih, b_hh = (None if b is None else b * sign for b in (w.b_ih, w.b_hh))
        return w._replace(w_ih=w.w_ih * sign[:, None], w_hh=w.w_hh * sign[:, None], b_ih=b_ih, b_hh=b_hh)

    def _compute(self, x: Tensor, rows: InputRows, given: list[Tensor] | None, hx: Any) -> Any:
        if self.training and limits_of(self.quant.platform).gru_sum_exp2 > 0 and self.quant.method == "TQT":
            self._start_thresholds()
        return super()._compute(x, rows, given, hx)

    def _start_thresholds(self) -> None:
        """The first threshold of TQT (4.3) is too wide for a chip that shifts the sums right only: the matrices' own range."""
        if torch.compiler.is_compiling():
            return
        for d in self.directions():
            for kind in ("ih", "hh"):
                quantizer = cast("Quantizer", getattr(self, d.quantizer(f"weight{kind}")))
                if not (quantizer.ready or quantizer.frozen):
                    quantizer.set_range(getattr(self, d.parameter(f"weight_{kind}")).detach().abs().max())

    def step(
        self, x: ops.Coded, w: Weights, scale: Tensor, out: ops.Output, walk: Walk, given: tuple[Tensor | None, ...]
    ) -> Result:
        """One direction of one layer."""
        return gru(x, w, scale, out, walk, *given)


__all__ = ["GRUInt"]
