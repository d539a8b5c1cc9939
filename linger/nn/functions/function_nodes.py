"""iqSigmoid, iqTanh, SoftmaxInt, LogSoftmaxInt, GluInt, QGelu and QSwish nodes: exported chip functions on codes."""

from __future__ import annotations

import math

from linger.chip import OPERATORS, curve_of, find_curve
from linger.nn.nodes.operands import limits, operand, out_bits, require_8_bits, right_shift
from linger.ops.activation import Q27, activation_codes
from linger.ops.elementwise import requant_codes
from linger.ops.glu import GATE_EXP2, glu_codes
from linger.ops.softmax import Q15, softmax_codes
from linger.runtime.graph import NodeReader, reads

_LONGEST_ROW = 2048


def _read_curve(node: NodeReader, function: str, widths: tuple[int, ...]) -> None:
    """The function at Q7; the operand is brought to Q27 (venus: Q11), saturating."""
    require_8_bits(node, "o_bits")
    value = node.codes(0)
    if value.bits not in widths:
        raise node.error(
            f"input 0 must be int{' or int'.join(map(str, widths))} on {node.platform}, got int{value.bits}"
        )
    x, exp2 = operand(node, 0, "scale_x", bits=value.bits)
    if node.integer("x_bits", value.bits) not in (value.bits, 8):
        raise node.error(f"attribute 'x_bits' must be {value.bits}, got {node.integer('x_bits')}")
    lowest, highest = limits(node).curve_exp2
    if not lowest <= exp2 <= highest:
        raise node.error(f"scale_x must be 2**{lowest}..2**{highest}, got 2**{exp2}")
    if node.scale("scale_o") != 7:
        raise node.error(f"scale_o must be 128: the result is always Q7, got 2**{node.scale('scale_o')}")
    node.room(tuple(x.shape))
    node.put(0, activation_codes(x, exp2, curve_of(function, node.platform).table, 8), 7)


@reads("iqSigmoid", "QSigmoid")
def read_sigmoid(node: NodeReader) -> None:
    """int8 operands; venus: int16."""
    _read_curve(node, "sigmoid", limits(node).sigmoid_bits)


@reads("iqTanh", "QTanh")
def read_tanh(node: NodeReader) -> None:
    """int16 operands; arcs and venusA also int8, as files for later engines have them."""
    _read_curve(node, "tanh", limits(node).tanh_bits)


def _axis(node: NodeReader, rank: int) -> int:
    """First axis of the block that a row is: the engine works on all that follows it, arcs reads every axis >= 0 as 1."""
    name = "axis" if node.has("axis") else "dim"
    axis = node.integer(name, -1)
    if not -rank <= axis < rank or rank == 0:
        raise node.error(f"attribute {name!r} must be in [{-rank}, {rank - 1}], got {axis}")
    first = axis % rank if axis < 0 or limits(node).softmax_axis else 1
    if first >= rank:
        raise node.error(f"arcs reads axis {axis} as 1, which an input of rank {rank} lacks; use -1")
    return first


def _read_softmax(node: NodeReader, log: bool) -> None:
    cell = OPERATORS["LogSoftmaxInt" if log else "SoftmaxInt"][node.platform]
    if cell.kind != "native":
        none = OPERATORS["SoftmaxInt"][node.platform].kind != "native"
        why = "no simulator confirms it" if none else "its engine takes the logarithm of raw integers"
        raise node.error(f"has no defined arithmetic on {node.platform}: {why}")
    value, widths = node.codes(0), cell.bits
    if value.bits not in widths:
        raise node.error(
            f"input 0 must be int{' or int'.join(map(str, widths))} on {node.platform}, got int{value.bits}"
        )
    x, exp2 = operand(node, 0, "scale_x", bits=value.bits)
    if not -5 <= exp2 <= 25:
        raise node.error(f"scale_x must be 2**-5..2**25, got 2**{exp2}")
    first = _axis(node, x.dim())
    if x.shape[first] > _LONGEST_ROW:
        raise node.error(f"axis {first} has {x.shape[first]} elements, the chip takes at most {_LONGEST_ROW}")
    if x.numel() == 0:
        raise node.error("input 0 is empty")
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, Q15 - o_exp2, "15 - q_o")
    node.room(tuple(x.shape))
    rows = x.reshape(-1, math.prod(x.shape[first:]))
    y = softmax_codes(rows, exp2, limits(node).formulas, log, shift, value.bits)
    node.put(0, y.reshape(x.shape), o_exp2)


@reads("SoftmaxInt", "QSoftmax")
def read_softmax(node: NodeReader) -> None:
    """``sat_b(RSH(softmax, 15 - q_o))`` of rows, b the width of the operand."""
    _read_softmax(node, False)


@reads("LogSoftmaxInt")
def read_log_softmax(node: NodeReader) -> None:
    """``sat_b(RSH(log_softmax, 15 - q_o))`` of rows, b the width of the operand; venusA."""
    _read_softmax(node, True)


@reads("GluInt")
def read_glu(node: NodeReader) -> None:
    """``sat(RSH(a * gate(b), q_gate + q_x - q_o))``, a and b the halves of an axis."""
    cell = OPERATORS["GluInt"][node.platform]
    if cell.kind != "native":
        raise node.error(f"does not exist on {node.platform}")
    require_8_bits(node, "x_bits")
    bits = out_bits(node, cell.bits)
    x, exp2 = operand(node, 0, "scale_x")
    dim = node.integer("dim", -1)
    if not -x.dim() <= dim < x.dim() or x.shape[dim] % 2:
        raise node.error(f"attribute 'dim' must be an axis of even length of {tuple(x.shape)}, got {dim}")
    if not -3 <= exp2 <= 27:
        raise node.error(f"scale_x must be 2**-3..2**27, got 2**{exp2}")
    o_exp2, chip = node.scale("scale_o"), limits(node).formulas
    shift = right_shift(node, GATE_EXP2[chip] + exp2 - o_exp2, f"{GATE_EXP2[chip]} + q_x - q_o", limits(node).glu_shift)
    node.room(tuple(x.shape))
    node.put(0, glu_codes(x.movedim(dim, -1), exp2, chip, shift, bits).movedim(-1, dim), o_exp2)


def _read_wide(node: NodeReader, function: str) -> None:
    row = find_curve(function, node.platform)
    if row is None:
        raise node.error(f"{node.platform} has no {function}")
    bits = out_bits(node, row.bits)
    value = node.codes(0)
    x, exp2 = operand(node, 0, "scale_x", bits=value.bits)
    if not -3 <= exp2 <= 27:
        raise node.error(f"scale_x must be 2**-3..2**27, got 2**{exp2}")
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, Q27 - o_exp2, "27 - q_o")
    node.room(tuple(x.shape))
    node.put(0, requant_codes(activation_codes(x, exp2, row.table, 32), shift, bits), o_exp2)


@reads("QGelu")
def read_gelu(node: NodeReader) -> None:
    """``sat(RSH(gelu, 27 - q_o))``; venusA."""
    _read_wide(node, "gelu")


@reads("QSwish")
def read_swish(node: NodeReader) -> None:
    """``sat(RSH(swish, 27 - q_o))``; venusA."""
    _read_wide(node, "swish")
