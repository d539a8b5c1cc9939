"""Sigmoid, tanh, GELU, swish, GLU: tables of narrow operands; softmax and log-softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from linger.chip import limits_of
from linger.chip.tables import curve_table, exponential_numbers, exponential_terms, rounds_once
from linger.ops.glu import GATE_EXP2

from .graph import F32, F64, I64, StandardGraph, code_limits
from .node import Node, writes

_Q25, _Q27 = 25, 27
_STORED = {8: np.int8, 16: np.int16, 32: np.int32}


def _look_up(n: Node, table: Any, out_bits: int) -> None:
    """Output 0: ``table[x - lowest code]``."""
    at = n.g.add(n.codes(0), -code_limits(n.bits())[0], F32)
    n.put(n.g.look_up(np.array(table, _STORED[out_bits]), at, F64 if out_bits == 32 else F32), out_bits)


@writes("iqSigmoid", "QSigmoid", "iqTanh", "QTanh")
def write_curve(n: Node) -> None:
    """The function at Q7."""
    function = "tanh" if n.op_type.endswith("Tanh") else "sigmoid"
    _look_up(n, curve_table(function, n.platform, n.bits(), n.scale("scale_x"), 8), 8)


@writes("QGelu", "QSwish")
def write_wide_curve(n: Node) -> None:
    """``sat(RSH(f(x), 27 - q_o))``."""
    bits, s = n.integer("o_bits", 8), _Q27 - n.scale("scale_o")
    if n.bits() == 32:
        n.refuse("a 32-bit operand; its table would have 2^32 entries")
    wide = np.array(curve_table(n.op_type[1:].lower(), n.platform, n.bits(), n.scale("scale_x"), 32), np.int64)
    rounded = (wide + (1 << s - 1) >> s) if s > 0 else wide
    _look_up(n, np.clip(rounded, *code_limits(bits)), bits)


@writes("GluInt")
def write_glu(n: Node) -> None:
    """``sat(RSH(a * gate(b), q_gate + q_x - q_o))``; the gate is rounded to 16 bits where its format has 15."""
    g, bits, dim = n.g, n.integer("o_bits", 8), n.integer("dim", -1)
    a, b = g.ops("Split", [n.codes(0)], 2, axis=dim)
    q = GATE_EXP2[limits_of(n.platform).formulas]
    gate = np.array(curve_table("sigmoid", n.platform, 8, n.scale("scale_x"), 8 if q == 7 else 32), np.int64)
    if q == 15:
        gate = gate + (1 << 15) >> 16
    chosen = g.look_up(gate.astype(np.int32), g.add(b, 128, F32))
    n.narrow(g.op("Mul", g.to(a, F64), chosen), q + n.scale("scale_x") - n.scale("scale_o"), bits)


@writes("SoftmaxInt", "QSoftmax", "LogSoftmaxInt")
def write_softmax(n: Node) -> None:
    """``sat_b(RSH(f(x), 15 - q_o))`` of rows."""
    g, exp2, bits, log = n.g, n.scale("scale_x"), n.bits(), n.op_type == "LogSoftmaxInt"
    rank, axis = len(n.shape(0)), n.integer("axis", -1) if n.has("axis") else n.integer("dim", -1)
    first = axis % rank if axis < 0 or limits_of(n.platform).softmax_axis else 1
    x = n.codes(0) if first == rank - 1 else g.op("Flatten", n.codes(0), axis=first)
    fine = g.scale(x if bits == 32 else g.to(x, F64), _Q25 - exp2)
    if bits == 8 and exp2 >= 1:  # nothing saturates: the difference of the codes says the term
        gap = g.op("Sub", g.op("ReduceMax", x, axes=[-1], keepdims=1), x)
        e = g.look_up(np.array(exponential_terms(n.platform, exp2, log), np.int32), gap)
        top = g.op("ReduceMax", fine, axes=[-1], keepdims=1) if log else ""
    else:
        fine = g.clip(fine, 32)
        top = g.op("ReduceMax", fine, axes=[-1], keepdims=1)
        top = g.op("Max", top, g.const(code_limits(32)[0] + 1.0, F64))
        e = _exponential(g, g.clip(g.op("Sub", fine, top), 32), rounds_once(n.platform, log))
    total = g.row_sum(e)
    y = _logarithms(g, fine, top, total) if log else _shares(g, e, total)
    y = g.clip(g.shift(y, 15 - n.scale("scale_o")), bits, low=n.low)
    y = y if bits == 32 else g.to(y, F32)
    n.put(y if first == rank - 1 else n.reshaped(y), bits)


def _shares(g: StandardGraph, e: str, total: str) -> str:
    """RSH(C * e, 38), C = 2 * floor(2**52 / sat_32(total)): int64, whose division floors."""
    whole = g.to(g.clip(total, 32), I64)
    c = g.scale(g.to(g.op("Div", g.ints(1 << 52), whole), F64), 1)
    return g.shift(g.op("Mul", c, e), 38)


def _exponential(g: StandardGraph, d: str, once: bool) -> str:
    """Terms in Q23 of d <= 0 in Q25, float64 integers."""
    numbers = exponential_numbers()
    x = g.product_shift(d, g.const(numbers.log2e, F64), 31)
    e = g.floor(x, -23)
    f = g.add(g.op("Sub", x, g.scale(e, 23)), -(2.0**23))
    y = g.const(numbers.powers[0], F64)
    for p in numbers.powers[1:4]:
        y = g.add(g.shift(g.op("Mul", y, f), 23), p)
    last, product = numbers.powers[4], g.op("Mul", y, f)

    def halved(more: int) -> str:
        """2**(e - more), e <= 0."""
        steps = g.op("Clip", g.add(g.op("Neg", e), more), g.const(0, F64), g.const(127, F64))
        return g.look_up(2.0 ** np.arange(0, -128, -1.0), steps)

    if once:  # RSH(product + last * 2**23, 22 - e)
        total = g.add(product, last * 2.0**23)
        return g.op("Floor", g.add(g.op("Mul", total, halved(22)), 0.5))
    return g.op("Floor", g.op("Mul", g.scale(g.add(g.shift(product, 23), last), 1), halved(0)))


def _logarithms(g: StandardGraph, x: str, top: str, total: str) -> str:
    """RSH(x - top, 10) - (ln(total) >> 1), the logarithm in Q16 by a table of 512."""
    numbers = exponential_numbers()
    t = g.clip(g.shift(total, 8), 32)
    odd = g.op("Sub", t, g.scale(g.floor(t, -1), 1))
    t = g.op("Add", t, g.op("Sub", g.const(1.0, F64), odd))  # the lowest bit is set
    passed = g.op("GreaterOrEqual", t, g.const(2.0 ** np.arange(32), F64))
    zeros = g.op("Sub", g.const(32.0, F64), g.row_sum(g.to(passed, F64)))  # leading ones, of 32 bits
    normal = g.op("Mul", t, g.look_up(2.0 ** np.arange(33), zeros))
    place = g.floor(g.add(normal, -(2.0**31)), -22)
    length = g.mul(g.op("Sub", g.const(16.0, F64), zeros), numbers.ln2)
    ln = g.op("Add", g.look_up(np.array(numbers.logarithms, np.int32), place), length)
    return g.op("Sub", g.shift(g.op("Sub", x, top), 10), g.floor(ln, -1))
