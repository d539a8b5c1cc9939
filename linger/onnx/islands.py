"""Float islands: the closed list of standard ONNX operators that a file may hold between a Dequant and a Quant.

They run in float32 with the torch functions that the float layers themselves call. Shape arithmetic (int64, bool) uses
the same table. An island never reads codes: a Dequant has to stand in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from linger.onnx.islands_layers import LAYERS, broadcast
from linger.onnx.islands_recurrent import RECURRENT
from linger.onnx.values import InputError, ReadNode

Island = Callable[[ReadNode], None]
_INDEX = (torch.int64, torch.int32, torch.uint8, torch.bool)


def _number(node: ReadNode, i: int) -> Tensor:
    """Float input, or a tensor of shape arithmetic."""
    value = node.value(i)
    if value.is_codes and not (value.constant and value.tensor.dtype == torch.int32):
        return node.floats(i)  # refuses, and says what is missing
    return value.tensor.long() if value.is_codes else value.tensor


def _whole(node: ReadNode, i: int) -> list[int]:
    """Input ``i`` as a list of integers."""
    listed = node.data(i)
    if listed.dtype not in _INDEX or listed.dim() > 1 or listed.numel() > 64:
        raise node.error(f"input {i} must be a list of integers, got {listed.dtype} {tuple(listed.shape)}")
    return [int(v) for v in listed.reshape(-1)]


def _put(node: ReadNode, value: Tensor) -> None:
    if value.is_floating_point():
        node.put_float(0, value)
    else:
        node.put_index(0, value)


def _axis(node: ReadNode, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise node.error(f"axis {axis} is outside {rank} dimensions")
    return axis % rank


def _unary(function: Callable[[Tensor], Tensor]) -> Island:
    return lambda node: _put(node, function(_number(node, 0)))


def _shaped(function: Callable[[ReadNode, Tensor], Tensor]) -> Island:
    """An operator of one float tensor and attributes."""
    return lambda node: node.put_float(0, function(node, node.floats(0)))


def _variadic(function: Callable[[Tensor, Tensor], Tensor], n: int | None = 2) -> Island:
    """An operator that joins its ``n`` inputs (None: any number) with broadcasting."""

    def run(node: ReadNode) -> None:
        operands = [_number(node, i) for i in range(node.n_inputs)]
        if not operands or (n is not None and len(operands) != n):
            raise node.error(f"needs {n or 'some'} inputs, got {len(operands)}")
        if len({x.is_floating_point() for x in operands}) > 1:
            raise node.error("floats and integers cannot be joined")
        node.room(broadcast(node, *(x.shape for x in operands)))
        total = operands[0]
        for x in operands[1:]:
            total = function(total, x)
        _put(node, total)

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(node: ReadNode) -> None:
    x, limits = node.floats(0), []
    for i, name in ((1, "min"), (2, "max")):
        if node.has_input(i):
            limit = node.floats(i)
            if limit.numel() != 1:
                raise node.error(f"input {i} must be one number")
            limits.append(float(limit))
        else:
            limits.append(node.real(name) if node.has(name) else math.inf if name == "max" else -math.inf)
    node.put_float(0, x.clamp(limits[0], limits[1]))


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Island:
    def run(node: ReadNode) -> None:
        x = node.floats(0)
        axis = _axis(node, node.integer("axis", -1 if node.opset >= 13 else 1), x.dim())
        if node.opset >= 13 or axis == x.dim() - 1:
            node.put_float(0, function(x, axis))
        else:  # up to opset 12 the axes from here on are one
            node.put_float(0, function(x.flatten(axis), axis).reshape(x.shape))

    return run


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Island:
    def run(node: ReadNode) -> None:
        x = _number(node, 0)
        listed = _whole(node, 1) if node.has_input(1) else list(node.integers("axes", None, ()))
        axes = sorted({_axis(node, a, x.dim()) for a in listed})
        if not axes and node.integer("noop_with_empty_axes", 0):
            _put(node, x)
        else:
            _put(node, function(x, axes or list(range(x.dim())), bool(node.integer("keepdims", 1))))

    return run


def _arg(function: Callable[[Tensor, int, bool], Tensor]) -> Island:
    def run(node: ReadNode) -> None:
        x = node.floats(0)
        axis = _axis(node, node.integer("axis", 0), x.dim())
        if node.integer("select_last_index", 0):
            raise node.error("attribute 'select_last_index' must be 0")
        node.put_index(0, function(x, axis, bool(node.integer("keepdims", 1))))

    return run


def _concat(node: ReadNode) -> None:
    parts = [_number(node, i) for i in range(node.n_inputs)]
    axis = _axis(node, node.integer("axis"), parts[0].dim())
    if len({p.dim() for p in parts}) != 1 or len({p.is_floating_point() for p in parts}) != 1:
        raise node.error("the inputs differ in kind or number of dimensions")
    node.room((*parts[0].shape[:axis], sum(p.shape[axis] for p in parts), *parts[0].shape[axis + 1 :]))
    _put(node, torch.cat(parts, axis))


def _gather(node: ReadNode) -> None:
    x, index = _number(node, 0), node.data(1)
    axis = _axis(node, node.integer("axis", 0), x.dim())
    if index.dtype not in _INDEX[:2]:
        raise node.error(f"the indices must be integers, got {index.dtype}")
    size = x.shape[axis]
    at = torch.where(index < 0, index + size, index).long()
    if at.numel() and (int(at.min()) < 0 or int(at.max()) >= size):
        raise InputError(f"{node.op_type} {node.name!r}: an index is outside the {size} entries of axis {axis}")
    shape = (*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    node.room(shape)
    _put(node, x.index_select(axis, at.reshape(-1)).reshape(shape))


def _where(node: ReadNode) -> None:
    choose, a, b = node.data(0), _number(node, 1), _number(node, 2)
    if choose.dtype != torch.bool or a.dtype != b.dtype:
        raise node.error("needs a bool condition and two operands of one kind")
    node.room(broadcast(node, choose.shape, a.shape, b.shape))
    _put(node, torch.where(choose, a, b))


def _cast(node: ReadNode) -> None:
    x, to = _number(node, 0), node.integer("to")
    if to in (1, 11):
        node.put_float(0, x.float())
    elif to == 10:
        node.put_float(0, x.half().float())
    elif to in (6, 7):
        node.put_index(0, (x.nan_to_num(0.0) if x.is_floating_point() else x).long())
    elif to == 9:
        node.put_index(0, x != 0)
    else:
        raise node.error(f"attribute 'to' must be a float type, int32, int64 or bool, got {to}")


def _expand(node: ReadNode) -> None:
    x, shape = _number(node, 0), _whole(node, 1)
    if any(size < 1 for size in shape):
        raise node.error(f"shape {shape} is not accepted")
    common = broadcast(node, x.shape, torch.Size(shape))
    node.room(common)
    _put(node, x.expand(common).contiguous())


def _tile(node: ReadNode) -> None:
    x, repeats = _number(node, 0), _whole(node, 1)
    if len(repeats) != x.dim() or any(r < 0 for r in repeats):
        raise node.error(f"repeats {repeats} do not fit {x.dim()} dimensions")
    node.room(tuple(size * r for size, r in zip(x.shape, repeats, strict=True)))
    _put(node, x.repeat(repeats))


def _constant_of_shape(node: ReadNode) -> None:
    shape = _whole(node, 0)
    node.room(tuple(shape))
    fill = node.tensor("value", torch.zeros(1))
    if fill.numel() != 1:
        raise node.error("attribute 'value' must be one number")
    _put(node, fill.reshape(()).expand(shape).contiguous())


def _range(node: ReadNode) -> None:
    start, end, step = (_number(node, i).reshape(-1) for i in range(3))
    if any(v.numel() != 1 or v.is_floating_point() for v in (start, end, step)) or int(step) == 0:
        raise node.error("needs three integers, the step not 0")
    span = range(int(start), int(end), int(step))
    node.room((min(len(span), 1 << 60),))
    node.put_index(0, torch.arange(int(start), int(end), int(step)) if len(span) else torch.zeros(0).long())


def _slice(node: ReadNode) -> None:
    x = _number(node, 0)
    starts, ends = _whole(node, 1), _whole(node, 2)
    axes = _whole(node, 3) if node.has_input(3) else list(range(len(starts)))
    steps = _whole(node, 4) if node.has_input(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.error(f"starts {starts}, ends {ends}, axes {axes}, steps {steps} do not fit together")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = _axis(node, axis, x.dim())
        kept = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(kept, dtype=torch.int64))
    _put(node, x)


def _flatten(node: ReadNode) -> None:
    x = _number(node, 0)
    axis = node.integer("axis", 1)
    axis = axis if axis == x.dim() else _axis(node, axis, x.dim())
    _put(node, x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _cumsum(node: ReadNode) -> None:
    x, axes = _number(node, 0), _whole(node, 1)
    if len(axes) != 1 or node.integer("exclusive", 0) or node.integer("reverse", 0):
        raise node.error("needs one axis; exclusive and reverse are not supported")
    _put(node, x.cumsum(_axis(node, axes[0], x.dim())))


def _dropout(node: ReadNode) -> None:
    node.put_float(0, node.floats(0))


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt, "Erf": torch.erf,
    "Reciprocal": torch.reciprocal, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Atan": torch.atan, "Asin": torch.asin, "Acos": torch.acos,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus,
    "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish, "Not": torch.logical_not, "IsNaN": torch.isnan,
    "IsInf": torch.isinf,
}  # fmt: skip
_SHAPED: dict[str, Callable[[ReadNode, Tensor], Tensor]] = {
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.real("alpha", 0.01)),
    "Elu": lambda node, x: F.elu(x, node.real("alpha", 1.0)),
    "Celu": lambda node, x: F.celu(x, node.real("alpha", 1.0)),
    "Selu": lambda node, x: F.selu(x),
    "ThresholdedRelu": lambda node, x: F.threshold(x, node.real("alpha", 1.0), 0.0),
    "HardSigmoid": lambda node, x: (x * node.real("alpha", 0.2) + node.real("beta", 0.5)).clamp(0.0, 1.0),
    "Gelu": lambda node, x: F.gelu(x, approximate=node.text("approximate", "none")),
}
_JOINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int | None]] = {
    "Add": (torch.add, 2), "Sub": (torch.sub, 2), "Mul": (torch.mul, 2), "Div": (_divide, 2), "Pow": (torch.pow, 2),
    "Min": (torch.minimum, None), "Max": (torch.maximum, None), "Sum": (torch.add, None), "Equal": (torch.eq, 2),
    "Greater": (torch.gt, 2), "GreaterOrEqual": (torch.ge, 2), "Less": (torch.lt, 2), "LessOrEqual": (torch.le, 2),
    "And": (torch.logical_and, 2), "Or": (torch.logical_or, 2), "Xor": (torch.logical_xor, 2),
    "PRelu": (lambda x, slope: torch.where(x > 0, x, x * slope), 2),
}  # fmt: skip
_REDUCED: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep), "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep), "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}  # fmt: skip

ANY_KIND: dict[str, Island] = {
    "Shape": lambda node: node.put_index(0, torch.tensor(tuple(node.data(0).shape), dtype=torch.int64)),
    "Size": lambda node: node.put_index(0, torch.tensor(node.data(0).numel())),
}
"""Operators that read only the shape of a tensor, codes included."""

ISLANDS: dict[str, Island] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _shaped(function) for name, function in _SHAPED.items()},
    **{name: _variadic(function, n) for name, (function, n) in _JOINED.items()},
    **{name: _reduce(function) for name, function in _REDUCED.items()},
    "Softmax": _softmax(lambda x, axis: F.softmax(x, axis)), "LogSoftmax": _softmax(lambda x, axis: F.log_softmax(x, axis)),
    "ArgMax": _arg(lambda x, axis, keep: x.argmax(axis, keep)), "ArgMin": _arg(lambda x, axis, keep: x.argmin(axis, keep)),
    "Clip": _clip, "Dropout": _dropout, "Concat": _concat, "Gather": _gather, "Where": _where, "Cast": _cast,
    "Expand": _expand, "Tile": _tile, "ConstantOfShape": _constant_of_shape, "Range": _range, "Slice": _slice,
    "Flatten": _flatten, "CumSum": _cumsum, **ANY_KIND, **LAYERS, **RECURRENT,
}  # fmt: skip
"""Operator name -> what it does with floats."""
