"""The released engines: what the packer and executor of one release make of the nodes of a chip, beyond the chip's limits.

A chip's arithmetic is the same under every engine. An engine may lack a form of it: then the exporter writes another form
with the same integers (``linger/onnx/engine``), or the rules of ``linger.check`` say that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .platforms import KIB, LIMITS, PLATFORM_NAMES

ENGINES = ("562ddc7", "later")
SHIPPED = "562ddc7"


@dataclass(frozen=True)
class Engine:
    """What one engine does with the nodes of one chip; the defaults are those of an engine without faults.

    Args:
        defects: Operators, or forms of them, that this engine computes otherwise, as the rules name them.
        average_elements: Largest window of an AvgPool2dInt that is divided right where its size is no power of two; 0: all.
        average_sums: The same for powers of two.
        average_rows: Largest ``align8(C) * align(W, 8 * 2**(sw >> 1)) * kh`` of an AvgPool2dInt in bytes; 0: not limited.
        average_share: Windows smaller than the map and no power of two need ``kh * kw <= share * C * OH * OW``; 0: no limit.
        average_strides: Strides of an AvgPool2dInt that are computed right; empty: all.
        average_whole: A window over the whole map is right wherever its chip has the scratch memory for it.
        scratch: Operator -> (bytes per element, constant) that the engine writes into its scratch memory; the packer
            reserves ``requests`` for the whole file, the most that one node asks for.
        requests: Operator -> bytes per element that a node asks for.
        packing: Operator -> option of the packer without which files with such a node do not run.

    Source: docs/numerics.md, "Engines".
    """

    defects: frozenset[str] = frozenset()
    average_elements: int = 0
    average_sums: int = 0
    average_rows: int = 0
    average_share: int = 0
    average_strides: tuple[int, ...] = ()
    average_whole: bool = True
    scratch: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    packing: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, what: str) -> bool:
        """Whether ``what`` is among the defects."""
        return what in self.defects


# Faults of every chip: the packer's prefetch reads one bias per weight; a 0 of a Reshape copies an axis of a tensor that
# the packer has merged away; lengths behind a Cast; a bias behind packed 4-bit weights lies elsewhere than the prefetch looks.
_COMMON = frozenset({"shared parameters", "zero sizes", "cast lengths", "4-bit bias", "gru"})
_ARCS = Engine(
    defects=_COMMON | {"glu", "tanh"},
    average_rows=16 * KIB,
    average_share=7,
    average_strides=(1, 2, 4),
    average_whole=False,
    scratch={"LayerNormInt": (27, 8)},
    requests={"LayerNormInt": 4, "AvgPool2dInt": 4, "LinearInt": 1},
    packing={"LSTMInt": "--dma_prefetch False"},
)
_562DDC7: dict[str, Engine] = {
    "arcs": _ARCS,
    "mars": _ARCS,
    "venusA": replace(
        _ARCS,
        defects=_COMMON
        | {"tanh", "coarse sigmoid", "sigmoid scratch", "log softmax scratch", "linear rows", "h_n", "gelu"},
        average_rows=32 * KIB,
        scratch={"LayerNormInt": (27, 8), "SoftmaxInt": (22, 0)},
        requests={"LayerNormInt": 4, "AvgPool2dInt": 4, "SoftmaxInt": 6},
    ),
    "venus": Engine(
        defects=_COMMON | {"lstm rows", "transposed map", "transposed convolution", "thin map"},
        average_elements=127,
        average_sums=256,
        average_whole=False,
        scratch={"LayerNormInt": (8, 8), "LSTMInt": (40, 0)},
        requests={"LSTMInt": 32, "AvgPool2dInt": 2},
    ),
}
_TABLE = {SHIPPED: _562DDC7, "later": {platform: Engine() for platform in PLATFORM_NAMES}}


def engine_of(engine: str | None, platform: str) -> Engine:
    """The row of an engine on a chip; None: the shipped engine.

    Raises:
        ValueError: An unknown engine or platform.
    """
    rows = _TABLE.get(SHIPPED if engine is None else engine)
    if rows is None:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if platform not in rows and platform not in LIMITS:
        raise ValueError(f"platform must be one of {', '.join(sorted(rows))}, got {platform!r}")
    return rows.get(platform, Engine())  # a chip without a row: nothing is known to go wrong


def coarse_average(engine: str | None, platform: str, kernel: tuple[int, int]) -> bool:
    """Whether the average of a window is ``RSH(m * S, s)`` in training, evaluation and file: no AvgPool2dInt divides it right.

    Args:
        engine: The model's; None: one without record, whose averages are those of AvgPool2dInt.
        platform: Chip.
        kernel: Height and width of the window.
    """
    pixels = kernel[0] * kernel[1]
    if engine is None or pixels & (pixels - 1) == 0:
        return False
    row = engine_of(engine, platform)
    too_many = 0 < row.average_elements < pixels
    return too_many or 0 < row.average_rows < 8 * (-(-kernel[1] // 8) * 8) * kernel[0]


def coarse_factor(pixels: int) -> tuple[int, int]:
    """``m`` in 64..127 and ``s`` with ``m / 2**s`` nearest to ``1 / pixels``; for a power of two m = 1, exactly."""
    if pixels & (pixels - 1) == 0:
        return 1, pixels.bit_length() - 1
    s = 0
    while (2 * (1 << s) + pixels) // (2 * pixels) < 64:  # round(2**s / pixels)
        s += 1
    return (2 * (1 << s) + pixels) // (2 * pixels), s


__all__ = ["ENGINES", "SHIPPED", "Engine", "coarse_average", "coarse_factor", "engine_of"]
