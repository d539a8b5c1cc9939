"""Which AvgPool2dInt an engine computes right: the laws, as the exporter and the rules read them."""

from __future__ import annotations

from typing import NamedTuple

from .engines import Engine
from .facts import up
from .platforms import limits_of


class Average(NamedTuple):
    """One AvgPool2dInt.

    Attributes:
        platform: Chip.
        channels, height, width: Of its input.
        kernel, stride: Height and width.
        pads: Top, left, bottom, right.
    """

    platform: str
    channels: int
    height: int
    width: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[int, ...]


def average_rows(
    platform: str,
    engine: Engine,
    channels: int,
    height: int,
    width: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
) -> int:
    """Bytes of the rows that the engine keeps for one row of results."""
    if not engine.average_rows:
        return up(channels, 8) * height * up(width, 8 * stride[1])
    return up(channels, 8) * up(width, 8 << (stride[1] >> 1)) * kernel[0]


def average_fault(engine: Engine, a: Average) -> tuple[str, str, str] | None:
    """What keeps the engine from this pooling: property, value and limit; None where it is right."""
    (kh, kw), pixels = a.kernel, a.kernel[0] * a.kernel[1]
    power = pixels & (pixels - 1) == 0
    most = engine.average_sums if power else engine.average_elements
    if 0 < most < pixels:
        what = "the sum saturates at 16 bits" if power else "the reciprocal wraps at 8 bits"
        return "window", f"{kh}x{kw}", f"at most {most} elements: {what}"
    if engine.average_strides and not set(a.stride) <= set(engine.average_strides):
        return "stride of the pooling", "x".join(map(str, a.stride)), f"one of {engine.average_strides}"
    row, limit = limits_of(a.platform), engine.average_rows
    rows = average_rows(a.platform, engine, a.channels, a.height, a.width, a.kernel, a.stride)
    if limit and rows > limit:
        return "rows of the pooling", f"{rows} bytes", f"{limit} bytes"
    whole = (a.height + a.pads[0] + a.pads[2], a.width + a.pads[1] + a.pads[3]) == a.kernel
    if whole and not engine.average_whole:
        return (
            "window over the whole map",
            f"{kh}x{kw}",
            "windows smaller than the map: its scratch memory is too small",
        )
    image = up(a.channels, 8) * a.height * up(a.width, 8 * a.stride[1])
    if image > row.pool_row_bytes:
        return "input of the pooling", f"{image} bytes", f"{row.pool_row_bytes} bytes"
    if not power and engine.average_share and not whole:
        oh = (a.height + a.pads[0] + a.pads[2] - kh) // a.stride[0] + 1
        ow = (a.width + a.pads[1] + a.pads[3] - kw) // a.stride[1] + 1
        room = engine.average_share * a.channels * oh * ow
        if pixels > room:
            return "window", f"{kh}x{kw}", f"at most {engine.average_share} * C * OH * OW = {room} elements"
    return None


def average_runs(engine: Engine, a: Average) -> bool:
    """Whether the engine computes this AvgPool2dInt right."""
    return average_fault(engine, a) is None


__all__ = ["Average", "average_fault", "average_rows", "average_runs"]
