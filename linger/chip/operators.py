"""What each chip does with an operator: the one table that layers, files and documents read.

*native*: the chip has it. *rewrite*: an exact expression in operators the chip has; training, eval and file all use its
arithmetic. *island*: computed in float between a Dequant and a Quant. *refused*: an error that says why.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["native", "rewrite", "island", "refused"]


class Support(NamedTuple):
    """One cell of the table.

    Attributes:
        kind: native, rewrite, island or refused.
        note: What is special about it, in words for the documents; empty where nothing is.
        bits: Widths of the result.
    """

    kind: Kind
    note: str = ""
    bits: tuple[int, ...] = (8,)


_CAT_ANY = Support("native", "each input is shifted to the scale of the result; at most 6 bits to the left")
_CAT_LEFT = Support("native", "shifts left only: the scale of the result is the largest of the inputs'")
_MUL = Support(
    "native", "same shape, per channel with batch 1 and C <= H*W, or an int8 constant; other broadcasts are islands"
)
_BMM = Support("native", "rank 2 or 3, higher ranks through Reshape; transposes are nodes of their own")
_SUB = Support(
    "rewrite",
    "the engines subtract from an uninitialised buffer: x + RSH(-y, 1) - RSH(y, 1) in iqMul and iqAdd, exact with -128",
)


def _everywhere(cell: Support, **others: Support) -> dict[str, Support]:
    return {platform: others.get(platform, cell) for platform in ("arcs", "mars", "venusA", "venus")}


OPERATORS: dict[str, dict[str, Support]] = {
    "iqCat": _everywhere(_CAT_ANY, venusA=_CAT_LEFT),
    "iqMul": _everywhere(_MUL),
    "iqSub": _everywhere(_SUB),
    "BmmInt": _everywhere(
        _BMM._replace(bits=(8, 32)),
        venusA=_BMM._replace(bits=(8, 16, 32)),
        venus=Support("native", f"{_BMM.note}; K x N of the second matrix, aligned to 8 x 4, at most 32 KB"),
    ),
}

__all__ = ["OPERATORS", "Kind", "Support"]
