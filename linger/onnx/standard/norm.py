"""LayerNormInt: exact statistics in float64, the wrap at 32 bits, the root by its table of 1024."""

from __future__ import annotations

import math

import numpy as np

from linger.chip import limits_of
from linger.chip.tables import layer_norm_eps
from linger.ops.layer_norm import NORM_EXP2

from .graph import F64, I64
from .node import Node, writes
from .sums import wrapped

_LONGEST = 1 << 19
_LENGTHS = 63  # of a variance below 2**63
_ROOT = np.array([0] * 256 + [min(32767, math.isqrt((1 << 38) // k)) for k in range(256, 1024)])
_NONE = 32767  # the factor of rows whose wrapped variance is not positive; they are looked up at 0
_ROOT[0] = _NONE


@writes("LayerNormInt", "QLayerNorm2d")
def write_layer_norm(n: Node) -> None:
    """Rows of as many elements as gamma has."""
    g, gamma, beta = n.g, n.constant(1), n.constant(2)
    size = gamma.size
    if size > _LONGEST:
        n.refuse(f"rows of {size} elements; up to {_LONGEST} their statistics are exact in float64")
    x = g.op("Reshape", n.codes(0, F64), g.ints(-1, size))
    total, squares = g.row_sum(x), g.row_sum(g.op("Mul", x, x))
    d = g.op("Sub", wrapped(g, g.mul(squares, size), 32), wrapped(g, g.op("Mul", total, total), 32))
    d = g.op("Add", g.to(d, I64), g.ints(layer_norm_eps(n.scale("scale_x"), size)))  # up to 2**63: int64
    passed = g.op("GreaterOrEqual", d, g.const([1 << k for k in range(_LENGTHS)], I64))
    length = g.row_sum(g.to(passed, F64))
    half = np.array([(k + 1) // 2 for k in range(_LENGTHS + 1)])
    up, down = (np.array([1 << int(max(v, 0)) for v in sign * (10 - 2 * half)], I64) for sign in (1, -1))
    at = g.to(length, I64)
    i = g.op("Div", g.op("Mul", d, g.op("Gather", g.const(up), at)), g.op("Gather", g.const(down), at))
    factor = g.op("Gather", g.const(_ROOT, F64), g.op("Max", i, g.ints(0)))
    v = g.op("Mul", g.op("Sub", g.mul(x, size), total), factor)
    v = g.op("Floor", g.add(g.op("Mul", v, g.op("Gather", g.const(2.0 ** (-4.0 - half), F64), at)), 0.5))
    v = g.op("Mul", g.clip(v, limits_of(n.platform).norm_bits), g.decoded(gamma, F64))
    v = g.op("Add", g.clip(v, 32), g.decoded(beta, F64))
    n.narrow(n.reshaped(v), NORM_EXP2 + n.scale("scale_w") - n.scale("scale_o"), 8)
