"""Rules of the layers with weights: convolutions, linear layers, BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .engines import SHIPPED
from .facts import NodeFacts, rule, up
from .operators import OPERATORS
from .taps import most_taps
from .violation import Violation

NO_PREFETCH = "--dma_prefetch False"
PARAMETERS_SHARED = "--memory params:share-mem"
_ONE_SAMPLE = "export with a batch of 1"


def batch(n: NodeFacts) -> Iterator[Violation]:
    """Convolution and average pooling of some chips compute the first sample only."""
    shape = n.shape(0)
    if shape is not None and len(shape) > 2 and shape[0] > 1 and not n.chip.batched:
        limit = f"{n.platform} computes only the first sample"
        yield n.error("batch", shape[0], limit, _ONE_SAMPLE, refused=False)


def right_shift(n: NodeFacts, *operands: str, lowest: int = 0) -> Iterator[Violation]:
    """``s = sum of the operands' exponents - q_o`` must not be negative."""
    parts, q_o = [n.exp2(name) for name in operands], n.exp2("scale_o")
    if q_o is None or any(p is None for p in parts):
        return
    shift = sum(p for p in parts if p is not None) - q_o
    if not lowest <= shift <= 63:
        yield n.error("shift", shift, f"{lowest}..63 bits to the right", "a coarser scale_o")


def widths(n: NodeFacts) -> Iterator[Violation]:
    """Width of the result, as the operator's row has it."""
    bits, allowed = int(n.get("o_bits", 8)), OPERATORS[n.op_type][n.platform].bits
    if bits not in allowed:
        yield n.error("output_bits", bits, f"one of {allowed}", "output_bits: 8 in the layer's section")


def rank(n: NodeFacts, *allowed: int) -> Iterator[Violation]:
    """Number of axes of the first input."""
    shape = n.shape(0)
    if shape is not None and len(shape) not in allowed:
        yield n.error("rank", len(shape), " or ".join(map(str, allowed)), "reshape or unsqueeze the input")


def packs_4_bits(platform: str, weight: Sequence[int], depthwise: bool, bias: bool) -> bool:
    """Whether the engine finds the bias behind a 4-bit convolution weight (always, where there is no bias).

    Args:
        platform: A chip with 4-bit convolutions.
        weight: Shape (O, C, kh, kw); C per group.
        depthwise: One channel per group.
        bias: Whether the layer has one.
    """
    from .platforms import limits_of

    if not bias:
        return True
    chip, (o, c, kh, kw) = limits_of(platform), weight
    if depthwise:
        padded = up(o, 8) * (up(kh, 2) if chip.row_align == 4 else kh) * kw
    else:
        padded = up(o, chip.row_align) * up(c, 8) * kh * kw
    return up(padded, 16) // 2 == up(padded // 2, 16)


def _geometry(n: NodeFacts, top: int) -> Iterator[Violation]:
    kernel, pads = n.integers("kernel_shape"), n.integers("pads")
    axes = len(kernel)
    stride, dilation = n.integers("strides", (1,) * axes), n.integers("dilations", (1,) * axes)
    pads = pads or (0,) * (2 * axes)
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=False)):
        if not 1 <= k <= top:
            remedy = "several smaller kernels in a row, or a dilated one"
            if axes == 1 or kernel[1 - axis] == 1:
                remedy += f"; along the one row of a map {most_taps(n.chip, d)} taps fit"
            yield n.error("kernel", k, f"1..{top}", remedy)
        if s not in n.chip.strides:
            yield n.error(
                "stride", s, f"one of {n.chip.strides}", "a stride of 1, 2 or 4, or a pooling behind the layer"
            )
        elif k < s:
            yield n.error("kernel below stride", f"{k} < {s}", "kernel >= stride", "a kernel as large as the stride")
        if d not in n.chip.dilations:
            remedy = "a kernel that spans at most 5 elements, or several layers in a row"
            yield n.error("dilation", d, f"one of {n.chip.dilations}", remedy)
        for p in (pads[axis], pads[axes + axis]):
            if p > min(n.chip.max_pad, k):
                yield n.error("padding", p, f"at most {min(n.chip.max_pad, k)}", "pad in front of the layer (F.pad)")
                break


def _rows(n: NodeFacts, groups: int, depthwise: bool) -> Iterator[Violation]:
    """The input rows of one output row must fit the engine's buffer, as they are or with H and W exchanged."""
    shape, kernel, stride = n.shape(0), n.integers("kernel_shape"), n.integers("strides", (1, 1))
    if shape is None or len(shape) != len(kernel) + 2 or len(stride) != len(kernel):
        return
    if len(kernel) == 1:
        shape, kernel, stride = (*shape[:2], 1, shape[2]), (1, *kernel), (1, *stride)
    channels = shape[1] if depthwise else shape[1] // max(groups, 1)
    room = n.chip.conv_row_bytes_depthwise if depthwise else n.chip.conv_row_bytes

    def needed(width: int, step: int, height: int) -> int:
        return up(channels, n.chip.row_align) * up(width, 8 * step) * height

    least = min(needed(shape[3], stride[1], kernel[0]), needed(shape[2], stride[0], kernel[1]))
    if least > room:
        remedy = "fewer channels or a smaller map in front of this layer, or a smaller kernel"
        yield n.error("input rows", f"{least} bytes", f"{room} bytes", remedy)


def _filters(n: NodeFacts, weight: Sequence[int], depthwise: bool) -> Iterator[Violation]:
    chip, pixels = n.chip, weight[2] * (weight[3] if len(weight) > 3 else 1)
    if depthwise and chip.depthwise_bytes:
        size = up(weight[0], chip.depthwise_align) * pixels
        if size > chip.depthwise_bytes:
            remedy = "a smaller kernel, or two layers with half of the channels each"
            yield n.error("depthwise weight", f"{size} bytes", f"{chip.depthwise_bytes} bytes", remedy)
    elif not depthwise and chip.filter_bytes:
        size = up(weight[1], 8) * pixels
        if size > chip.filter_bytes:
            remedy = "groups, a smaller kernel, or a sum of two layers with half of the input channels each"
            yield n.error("weight per output channel", f"{size} bytes", f"{chip.filter_bytes} bytes", remedy)


def _four_bits(n: NodeFacts, weight: Sequence[int] | None, depthwise: bool) -> Iterator[Violation]:
    if int(n.get("w_bits", 8)) != 4:
        return
    if not n.chip.conv4:
        yield n.error("weight_bits", 4, "8", "store the same codes as 8-bit weights")
    elif n.has(2) and n.revision.lacks("4-bit bias"):
        limit = "no bias: the weight prefetch computes a wrong bias address"
        remedy = "export the model again: the same codes are stored as 8-bit weights"
        yield n.error("4-bit weights with bias", "", limit, remedy, refused=False)
    elif n.has(2):
        if weight is not None and not packs_4_bits(n.platform, weight, depthwise, True):
            limit = "a packed size after which the engine finds the bias"
            remedy = "8-bit weights for this layer, no bias, or channels in multiples of 32"
            yield n.error("4-bit weights with bias", "x".join(map(str, weight)), limit, remedy)
        yield n.note("4-bit weights with bias", "", "the weight prefetch computes a wrong bias address", NO_PREFETCH)


@rule("Conv2dInt", "Conv1dInt")
def convolution(n: NodeFacts) -> Iterator[Violation]:
    """Geometry, buffers, weights, and what the packer gets wrong."""
    one_d = n.op_type == "Conv1dInt"
    kernel = n.integers("kernel_shape")
    dilation = n.integers("dilations", (1,) * len(kernel))
    groups, shape, weight = int(n.get("group", 1)), n.shape(0), n.shape(1)
    depthwise = groups > 1 and weight is not None and weight[0] == groups and weight[1] == 1
    if one_d and OPERATORS[n.op_type][n.platform].kind != "native":
        yield n.broken("the engine pads the wrong axis", "a Conv2dInt with a height of 1: export the model again")
        return
    yield from rank(n, 3 if one_d else 4)
    plane = not one_d and all(d == 1 for d in dilation)
    yield from _geometry(n, n.chip.max_kernel if plane else n.chip.max_kernel_dilated)
    if one_d:
        as_2d = "a Conv2dInt with a height of 1: export the model again"
        if any(d != 1 for d in dilation):
            yield n.error("dilation of the 1-D node", dilation, "1: the engine ignores it", as_2d)
        if depthwise:
            yield n.error("groups of the 1-D node", groups, "fewer groups than channels", as_2d)
        if int(n.get("w_bits", 8)) == 4:
            yield n.error("weight_bits of the 1-D node", 4, "8", as_2d)
    else:
        yield from _four_bits(n, weight, depthwise)
    yield from widths(n)
    yield from batch(n)
    yield from _rows(n, groups, depthwise)
    if weight is not None:
        yield from _filters(n, weight, depthwise)
    yield from right_shift(
        n, "scale_x", "scale_w", lowest=-31 if int(n.get("o_bits", 8)) == 32 and n.chip.wide_left else 0
    )
    if int(n.get("act_type", 0)) not in (0, 1):
        yield n.error("act_type", n.get("act_type"), "0 or 1 (ReLU)", "an activation of its own behind the layer")
    if n.platform == "venus" and not one_d and shape is not None and any(n.integers("pads")):
        yield from _venus_pads(n, shape, kernel, groups)


def pads_wrongly(platform: str, channels: int, groups: int, kernel: Sequence[int]) -> bool:
    """Whether the packer wires the padding of a grouped convolution wrongly: it compares the wrong axes of the groups."""
    return platform == "venus" and 1 < groups < channels and channels // groups < max(kernel)


def _venus_pads(n: NodeFacts, shape: Sequence[int], kernel: Sequence[int], groups: int) -> Iterator[Violation]:
    """The packer compares the wrong axes and inserts a padding that it wires wrongly behind some producers."""
    producer = n.tensor(0).producer
    channels = shape[1] // max(groups, 1)
    if pads_wrongly(n.platform, shape[1], groups, kernel):
        remedy = "fewer groups, or pad in front of the layer"
        yield n.error(
            "padding of a grouped layer", f"{channels} channels per group", f">= kernel {max(kernel)}", remedy
        )
    elif producer not in ("", "Quant") and len(shape) == 4 and (shape[1] < kernel[0] or shape[2] < kernel[1]):
        value = f"C {shape[1]}, H {shape[2]}, kernel {tuple(kernel)}"
        limit = "the packer inserts a padding of its own, wired wrongly behind operators with several outputs"
        if producer in ("Split", "LSTMInt", "GRUInt"):
            yield n.error(
                "padding behind a split", value, "C >= kh and H >= kw", "at least as many channels as kernel rows"
            )
        else:
            remedy = "export the model again: zeros are put in front, or at least as many channels as kernel rows"
            yield n.hazard("padding of a thin map", value, limit, remedy)


@rule("ConvTranspose2dInt")
def transposed(n: NodeFacts) -> Iterator[Violation]:
    """Transposed convolution."""
    yield from rank(n, 4)
    yield from _geometry(n, n.chip.max_kernel_dilated)
    dilation = n.integers("dilations", (1, 1))
    if any(d != 1 for d in dilation):
        yield n.error("dilation of a transposed convolution", dilation, "1", "a larger kernel with zeros")
    if int(n.get("group", 1)) != 1:
        remedy = "groups=1 (zeros where the groups had no weight), or upsampling and a grouped convolution"
        yield n.error("groups of a transposed convolution", n.get("group"), "1", remedy)
    if not n.has(2):
        yield n.error("bias", "none", "a bias in any case, of zeros", "export the model again")
    if int(n.get("w_bits", 8)) != 8:
        yield n.error("weight_bits", n.get("w_bits"), "8", "store the same codes as 8-bit weights")
    yield from widths(n)
    yield from batch(n)
    yield from right_shift(n, "scale_x", "scale_w")
    if n.platform == "venus":
        limit = "packs only with the weights in shared memory"
        yield n.note("transposed convolution", "", limit, PARAMETERS_SHARED)


@rule("LinearInt")
def linear(n: NodeFacts) -> Iterator[Violation]:
    """Fully connected layer."""
    bits, shape, weight = int(n.get("o_bits", 8)), n.shape(0), n.shape(1)
    yield from rank(n, 2, 3)
    yield from widths(n)
    yield from right_shift(n, "scale_x", "scale_w", lowest=-31 if bits == 32 and n.chip.wide_left else 0)
    if int(n.get("w_bits", 8)) == 4:
        if n.platform == "venusA":
            yield n.error("weight_bits", 4, "8", "store the same codes as 8-bit weights")
        elif n.has(2) and n.chip.linear4 and n.revision.lacks("4-bit bias"):
            limit = "no bias: the weight prefetch computes a wrong bias address"
            remedy = "export the model again: the same codes are stored as 8-bit weights"
            yield n.error("4-bit weights with bias", "", limit, remedy, refused=False)
        elif n.has(2) and n.chip.linear4:
            limit = "the weight prefetch computes a wrong bias address"
            yield n.note("4-bit weights with bias", "", limit, NO_PREFETCH)
    if weight is not None:
        size = weight[0] * weight[1]
        if size <= n.chip.shared_bytes < 2 * size:
            limit = f"the weight and its prefetched copy do not fit into {n.chip.shared_bytes} bytes"
            yield n.note("weight", f"{size} bytes", limit, NO_PREFETCH)
    rows = None if shape is None else math.prod(shape[:-1])
    features = None if weight is None else weight[0]
    if n.revision.lacks("linear rows") and rows not in (None, 1) and features != 1:
        limit = "1: the engine transposes a result of several rows in place and scrambles it"
        remedy = "one row per call; results of 8 bits have another form: export the model again"
        yield n.error("rows", rows, limit, remedy, refused=False)
    elif n.platform == "venusA" and n.engine not in (None, SHIPPED) and rows not in (None, 1):
        limit = "engine 562ddc7 transposes a result of several rows in place and scrambles it"
        yield n.warning("rows", rows, limit, "one row per call, or place the result in PSRAM when packing")


@rule("BatchNorm2dInt")
def batch_norm(n: NodeFacts) -> Iterator[Violation]:
    """BatchNorm that stands alone."""
    yield from rank(n, 4)
    yield from widths(n)
    yield from right_shift(n, "scale_x", "scale_w", lowest=-63 if n.chip.norm_left else 0)
