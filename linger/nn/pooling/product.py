"""Averages as linear layers with equal weights: one rounding, on every chip, for windows of every size.

The weight ``m`` and its scale ``2**s`` stand for ``1 / n``: ``sat_8(RSH(m * S, s))``, the exact average where n is a power of
two. Each window becomes one LinearInt of its elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from linger.chip import coarse_factor
from linger.nn.functional import common_attributes
from linger.nn.nodes.file_tensor import FileTensor


def write_products(
    chain: FileTensor, kernel: tuple[int, int], stride: tuple[int, int], pads: tuple[int, int, int, int]
) -> FileTensor:
    """The averages of all windows of a tensor (N, C, H, W).

    Args:
        chain: The tensor.
        kernel, stride: Height and width.
        pads: Top, left, bottom, right; elements there count as 0.
    """
    n, channels = chain.shape[:2]
    rows = list(_windows(chain.shape[2], kernel[0], stride[0], pads[0], pads[2]))
    cols = list(_windows(chain.shape[3], kernel[1], stride[1], pads[1], pads[3]))
    bands = (chain.slice(2, *row) for row in rows)
    parts = [_product(band.slice(3, *col), kernel[0] * kernel[1]) for band in bands for col in cols]
    return parts[0].cat(parts[1:], 2).reshape(n, channels, len(rows), len(cols))


def _windows(size: int, kernel: int, stride: int, before: int, after: int) -> Iterator[tuple[int, int]]:
    """First element and end of every window, without the padding."""
    for start in range(-before, size + after - kernel + 1, stride):
        yield max(start, 0), min(start + kernel, size)


def _product(window: FileTensor, pixels: int) -> FileTensor:
    """The average (N, C, 1) of one window, of which ``pixels`` elements count."""
    n, channels, h, w = window.shape
    factor, exponent = coarse_factor(pixels)
    tape, scale = window.tape, window.scale
    attributes: dict[str, Any] = common_attributes(tape) | {"data_bits": 8, "parameter_bits": 8, "o_bits": 8}
    attributes |= {"scale_x": scale, "scale_w": 2.0**exponent, "scale_o": scale}
    weight = np.full((1, h * w), factor, np.int8)
    flat = window.reshape(n, channels, h * w)
    return flat.node("LinearInt", (n, channels, 1), attributes, weight, chip=True)


__all__ = ["write_products"]
