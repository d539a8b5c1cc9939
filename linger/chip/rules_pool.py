"""Rules of pooling."""

from __future__ import annotations

from collections.abc import Iterator

from .averages import Average, average_fault
from .engines import SHIPPED
from .facts import NodeFacts, rule
from .rules_conv import batch, rank
from .violation import Violation

_OTHER_FORM = "linger.init(engine='562ddc7'), whose averages have a form for every window, and another export"
_TWO_STEPS = "pool in two steps, or by a strided convolution"


@rule("AvgPool2dInt", "MaxPool")
def window(n: NodeFacts) -> Iterator[Violation]:
    """Kernel, stride and padding."""
    yield from rank(n, 4)
    kernel = n.integers("kernel_shape")
    stride, pads = n.integers("strides", kernel), n.integers("pads", (0,) * 2 * len(kernel))
    shape = n.shape(0, 2 + len(kernel))
    covers = shape is not None and any(k == s for k, s in zip(kernel, shape[2:], strict=True))
    top, border = n.chip.max_pool_kernel, n.chip.max_pool_pad
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=False)):
        pad = max(pads[axis], pads[len(kernel) + axis])
        if k < s:
            yield n.error("kernel below stride", f"{k} < {s}", "kernel >= stride", "slice in front of the pooling")
        if pad > k:
            yield n.error("padding", pad, f"at most {k}", "pad in front of the pooling")
        if n.op_type == "MaxPool" and not covers:
            if k > top:
                yield n.error("kernel", k, f"1..{top}", "several smaller poolings in a row give the same maxima")
            if border and border < pad <= k:
                yield n.error("padding", pad, f"at most {border}", "pad in front of the pooling")
    if int(n.get("ceil_mode", 0)):
        yield n.error("ceil_mode", n.get("ceil_mode"), "0: the engine rounds sizes down", "pad at the end instead")
    if n.op_type == "MaxPool" and any(d != 1 for d in n.integers("dilations")):
        yield n.error("dilation of a pooling", n.integers("dilations"), "1", "slices and a maximum")


@rule("AvgPool2dInt")
def average(n: NodeFacts) -> Iterator[Violation]:
    """Scratch memory, scales and the batch of average pooling."""
    yield from batch(n)
    kernel, shape = n.integers("kernel_shape"), n.shape(0, 4)
    q_x, q_o = n.exp2("scale_x"), n.exp2("scale_o")
    if q_x is not None and q_o is not None and q_x != q_o:
        yield n.error(
            "scale_o", f"2**{q_o}", f"the scale of the input, 2**{q_x}", "export the model again", refused=False
        )
    if int(n.get("divisor_override", -1)) not in (-1, 0, kernel[0] * kernel[1] if len(kernel) == 2 else -1):
        yield n.error(
            "divisor_override", n.get("divisor_override"), "none: the engine ignores it", "scale behind the pooling"
        )
    if shape is None or len(kernel) != 2:
        return
    stride, pads = n.integers("strides", kernel), n.integers("pads", (0, 0, 0, 0))
    fault = average_fault(n.revision, Average(n.platform, shape[1], shape[2], shape[3], kernel, stride, pads))
    if fault is not None:
        what, value, limit = fault
        row = what == "input of the pooling"
        remedy = "fewer channels at a time, or a smaller map" if row else _OTHER_FORM
        yield n.error(what, value, limit, remedy, refused=row)
    if n.engine in (None, SHIPPED):
        return
    channels, height, width = shape[1:]
    whole = height + pads[0] + pads[2] == kernel[0] and width + pads[1] + pads[3] == kernel[1]
    if not whole:
        return
    pixels, power = height * width, kernel[0] * kernel[1] & (kernel[0] * kernel[1] - 1) == 0
    if not n.chip.pool_whole_scratch:
        if not power:
            limit = f"the engine's scratch is {channels * pixels} bytes too small, usually a crash"
            yield n.warning("window over the whole map", f"{height}x{width}", limit, _TWO_STEPS)
    elif not power and 4 * channels < pixels:
        value = f"{height}x{width} with {channels} channels"
        yield n.error("window over the whole map", value, "4 * C >= H * W", _TWO_STEPS, refused=False)
    elif power:
        limit = f"{min(pixels, 4 * channels)} bytes of scratch overlap the neighbouring tensor"
        yield n.warning("window over the whole map", f"{height}x{width} with {channels} channels", limit, _TWO_STEPS)
