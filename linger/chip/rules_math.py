"""Rules of element-wise operators, concatenation, matrix products and changes of format."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import FLOAT, NodeFacts, rule, up
from .operators import OPERATORS
from .platforms import MAX_LEFT_BITS
from .rules_conv import rank, right_shift, widths
from .violation import Violation


def _same_shape(
    n: NodeFacts, remedy: str = "expand the smaller operand to the shape of the other"
) -> Iterator[Violation]:
    x, y = n.shape(0), n.shape(1)
    if x is not None and y is not None and x != y:
        yield n.error("operands of two shapes", f"{list(x)} and {list(y)}", "one shape", remedy)


def _operand_bits(n: NodeFacts, allowed: tuple[int, ...]) -> Iterator[Violation]:
    for i, x in enumerate(n.inputs):
        if x is not None and x.bits not in (None, FLOAT, *allowed) and not x.constant:
            remedy = "output_bits: 8 of the layer in front, or a Requant"
            yield n.error(f"width of input {i}", x.bits, f"one of {allowed}", remedy)


@rule("iqAdd")
def add(n: NodeFacts) -> Iterator[Violation]:
    """Sum of two tensors."""
    yield from _same_shape(n)
    yield from _operand_bits(n, OPERATORS["iqAdd"][n.platform].bits)
    q_x, q_y, q_o = n.exp2("scale_x"), n.exp2("scale_y"), n.exp2("scale_o")
    if q_x is None or q_y is None or q_o is None:
        return
    if q_o > min(q_x, q_y):
        yield n.error(
            "scale_o", f"2**{q_o}", f"at most 2**{min(q_x, q_y)}, the smaller scale of the operands", "retrain"
        )
    elif n.platform != "venus" and q_x == q_o < q_y:
        limit = (
            "with the result in PSRAM, where the packer's defaults do not put it, the second operand is shifted wrongly"
        )
        yield n.note("scale_y", f"2**{q_y}", limit)


@rule("iqSub")
def sub(n: NodeFacts) -> Iterator[Violation]:
    """The engines subtract from the buffer of the result."""
    q_x, q_o = n.exp2("scale_x"), n.exp2("scale_o")
    remedy = "export the model again: differences are written in products and sums"
    if q_x is not None and q_o is not None and q_x > q_o:
        yield n.hazard("difference", "", "right only with the result in PSRAM", remedy)
    else:
        yield n.broken("with scale_x = scale_o the engine subtracts from an uninitialised buffer", remedy)


@rule("iqMul")
def mul(n: NodeFacts) -> Iterator[Violation]:
    """Product of two tensors, per channel, or by a constant."""
    yield from _operand_bits(n, (8,))
    yield from right_shift(n, "scale_x", "scale_y")
    x, y = n.shape(0), n.shape(1)
    if x is None or y is None or y == () or x == y:
        return
    per_channel = len(x) == len(y) == 4 and y[1:] == (x[1], 1, 1)
    if not per_channel:
        remedy = "expand the smaller operand to the shape of the other"
        yield n.error("operands of two shapes", f"{list(x)} and {list(y)}", "one shape, or a value per channel", remedy)
        return
    if x[0] != 1:
        yield n.error("product per channel with batch", x[0], "1", "export with a batch of 1")
    if x[1] > x[2] * x[3]:
        remedy = "multiply before pooling, or expand the factor to the shape of the tensor"
        yield n.error("product per channel with", f"{x[1]} channels and {x[2] * x[3]} pixels", "C <= H*W", remedy)


@rule("iqDiv")
def div(n: NodeFacts) -> Iterator[Violation]:
    """Quotient by a constant; the 32-bit form divides two tensors."""
    wide = n.tensor(0).bits == 32
    if wide and n.chip.div_scales is None:
        yield n.error("division of 32-bit tensors", "", "int8 divided by a constant", "a product with the reciprocal")
    if not wide and n.has(1) and n.shape(1) not in (None, ()):
        remedy = "a product with the reciprocal, or keep the division in float"
        yield n.error("divisor", f"of shape {list(n.shape(1) or ())}", "one power of two, an initializer", remedy)
    c = n.tensor(1).scalar
    if wide or c is None:
        return
    if c <= 0 or int(c) & (int(c) - 1):
        yield n.error("divisor", c, "a positive power of two", "a product with the reciprocal")
        return
    q_x, q_y, q_o = n.exp2("scale_x"), n.exp2("scale_y"), n.exp2("scale_o")
    if q_x is not None and q_y is not None and q_o is not None:
        k = q_o - q_x + q_y - (int(c).bit_length() - 1)
        if k == 0 or k > MAX_LEFT_BITS:
            remedy = "a product with the reciprocal"
            yield n.error("shift of the quotient", k, f"below 0, or 1..{MAX_LEFT_BITS} bits to the left", remedy)


@rule("iqCat")
def cat(n: NodeFacts) -> Iterator[Violation]:
    """Tensors side by side."""
    yield from rank(n, 2, 3, 4)
    yield from widths(n)
    yield from _operand_bits(n, (8,))
    if len(n.inputs) < 2:
        yield n.error("inputs", len(n.inputs), "2 or more", "leave the concatenation out")
    q_o = n.exp2("scale_o")
    for i in range(len(n.inputs)):
        q_i = n.exp2(f"scale_x_{i}")
        if q_o is None or q_i is None:
            continue
        if q_i > q_o and not n.chip.cat_right:
            remedy = "the largest scale of the inputs as scale_o: export the model again"
            yield n.error(f"scale of input {i}", f"2**{q_i}", f"at most scale_o, 2**{q_o}", remedy)
        elif q_o - q_i > MAX_LEFT_BITS:
            remedy = "multiply the input by a constant first: export the model again"
            yield n.error(f"left shift of input {i}", q_o - q_i, f"at most {MAX_LEFT_BITS} bits", remedy)


@rule("BmmInt")
def bmm(n: NodeFacts) -> Iterator[Violation]:
    """Product of two stacks of matrices."""
    yield from rank(n, 2, 3)
    yield from _operand_bits(n, (8,))
    yield from widths(n)
    yield from right_shift(n, "scale_x", "scale_y")
    y = n.shape(1)
    if y is not None and len(y) >= 2 and n.chip.bmm_bytes:
        size = up(y[-2], 8) * up(y[-1], 4)
        if size > n.chip.bmm_bytes:
            remedy = "split the second matrix along its columns"
            yield n.error("second matrix", f"{y[-2]} x {y[-1]}, {size} bytes", f"{n.chip.bmm_bytes} bytes", remedy)


@rule("Requant")
def requant(n: NodeFacts) -> Iterator[Violation]:
    """Another scale or width."""
    yield from _operand_bits(n, (8,))
    bits, q_x, q_o = int(n.get("o_bits", 8)), n.exp2("scale_x"), n.exp2("scale_o")
    if q_x is None or q_o is None:
        return
    left = q_o - q_x
    if bits == 8 and left > MAX_LEFT_BITS:
        yield n.error("left shift", left, f"at most {MAX_LEFT_BITS} bits", "two steps, or a product with 64 first")
    if bits > 8 and left < 0:
        yield n.error("right shift of a wide result", -left, "left shifts only", "a scale_o of at least scale_x")


@rule("Quant")
def quant(n: NodeFacts) -> Iterator[Violation]:
    """A Quant behind a graph input is the application's; the others write int8 whatever they say."""
    bits = int(n.get("data_bits", 8))
    if bits != 8 and n.tensor(0).producer:
        yield n.error("data_bits", bits, "8 where the packer keeps the Quant", "input_bits: 8", refused=False)


@rule("Dequant")
def dequant(n: NodeFacts) -> Iterator[Violation]:
    """A Dequant that the packer keeps (no graph output behind it) reads int8."""
    bits = n.tensor(0).bits
    if bits is not None and bits > 8 and n.outputs and not n.outputs[0].output:
        yield n.error("width of a kept Dequant", bits, "8", "output_bits: 8 of the layer in front", refused=False)


@rule("iqPad")
def pad(n: NodeFacts) -> Iterator[Violation]:
    """Padding by a node of its own."""
    yield from rank(n, 4)
    mode = str(n.get("mode", "constant"))
    if OPERATORS["iqPad"][n.platform].kind != "native":
        reason = "the engine scrambles its result"
        yield n.broken(reason, "export the model again: padding is written in slices and iqCat")
    elif mode != "constant":
        names = {"reflect": "replicates the edge", "replicate": "reflects"}
        limit = f"'constant' only: its {mode!r} {names.get(mode, 'is unknown')}"
        yield n.error("mode", mode, limit, "export the model again: padding is written in slices and iqCat")


@rule("iqVar")
def var(n: NodeFacts) -> Iterator[Violation]:
    """Reduces axis 1 whatever is asked, into a buffer of another size."""
    reason = "the axis is not transmitted and larger shapes overflow the scratch memory"
    yield n.broken(reason, "a mean of squares, or keep it in float")
