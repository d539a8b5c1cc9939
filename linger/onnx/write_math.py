"""Float arithmetic, comparisons, reductions and casts as standard ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .write_call import CODES, Call, Piece, Writer, Written, add, in_file, ints, writes

# ---- one operand, one node

_SAME = {
    "torch.abs Tensor.abs Tensor.__abs__ torch.absolute Tensor.absolute": "Abs",
    "torch.neg Tensor.neg Tensor.__neg__ torch.negative Tensor.negative": "Neg",
    "torch.exp Tensor.exp": "Exp",
    "torch.log Tensor.log": "Log",
    "torch.sqrt Tensor.sqrt": "Sqrt",
    "torch.reciprocal Tensor.reciprocal": "Reciprocal",
    "torch.floor Tensor.floor": "Floor",
    "torch.ceil Tensor.ceil": "Ceil",
    "torch.sign Tensor.sign": "Sign",
    "torch.sin Tensor.sin": "Sin",
    "torch.cos Tensor.cos": "Cos",
    "torch.tan Tensor.tan": "Tan",
    "torch.asin Tensor.asin torch.arcsin Tensor.arcsin": "Asin",
    "torch.acos Tensor.acos torch.arccos Tensor.arccos": "Acos",
    "torch.atan Tensor.atan torch.arctan Tensor.arctan": "Atan",
    "torch.sinh Tensor.sinh": "Sinh",
    "torch.cosh Tensor.cosh": "Cosh",
    "torch.erf Tensor.erf special.erf": "Erf",
}


def unary(op_type: str) -> Writer:
    """An operator of the input alone."""
    return lambda c: c.node(op_type, c("input", c.dtype))


for _spellings, _op in _SAME.items():
    add(_spellings, "input inplace=False", unary(_op))


@writes("torch.round Tensor.round Tensor.__round__", "input decimals=0")
def _round(c: Call) -> Written:
    return c.node("Round", c()) if c["decimals"] == 0 else None


@writes("torch.rsqrt Tensor.rsqrt", "input")
def _rsqrt(c: Call) -> Written:
    return c.node("Reciprocal", c.node("Sqrt", c("input", c.dtype)))


@writes("torch.square Tensor.square", "input")
def _square(c: Call) -> Written:
    return c.node("Mul", c(), c())


@writes("torch.log2 Tensor.log2", "input")
def _log2(c: Call) -> Written:
    return c.node("Mul", c.node("Log", c("input", c.dtype)), 1.0 / math.log(2.0))


@writes("torch.log10 Tensor.log10", "input")
def _log10(c: Call) -> Written:
    return c.node("Mul", c.node("Log", c("input", c.dtype)), 1.0 / math.log(10.0))


# ---- two operands


def _pair(c: Call) -> tuple[Piece, Piece]:
    """Both operands in the result's type; ``other`` times ``alpha`` where one is given."""
    other, alpha = c("other", c.dtype), c.named.get("alpha", 1)
    return c("input", c.dtype), other if alpha == 1 else c.node("Mul", other, alpha)


def _binary(op_type: str) -> Writer:
    return lambda c: c.node(op_type, *_pair(c))


def _reflected(op_type: str) -> Writer:
    return lambda c: c.node(op_type, *reversed((c("input", c.dtype), c("other", c.dtype))))


add("torch.add Tensor.add Tensor.__add__ Tensor.__radd__ operator.add", "input other alpha=1", _binary("Add"))
add(
    "torch.sub Tensor.sub Tensor.__sub__ operator.sub torch.subtract Tensor.subtract",
    "input other alpha=1",
    _binary("Sub"),
)
add(
    """torch.mul Tensor.mul Tensor.__mul__ Tensor.__rmul__ operator.mul torch.multiply Tensor.multiply""",
    "input other",
    _binary("Mul"),
)
add("torch.maximum Tensor.maximum", "input other", _binary("Max"))
add("torch.minimum Tensor.minimum", "input other", _binary("Min"))
add("torch.pow Tensor.pow Tensor.__pow__ operator.pow", "input other|input exponent", lambda c: _power(c))
add("Tensor.__rpow__", "input other", _reflected("Pow"))
add("Tensor.__rtruediv__ Tensor.__rdiv__", "input other", _reflected("Div"))


def _power(c: Call) -> Written:
    base, exponent = c["input"], c.named.get("other", c.named.get("exponent"))
    if not c.dtype.is_floating_point:
        return None
    return c.node("Pow", c.of(base, c.dtype), c.of(exponent, c.dtype))


@writes("torch.rsub Tensor.__rsub__", "input other alpha=1")
def _rsub(c: Call) -> Written:
    x: Piece = c("input", c.dtype)
    return c.node("Sub", c("other", c.dtype), x if c["alpha"] == 1 else c.node("Mul", x, c["alpha"]))


@writes(
    """torch.div Tensor.div Tensor.__truediv__ Tensor.__div__ operator.truediv torch.divide Tensor.divide
    torch.true_divide Tensor.true_divide""",
    "input other rounding_mode=None",
)
def _div(c: Call) -> Written:
    if c["rounding_mode"] is not None:
        c.refuse("division is written without rounding_mode")  # torch corrects the quotient, Floor(Div) does not
    return c.node("Div", *_pair(c))


@writes("torch.addcmul Tensor.addcmul", "input tensor1 tensor2 value=1")
def _addcmul(c: Call) -> Written:
    product = c.node("Mul", c("tensor1", c.dtype), c("tensor2", c.dtype))
    return c.node("Add", c("input", c.dtype), product if c["value"] == 1 else c.node("Mul", product, c["value"]))


@writes("torch.addcdiv Tensor.addcdiv", "input tensor1 tensor2 value=1")
def _addcdiv(c: Call) -> Written:
    quotient = c.node("Div", c("tensor1", c.dtype), c("tensor2", c.dtype))
    return c.node("Add", c("input", c.dtype), quotient if c["value"] == 1 else c.node("Mul", quotient, c["value"]))


# ---- comparisons and logic


def _compared(c: Call) -> tuple[Piece, Piece]:
    common = in_file(torch.result_type(c["input"], c["other"]))
    return c("input", common), c("other", common)


def _compare(op_type: str, negated: bool = False) -> Writer:
    def write(c: Call) -> Written:
        if c.dtype != torch.bool:
            return None
        a, b = _compared(c)
        found = c.node(op_type, a, b)
        return c.node("Not", found) if negated else found

    return write


def _or_equal(op_type: str) -> Writer:
    """With Or, because GreaterOrEqual came with opset 12; unlike Not(Less) it is false for NaN, as in torch."""

    def write(c: Call) -> Written:
        if c.dtype != torch.bool:
            return None
        a, b = _compared(c)
        return c.node("Or", c.node(op_type, a, b), c.node("Equal", a, b))

    return write


for _name, _more, _write in (
    ("gt", "greater", _compare("Greater")),
    ("lt", "less", _compare("Less")),
    ("ge", "greater_equal", _or_equal("Greater")),
    ("le", "less_equal", _or_equal("Less")),
    ("eq", "eq", _compare("Equal")),
    ("ne", "not_equal", _compare("Equal", negated=True)),
):
    _forms = f"torch.{_name} Tensor.{_name} Tensor.__{_name}__ operator.{_name} torch.{_more} Tensor.{_more}"
    add(_forms, "input other", _write)


def _logic(op_type: str) -> Writer:
    def write(c: Call) -> Written:
        return c.node(op_type, c("input", torch.bool), c("other", torch.bool)) if c.dtype == torch.bool else None

    return write


for _op, _name in (("And", "and"), ("Or", "or"), ("Xor", "xor")):
    _forms = (
        f"torch.logical_{_name} Tensor.logical_{_name} torch.bitwise_{_name} Tensor.bitwise_{_name} operator.{_name}_"
    )
    add(f"{_forms} operator.{_name} Tensor.__{_name}__ Tensor.__r{_name}__", "input other", _logic(_op))


@writes(
    "torch.logical_not Tensor.logical_not torch.bitwise_not Tensor.bitwise_not Tensor.__invert__ operator.invert",
    "input",
)
def _not(c: Call) -> Written:
    return c.node("Not", c("input", torch.bool)) if c.dtype == torch.bool else None


@writes("torch.isnan Tensor.isnan", "input")
def _isnan(c: Call) -> Written:
    return c.node("IsNaN", c("input", torch.float32))


# ---- limits


def clip(c: Call, low: Any, high: Any) -> Written:
    """min(max(x, low), high): Clip where the limits are numbers."""
    numbers = all(v is None or isinstance(v, (int, float)) for v in (low, high))
    if c.dtype.is_floating_point and numbers and (low is None or high is None or low <= high):
        return c.node("Clip", c("input", c.dtype), *(None if v is None else c.of(v, c.dtype) for v in (low, high)))
    y: Piece = c("input", c.dtype)
    for op_type, limit in (("Max", low), ("Min", high)):
        if limit is not None:
            y = c.node(op_type, y, c.of(limit, c.dtype))
    return y


add("torch.clamp Tensor.clamp torch.clip Tensor.clip", "input min=None max=None", lambda c: clip(c, c["min"], c["max"]))
add("torch.clamp_min Tensor.clamp_min", "input min", lambda c: clip(c, c["min"], None))
add("torch.clamp_max Tensor.clamp_max", "input max", lambda c: clip(c, None, c["max"]))


# ---- reductions


def reduce(c: Call, op_type: str, x: Piece, axes: list[int] | None, keep: bool) -> Piece:
    """One reduction of a tensor that has the rank of the call's input; all axes where ``axes`` is None."""
    if c.rank == 0:
        return x
    chosen = {} if axes is None else {"axes": axes}
    return c.node(op_type, x, keepdims=int(keep), **chosen)


def _reduction(op_type: str) -> Writer:
    return lambda c: reduce(c, op_type, c("input", c.dtype), c.axes(), bool(c["keepdim"]))


_REDUCE = "input dim=None keepdim=False dtype=None"
add("torch.mean Tensor.mean", _REDUCE, _reduction("ReduceMean"))
add("torch.sum Tensor.sum", _REDUCE, _reduction("ReduceSum"))
add("torch.amax Tensor.amax", "input dim=None keepdim=False", _reduction("ReduceMax"))
add("torch.amin Tensor.amin", "input dim=None keepdim=False", _reduction("ReduceMin"))
add("torch.logsumexp Tensor.logsumexp special.logsumexp", "input dim keepdim=False", _reduction("ReduceLogSumExp"))


def _extreme(reduced: str, position: str, joined: str) -> Writer:
    """``max`` and ``min``: of everything, of two tensors, or values and positions along one axis."""

    def write(c: Call) -> Written:
        other = c.named["other"] if "other" in c.named else c["dim"]
        if isinstance(other, Tensor):
            return c.node(joined, c("input", c.dtype), c.of(other, c.dtype))
        if other is None:
            return reduce(c, reduced, c(), None, False)
        if c.rank == 0:
            return None
        axis, keep = int(other) % c.rank, bool(c["keepdim"])
        return reduce(c, reduced, c(), [axis], keep), c.node(position, c(), axis=axis, keepdims=int(keep))

    return write


_EXTREME = "input dim=None keepdim=False|input other"
add("torch.max Tensor.max", _EXTREME, _extreme("ReduceMax", "ArgMax", "Max"))
add("torch.min Tensor.min", _EXTREME, _extreme("ReduceMin", "ArgMin", "Min"))


def _position(op_type: str) -> Writer:
    def write(c: Call) -> Written:
        if c["dim"] is not None and c.rank:
            return c.node(op_type, c(), axis=c.axis(), keepdims=int(bool(c["keepdim"])))
        if c["keepdim"]:
            return None
        return c.node(op_type, c.node("Reshape", c(), ints(-1)), axis=0, keepdims=0)

    return write


add("torch.argmax Tensor.argmax", "input dim=None keepdim=False", _position("ArgMax"))
add("torch.argmin Tensor.argmin", "input dim=None keepdim=False", _position("ArgMin"))


def _variance(c: Call) -> Piece | None:
    dim, correction = c["dim"], c.named.get("correction")
    unbiased = dim if isinstance(dim, bool) else c.named.get("unbiased", True)
    if correction is None:
        correction = 1 if unbiased or unbiased is None else 0
    axes = None if isinstance(dim, bool) else c.axes()
    count = math.prod(c.x.shape[a] for a in (range(c.rank) if axes is None else axes))
    if c.rank == 0 or count <= correction:
        return None
    off = c.node("Sub", c(), reduce(c, "ReduceMean", c(), axes, True))
    total = reduce(c, "ReduceSum", c.node("Mul", off, off), axes, bool(c["keepdim"]))
    return c.node("Div", total, float(count - correction))


def _deviation(c: Call) -> Written:
    variance = _variance(c)
    return None if variance is None else c.node("Sqrt", variance)


_SPREAD = "input dim=None unbiased=True keepdim=False correction=None"
add("torch.var Tensor.var", _SPREAD, _variance)
add("torch.std Tensor.std", _SPREAD, _deviation)


def _norm(c: Call, p: Any, axes: list[int] | None, keep: bool) -> Piece:
    x = c("input", torch.float32)
    if p == math.inf:
        return reduce(c, "ReduceMax", c.node("Abs", x), axes, keep)
    if p not in ("fro", 1, 2, None):
        c.refuse(f"only the norms 1, 2 and infinity are written, not {p}")
    return reduce(c, "ReduceL1" if p == 1 else "ReduceL2", x, axes, keep)


_NORM = "input p='fro' dim=None keepdim=False dtype=None"
add("torch.norm Tensor.norm", _NORM, lambda c: _norm(c, c["p"], c.axes(), bool(c["keepdim"])))
add(
    "linalg.vector_norm",
    "input ord=2 dim=None keepdim=False dtype=None",
    lambda c: _norm(c, c["ord"], c.axes(), bool(c["keepdim"])),
)


@writes("linalg.norm", "input ord=None dim=None keepdim=False dtype=None")
def _linalg_norm(c: Call) -> Written:
    axes = c.axes()
    if c["ord"] is not None and len(axes or range(c.rank)) != 1:
        c.refuse("matrix norms are not written")
    return _norm(c, c["ord"], axes, bool(c["keepdim"]))


@writes("F.normalize", "input p=2.0 dim=1 eps=1e-12")
def _normalize(c: Call) -> Written:
    length = _norm(c, float(c["p"]), c.axes(), True)
    return c.node("Div", c(), c.node("Max", length, float(c["eps"])))


@writes("torch.cumsum Tensor.cumsum", "input dim dtype=None")
def _cumsum(c: Call) -> Written:
    return c.node("CumSum", c("input", c.dtype), np.array(c.axis(), np.int64))


# ---- types


def _cast(c: Call) -> Written:
    """Every spelling of a cast: the result's type says what was asked for; nothing happens where it is the input's."""
    before, after = c.x.dtype, c.result.dtype
    if after in (torch.float16, torch.bfloat16) and before in (torch.float32, torch.float64):
        c.refuse(f"a rounding to {after}; floats are float32 in files")
    return c() if in_file(before) == c.dtype else c.node("Cast", c(), to=CODES[c.dtype])


add(
    """Tensor.float Tensor.int Tensor.long Tensor.bool Tensor.half Tensor.bfloat16 Tensor.double Tensor.short Tensor.type_as
    Tensor.cpu Tensor.cuda Tensor.to Tensor.type""",
    "input *how|input *how dtype=None device=None non_blocking=False copy=False memory_format=None other=None",
    _cast,
)
