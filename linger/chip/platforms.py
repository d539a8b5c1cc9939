"""One row per chip. A new chip is a new row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a chip's convolution and pooling engines take.

    Args:
        file_name: Value of the ``platform`` attribute in files; mars is written as arcs.
        max_kernel: Largest kernel per axis of a 2-D convolution with dilation 1.
        max_kernel_dilated: Largest kernel per axis of 1-D convolutions and of dilated ones.
        max_pad: Largest padding per side.
        dilations: Dilations the engine has.
        conv_row_bytes: Size of the input row buffer, ``align(C) * ceil(W / 8 sw) * 8 sw * kh`` bytes; ``row_align`` aligns C.
        max_pool_kernel: Largest kernel of a max pooling per axis.
        batched: Convolution and average pooling compute every sample of a batch, not only the first.

    Source: docs/numerics.md, "Chips".
    """

    file_name: str
    max_kernel: int
    max_kernel_dilated: int
    max_pad: int
    dilations: tuple[int, ...]
    conv_row_bytes: int
    conv_row_bytes_depthwise: int
    row_align: int
    max_pool_kernel: int
    batched: bool
    strides: tuple[int, ...] = (1, 2, 4)


_ARCS = Limits("arcs", 5, 12, 11, (1, 2, 4, 8), 16384, 16384, 2, 12, False)

LIMITS: dict[str, Limits] = {
    "arcs": _ARCS,
    "mars": _ARCS,
    "venusA": Limits("venusA", 5, 12, 11, (1, 2, 4, 8), 65536, 32768, 4, 12, False),
    "venus": Limits("venus", 5, 5, 4, (1,), 65536, 32768, 2, 5, True),
}


def limits_of(platform: str) -> Limits:
    """Limits of a chip.

    Raises:
        ValueError: Unknown platform.
    """
    if platform not in LIMITS:
        raise ValueError(f"platform must be one of {', '.join(sorted(LIMITS))}, got {platform!r}")
    return LIMITS[platform]


def file_platform(platform: str) -> str:
    """Name of a chip as files carry it (the packer knows no mars)."""
    return limits_of(platform).file_name
