"""LSTM and GRU layers: the products of all inputs first, then one Scan over the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linger.chip import limits_of

from .curves import write_segments
from .graph import EXACT, F32, F64, I64, Array, StandardGraph
from .node import Node, writes
from .sums import reach

if TYPE_CHECKING:
    from onnx import ValueInfoProto

_Q27, _Q11, _Q31 = 27, 11, 31


class _Step(NamedTuple):
    """What one step sees: the graph of the body, state and cell as float64 integers, and the input's product."""

    g: StandardGraph
    h: str
    c: str
    x: str
    w: Array
    b: Array


def _product(g: StandardGraph, x: str, w: Array, b: Array) -> str:
    """sat_32(x w' + b) in float64; x in float32."""
    w64 = w.astype(np.int64)
    kind = F32 if reach(w64, (1,), False).max() <= EXACT else F64
    y = g.op("MatMul", x if kind is F32 else g.to(x, F64), g.decoded(np.ascontiguousarray(w.T), kind))
    return g.clip(g.op("Add", y if kind is F64 else g.to(y, F64), g.decoded(b, F64)), 32)


def _scan(
    n: Node,
    gates: int,
    cell: bool,
    step: Callable[[_Step], tuple[str, str]],
    projected: Callable[[StandardGraph, str], str],
) -> None:
    """Outputs: all states, the last one, the last cell. ``step`` returns the new state in float32 and the new cell."""
    from onnx import TensorProto, helper

    g, count, hidden, x = n.g, n.n_inputs, n.integer("hidden_size"), n.codes(0)
    first = count - 4
    if count > 5:
        end = g.op("Reshape", g.to(n.value(1).name, I64), g.ints(1))
        x = g.op("Slice", x, g.ints(0), end, g.ints(1))
    batch = g.op("Slice", g.op("Shape", x), g.ints(0), g.ints(1))
    flat = g.op("Concat", batch, g.ints(hidden), axis=0)
    if count > 6:
        states = [g.op("Reshape", n.codes(2, F32), flat)]
        states += [g.op("Reshape", n.codes(3, F64), flat)] if cell else []
    else:
        states = [g.op("ConstantOfShape", flat, value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))]
        states += [g.to(states[0], F64)] if cell else []
    inputs = projected(g, _product(g, x, n.constant(first), n.constant(first + 2)))

    body = g.fork()
    names = [body.fresh(hint) for hint in ("h", "c", "x")]
    found = step(_Step(body, names[0], names[1], names[2], n.constant(first + 1), n.constant(first + 3)))
    ends = [*found[: 1 + cell], body.op("Identity", found[0])]
    float_, double = TensorProto.FLOAT, TensorProto.DOUBLE

    def port(name: str, kind: int, size: int = hidden) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["B", size])

    given = [port(names[0], float_)] + [port(names[1], double)] * cell + [port(names[2], double, gates * hidden)]
    kinds = [float_, *[double] * cell, float_]
    inner = helper.make_graph(
        body.nodes, body.fresh("step"), given, [port(name, kind) for name, kind in zip(ends, kinds, strict=True)]
    )
    back = [int(n.integer("go_forward", 1) == 0)]
    made = g.ops(
        "Scan", [*states, inputs], 2 + cell, body=inner, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
        scan_input_directions=back, scan_output_directions=back,
    )  # fmt: skip
    n.put(made[-1], 8)
    widths = (8, limits_of(n.platform).cell_bits)
    for i in range(min(n.n_outputs - 1, 1 + cell)):
        state = g.op("Unsqueeze", made[i], g.ints(0))
        n.put(g.to(state, F32) if widths[i] == 16 else state, widths[i], i + 1)


@writes("LSTMInt", "QLSTM")
def write_lstm(n: Node) -> None:
    """One layer in one direction."""
    platform, hidden, e_h = n.platform, n.integer("hidden_size"), n.scale("scale_o")
    narrow = limits_of(platform).cell_bits == 16
    q, wide = (_Q11, 16) if narrow else (_Q27, 32)
    e_x, e_w = n.scale("scale_x") + n.scale("scale_iw"), e_h + n.scale("scale_hw")
    functions = ["sigmoid"] * 2 * hidden + ["tanh"] * hidden + ["sigmoid"] * hidden

    def step(at: _Step) -> tuple[str, str]:
        g = at.g
        total = g.op("Add", at.x, g.bring(_product(g, at.h, at.w, at.b), e_w, q))
        v = write_segments(g, g.clip(total, wide), functions, platform)
        if narrow:
            i, f, z, o = g.ops("Split", [g.clip(g.shift(v, 8), 8)], 4, axis=-1)
            s = g.op("Add", g.op("Mul", at.c, f), g.op("Mul", i, z))
            cell = g.clip(g.shift(s, 7), 16)
            t, k = g.clip(g.shift(_tanh(g, g.clip(g.shift(s, 3), 16), platform), 8), 8), 14
        else:
            i, f, z, o = g.ops("Split", [g.shift(v, 16)], 4, axis=-1)
            s = g.op("Add", g.clip(g.op("Mul", at.c, f), 32), g.clip(g.op("Mul", i, z), 32))
            s = g.clip(g.shift(s, 3), 32)
            cell = g.shift(s, 12)
            t, k = g.shift(_tanh(g, s, platform), 16), 30
        return g.to(g.clip(g.shift(g.op("Mul", o, t), k - e_h), 8), F32), cell

    _scan(n, 4, True, step, lambda g, y: g.bring(y, e_x, q))


def _tanh(g: StandardGraph, x: str, platform: str) -> str:
    return write_segments(g, x, ["tanh"], platform)


def _sigmoids(g: StandardGraph, x: str, platform: str) -> list[str]:
    """Reset and update gate."""
    return g.ops("Split", [write_segments(g, x, ["sigmoid"], platform)], 2, axis=-1)


@writes("GRUInt", "QGRU")
def write_gru(n: Node) -> None:
    """One layer in one direction."""
    platform, hidden, e_h = n.platform, n.integer("hidden_size"), n.scale("scale_o")
    e_x, e_r = n.scale("scale_x") + n.scale("scale_iw"), e_h + n.scale("scale_hw")
    row, top = limits_of(platform), max(e_x, e_r)

    def candidate_of_state(at: _Step, gates: str, new: str) -> tuple[str, str]:
        """The reset gate meets the state (arcs)."""
        g, parts = at.g, (at.w[: 2 * hidden], at.b[: 2 * hidden])
        rz = g.bring(_product(g, at.h, *parts), e_r, _Q27)
        r, z = _sigmoids(g, g.clip(g.op("Add", gates, rz), 32), platform)
        h = g.to(g.clip(g.shift(g.op("Mul", r, g.to(at.h, F64)), _Q31), 8), F32)
        y = g.bring(_product(g, h, at.w[2 * hidden :], at.b[2 * hidden :]), e_r, _Q27)
        return z, _tanh(g, g.clip(g.op("Add", new, y), 32), platform)

    def candidate_of_product(at: _Step, gates: str, new: str) -> tuple[str, str]:
        """The reset gate meets the product (venusA)."""
        g = at.g
        y = g.scale(_product(g, at.h, at.w, at.b), top - e_r)
        y_gates, y_new = g.ops("Split", [y, g.ints(2 * hidden, hidden)], 2, axis=-1)
        r, z = _sigmoids(g, g.bring(g.clip(g.op("Add", gates, y_gates), 32), top, _Q27), platform)
        total = g.op("Add", new, g.product_shift(r, y_new, _Q31))
        return z, _tanh(g, g.bring(g.clip(total, 32), top, _Q27), platform)

    def candidate_of_16_bits(at: _Step, gates: str, new: str) -> tuple[str, str]:
        """The same in 16 bits (venus)."""
        g = at.g
        y = g.shift(_product(g, at.h, at.w, at.b), e_r - _Q11)
        y_gates, y_new = g.ops("Split", [y, g.ints(2 * hidden, hidden)], 2, axis=-1)
        r, z = _sigmoids(g, g.clip(g.op("Add", gates, y_gates), 16), platform)
        t = g.clip(g.shift(g.op("Mul", r, g.clip(y_new, 16)), 15), 16)
        return z, _tanh(g, g.clip(g.op("Add", t, g.clip(new, 16)), 16), platform)

    candidate = (
        candidate_of_state if row.gru_resets_first
        else candidate_of_16_bits if row.gru_updates_new
        else candidate_of_product
    )  # fmt: skip

    def step(at: _Step) -> tuple[str, str]:
        g = at.g
        gates, new = g.ops("Split", [at.x, g.ints(2 * hidden, hidden)], 2, axis=-1)
        z, t = candidate(at, gates, new)
        h = g.to(at.h, F64)
        if row.gru_updates_new:
            k = g.clip(g.shift(t, 15 - e_h), 16)
            k = g.clip(g.shift(g.op("Mul", z, g.clip(g.op("Sub", k, h), 16)), 15), 16)
            return g.to(g.clip(g.op("Add", k, h), 8), F32), ""
        k = g.shift(t, _Q31 - e_h)
        kept = g.product_shift(z, g.op("Sub", h, k), _Q31)
        return g.to(g.clip(g.op("Add", kept, k), 8), F32), ""

    def projected(g: StandardGraph, y: str) -> str:
        if candidate is candidate_of_product:
            return g.scale(y, top - e_x)
        return g.bring(y, e_x, _Q11 if row.gru_updates_new else _Q27)

    _scan(n, 3, False, step, projected)
