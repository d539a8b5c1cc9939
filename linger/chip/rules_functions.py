"""Rules of the chip functions: sigmoid, tanh, softmax, GLU, LayerNorm, ArgMax."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import NodeFacts, rule, up
from .functions import find_curve
from .nearest import nearest
from .operators import OPERATORS
from .rules_conv import widths
from .violation import Violation

_SCRATCH = "the packer reserves less scratch than the engine writes: what lies behind it may be overwritten"
_PLACE = "compare the packed model with linger.onnx.OnnxRunner; reserve more scratch when packing"
_ROW = 2048  # elements of a softmax
_SUM = 256  # elements near the maximum that the sum of a softmax holds
_LATER = "a later engine"
_WRAP = 131072  # N * s2 below 2**31 means N * N below this at full scale


def _seven_bits(n: NodeFacts) -> Iterator[Violation]:
    q_o = n.exp2("scale_o")
    if q_o is not None and q_o != 7:
        yield n.error("scale_o", f"2**{q_o}", "2**7: the engine gives nothing else", "export the model again")


@rule("iqSigmoid", "iqTanh")
def sigmoid(n: NodeFacts) -> Iterator[Violation]:
    """Width and scale of the argument; what engine 562ddc7 makes of them."""
    yield from _seven_bits(n)
    q_x, bits, tanh = n.exp2("scale_x"), n.tensor(0).bits, n.op_type == "iqTanh"
    allowed = n.chip.tanh_bits if tanh else n.chip.sigmoid_bits
    finest, (lowest, highest) = n.chip.curve_finest, n.chip.curve_exp2
    if bits not in (None, *allowed):
        remedy = "output_bits" + ("" if 8 in allowed else ": 16") + " of the layer in front"
        remedy += "" if 8 in allowed else ", or a Requant"
        yield n.error("width of the input", bits, " or ".join(map(str, allowed)), remedy)
    if finest is not None:
        if q_x is not None and q_x < finest:
            limit = f"at least 2**{finest}: the engine reads coarser codes as 2**{finest} without scaling them up"
            yield n.error("scale_x", f"2**{q_x}", limit, f"a Requant to 16 bits and 2**{finest} in front")
        return
    if q_x is not None and not lowest <= q_x <= highest:
        limit = f"2**{lowest}..2**{highest}: its multiplier 2**({highest} - q) has 32 bits"
        yield n.error("scale_x", f"2**{q_x}", limit, "an input on a finer scale, or keep the function in float")
    elif tanh and n.revision.lacks("tanh"):
        limit = "engine 562ddc7 reads its input as int32 and returns 0; later engines compute it"
        yield n.error("engine revision of", "iqTanh", limit, nearest("tanh", _LATER), refused=False)
    elif n.revision.lacks("coarse sigmoid") and not tanh and q_x is not None and q_x < 13:
        limit = f"engine 562ddc7 multiplies by 2**{27 - q_x} in 16 bits and is right from 2**13 on; later engines always are"
        yield n.error("engine revision of", "iqSigmoid", limit, nearest("sigmoid", _LATER), refused=False)
    if n.platform == "venusA" and not tanh:
        yield n.hazard("sigmoid", "", _SCRATCH, nearest("sigmoid", _LATER))


@rule("QGelu", "QSwish")
def gelu(n: NodeFacts) -> Iterator[Violation]:
    """A kernel of venusA for which the packer has no operator."""
    if find_curve("gelu" if n.op_type == "QGelu" else "swish", n.platform) is None:
        yield n.broken("the chip has no such function", "keep it in float")
        return
    limit = "packer 562ddc7 has no such operator; the chip's library has the function"
    if n.revision.lacks("gelu"):
        remedy = nearest("gelu" if n.op_type == "QGelu" else "silu", "a later packer")
        yield n.error("packer revision for", n.op_type, limit, remedy, refused=False)


@rule("SoftmaxInt", "LogSoftmaxInt")
def softmax(n: NodeFacts) -> Iterator[Violation]:
    """Axis, length, widths, and the chips that compute something else."""
    shape, bits = n.shape(0), n.tensor(0).bits
    native = OPERATORS["SoftmaxInt"][n.platform].kind == "native"
    if native and OPERATORS[n.op_type][n.platform].kind != "native":
        reason = "the engine takes the logarithm of the raw integers"
        yield n.broken(reason, "softmax on the chip and the logarithm in the application")
        return
    allowed = OPERATORS[n.op_type][n.platform].bits
    if bits is not None and bits not in allowed:
        yield n.error("width of the input", bits, f"one of {allowed}", "output_bits of the layer in front")
    q_o = n.exp2("scale_o")
    if q_o is not None and q_o > (15 if native else 25):
        yield n.error("scale_o", f"2**{q_o}", "at most 2**15", "a coarser scale_o")
    if not native:
        limit = "operators whose arithmetic a simulator confirms: +-1 in Q15 is possible"
        yield n.error("operator", n.op_type, limit, "keep it in float")
        return
    if shape is None:
        return
    axis = int(n.get("axis", n.get("dim", -1)))
    at, length = axis % len(shape), shape[axis % len(shape)]
    alone = all(s == 1 for s in shape[at + 1 :])
    arcs_axis = not n.chip.softmax_axis and axis >= 0 and not (axis == 1 and len(shape) == 2)
    if not alone or arcs_axis and axis != 1:
        limit = (
            "the last axis, written as -1" if arcs_axis else "the last axis: the engine works on all that follows it"
        )
        yield n.error("axis", axis, limit, "transpose the axis to the end")
    if length > _ROW:
        yield n.error("elements of a row", length, f"at most {_ROW}", "split the row in the application")
    elif length > _SUM:
        limit = f"the sum saturates when more than about {_SUM} elements are close to the maximum"
        yield n.warning("elements of a row", length, limit, "shorter rows")
    if n.platform == "venusA":
        rows = 1
        for s in shape[:at]:
            rows *= s
        if bits == 32 and rows > 4:
            yield n.error("rows of a 32-bit tensor", rows, "at most 4: the scratch areas overlap", "8 or 16 bits")
        if n.op_type == "LogSoftmaxInt" or bits not in (None, 8) or not n.revision.scratch:
            yield n.hazard(n.op_type, f"of {bits} bits" if bits else "", _SCRATCH, _LATER)


@rule("LayerNormInt")
def layer_norm(n: NodeFacts) -> Iterator[Violation]:
    """Normalised size, parameters, scales."""
    shape, gamma = n.shape(0), n.tensor(1)
    q_w, q_o = n.exp2("scale_w"), n.exp2("scale_o")
    if not n.has(2):
        yield n.error("beta", "none", "a beta in any case, of zeros", "export the model again")
    yield from widths(n)
    if q_w is not None and q_o is not None and 10 + q_w - q_o < 0:
        yield n.error("scale_o", f"2**{q_o}", f"at most 2**{10 + q_w}", "a coarser scale_o")
    wanted = n.chip.gamma_bits
    if gamma.bits is not None and gamma.bits != wanted:
        yield n.error("width of gamma", gamma.bits, wanted, "export the model again")
    size = gamma.size
    if size is not None:
        if int(n.get("w_bits", 8)) == 4 and size % 32:
            yield n.error("4-bit gamma of", f"{size} elements", "multiples of 32", "weight_bits: 8 for this layer")
        if size * size >= _WRAP:
            limit = "the sum of squares wraps at 32 bits for inputs at full scale"
            yield n.warning("normalised size", size, limit, "at most 362 elements, or a coarser input scale")
        if size < n.chip.norm_least:
            yield n.error("normalised size", size, f"at least {n.chip.norm_least}", "keep it in float")
    if shape is not None:
        if len(shape) < 3:
            yield n.error("rank", len(shape), "3 or more", "unsqueeze the input")
        elif size is not None:
            last = 1 if size == shape[-1] else 2
            if size != shape[-1] and size != shape[-1] * shape[-2]:
                yield n.error("normalised size", size, "the last axis, or the last two", "reshape the input")
            leading = shape[:-3]
            if any(s != 1 for s in leading) or last == 2 and len(shape) < 3:
                yield n.error("leading axes", list(leading), "1", "export with a batch of 1, or reshape to rank 3")
    if not n.revision.scratch:
        yield n.warning("LayerNormInt", "", _SCRATCH, _PLACE)


@rule("GluInt")
def glu(n: NodeFacts) -> Iterator[Violation]:
    """Gated linear unit."""
    shape = n.shape(0)
    if OPERATORS["GluInt"][n.platform].kind != "native":
        yield n.broken("the engine does not implement it", "a product of one half with the sigmoid of the other")
        return
    if n.revision.lacks("glu"):
        limit = "engine 562ddc7 never applies the gate; later revisions do"
        yield n.error(
            "engine revision of", "GluInt", limit, "a later engine, or a product with iqSigmoid", refused=False
        )
    yield from widths(n)
    if shape is None:
        return
    dim = int(n.get("dim", -1))
    if dim % len(shape) != len(shape) - 1:
        yield n.error("dim", dim, f"the last axis, {len(shape) - 1}", "transpose the axis to the end")
    elif dim < 0:
        yield n.error("dim", dim, f"{len(shape) - 1}: a negative axis under-reserves scratch", "export the model again")
    rows = 1
    for s in shape[:-1]:
        rows *= s
    size = up(rows, 8) * up(shape[-1], 2)
    if size > 32768:
        yield n.error("input", f"{rows} x {shape[-1]}, {size} bytes", "32768 bytes", "fewer rows at a time")


@rule("ArgMax")
def arg_max(n: NodeFacts) -> Iterator[Violation]:
    """The last axis of one sample."""
    shape, bits = n.shape(0), n.tensor(0).bits
    if bits == 0:
        return
    if bits is not None and bits not in n.chip.argmax_bits:
        yield n.error("width of the input", bits, f"one of {n.chip.argmax_bits}", "output_bits of the layer in front")
    if shape is None:
        return
    axis = int(n.get("axis", -1))
    if axis not in (-1, len(shape) - 1):
        yield n.error("axis", axis, "the last axis", "transpose the axis to the end")
    if shape[0] != 1:
        yield n.error("batch of ArgMax", shape[0], "1", "export with a batch of 1")
