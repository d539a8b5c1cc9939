"""Rules of the chips' engines for one layer; ``init`` reports what breaks them, ``export`` refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .platforms import limits_of


@dataclass(frozen=True)
class Violation:
    """One limit that a layer breaks.

    Args:
        layer: Qualified name.
        what: The property, e.g. ``"kernel"``.
        value: What the layer has.
        limit: What the chip takes.
    """

    layer: str
    what: str
    value: str
    limit: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.what} {self.value}, the chip takes {self.limit}"


def check_convolution(
    layer: str,
    platform: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
) -> list[Violation]:
    """Violations of a convolution's geometry.

    Args:
        layer: Qualified name, for the messages.
        platform: ``arcs``, ``mars``, ``venusA`` or ``venus``.
        kernel, stride, dilation: Per axis.
        pads: Begin of every axis, then end of every axis.
    """
    chip = limits_of(platform)
    found = []

    def broken(what: str, value: object, limit: object) -> None:
        found.append(Violation(layer, what, str(value), str(limit)))

    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        plane = len(kernel) == 2 and all(v == 1 for v in dilation)  # the 1-D node has the longer kernels
        top = chip.max_kernel if plane else chip.max_kernel_dilated
        if not 1 <= k <= top:
            broken("kernel", k, f"1..{top}")
        if s not in chip.strides:
            broken("stride", s, f"one of {chip.strides}")
        elif k < s:
            broken("kernel below stride", f"{k} < {s}", "kernel >= stride")
        if d not in chip.dilations:
            broken("dilation", d, f"one of {chip.dilations}")
        for p in (pads[axis], pads[len(kernel) + axis]):
            if p > min(chip.max_pad, k):
                broken("padding", p, f"at most {min(chip.max_pad, k)}")
                break
    return found


def check_pool(
    layer: str,
    platform: str,
    kind: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    size: Sequence[int],
) -> list[Violation]:
    """Violations of a pooling's geometry; ``kind`` is ``"MaxPool"`` or ``"AvgPool2dInt"``, ``size`` the input's."""
    chip = limits_of(platform)
    found = []
    whole = any(k == s for k, s in zip(kernel, size, strict=True))
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True)):
        if k < s:
            found.append(Violation(layer, "kernel below stride", f"{k} < {s}", "kernel >= stride"))
        if kind == "MaxPool" and k > chip.max_pool_kernel and not whole:
            found.append(Violation(layer, "kernel", str(k), f"1..{chip.max_pool_kernel}"))
        if max(pads[axis], pads[len(kernel) + axis]) > k:
            found.append(Violation(layer, "padding", str(pads[axis]), f"at most {k}"))
    return found
