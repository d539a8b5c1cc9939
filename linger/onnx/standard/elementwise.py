"""Borders, changes of scale, and what is computed element by element."""

from __future__ import annotations

from .graph import F32, F64
from .node import Node, writes

_LONG = 23  # up to this shift rounding is exact in float32


@writes("Quant")
def write_quant(n: Node) -> None:
    """``sat_b(floor(x * 2**q + 0.5))`` in float32, above 16 bits in float64; NaN to 0. Integers given by the caller pass."""
    if n.is_quantized():
        n.put(n.codes(0), n.bits())
        return
    g, bits, x = n.g, n.integer("data_bits", 8), n.value(0)
    kind = F64 if bits > 16 else F32
    y = g.op("Where", g.op("IsNaN", x.name), g.const(0, F32), x.name)
    y = g.scale(y if kind is F32 else g.to(y, F64), n.scale("scale_x"), kind)
    n.put(g.clip(g.op("Floor", g.add(y, 0.5, kind)), bits, kind), bits)


@writes("Dequant")
def write_dequant(n: Node) -> None:
    """``float32(code) / 2**q``."""
    n.put(n.g.scale(n.codes(0, F32), -n.scale("scale_o"), F32))


@writes("Requant")
def write_requant(n: Node) -> None:
    """``sat_b(RSH(x, q_x - q_o))``."""
    bits, s = n.integer("o_bits", 8), n.scale("scale_x") - n.scale("scale_o")
    if s == 0 and bits == 8 and n.low is None:
        n.put_like(n.codes(0))
        return
    kind = F64 if bits == 32 else F32
    n.narrow(n.codes(0, kind), s, bits, kind)


@writes("iqDiv")
def write_div(n: Node) -> None:
    """int8 codes by a power of two."""
    if n.bits() == 32:
        n.refuse("standard operators have no form of the quotient of two 32-bit tensors")
    power = int(n.constant(1)).bit_length() - 1
    n.narrow(n.codes(0), n.scale("scale_x") + power - n.scale("scale_y") - n.scale("scale_o"), 8, F32)


@writes("iqAdd", "QAdd", "iqSub")
def write_add(n: Node) -> None:
    """``sat_b(sat_b(RSH(x)) + sat_b(RSH(y)))``, or the difference."""
    g, bits, o_exp2 = n.g, n.integer("o_bits", 8), n.scale("scale_o")
    kind, parts = F64 if bits == 32 else F32, []
    for i, name in enumerate(("scale_x", "scale_y")):
        s = n.scale(name) - o_exp2
        x = n.codes(i, kind)
        parts.append(g.clip(g.shift(x, s, kind), bits, kind) if s > 0 else x)  # in range already for s = 0
    n.narrow(g.op("Sub" if n.op_type == "iqSub" else "Add", *parts), 0, bits, kind)


@writes("iqMul", "QMul")
def write_mul(n: Node) -> None:
    """``sat_8(RSH(x * y, s))``; y has up to 32 bits."""
    s = n.scale("scale_x") + n.scale("scale_y") - n.scale("scale_o")
    kind = F64 if n.bits(1) == 32 or s > _LONG else F32
    n.narrow(n.g.op("Mul", n.codes(0, kind), n.codes(1, kind)), s, 8, kind)


@writes("iqCat", "QCat")
def write_cat(n: Node) -> None:
    """Each input in the scale of the result, side by side."""
    o_exp2, parts = n.scale("scale_o"), []
    for i in range(n.n_inputs):
        s, x = n.scale(f"scale_x_{i}") - o_exp2, n.codes(i)
        parts.append(n.g.clip(n.g.shift(x, s, F32), 8, F32) if s else x)
    joined = n.g.op("Concat", *parts, axis=n.integer("dim" if n.has("dim") else "axis"))
    n.put(joined if n.low is None else n.g.op("Relu", joined), 8)
