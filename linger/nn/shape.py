"""Shape operators: they keep scale and bits, in every spelling of torch (read back in ``shape_nodes.py``).

Each has one writer, used for quantized and for float tensors alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.errors import ExportError
from linger.quantizers import calibrating
from linger.runtime import Dim, Format, Tape, Value, current_tape, handles, info, resolve, tag

_END = np.iinfo(np.int64).max


class Call(NamedTuple):
    """A call of a shape operator: the tensor it takes apart, the other arguments, what came out."""

    func: Callable[..., Any]
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


Writer = Callable[[Tape, Call], None]
WRITERS: dict[Callable[..., Any], Writer] = {}


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.dim()
    return x.reshape([*x.shape[:dim], *sizes, *x.shape[dim + 1 :]])


# What runs in the place of the user's spelling.
_RUNS: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.view: Tensor.reshape,  # a channels-last result has no NCHW view
    Tensor.unflatten: _unflatten,  # dynamo cannot look into the method
}


def _keeps(name: str, spellings: str, write: Writer) -> None:
    """Register a shape operator: run it on value and codes, tag the results, let ``write`` record it."""

    @handles(name, spellings)
    def handler(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs.get("input")
        fmt = info(x)
        if fmt is None or not isinstance(x, Tensor):
            return NotImplemented
        if name == "view" and args[1:2] and isinstance(args[1], torch.dtype):
            return NotImplemented
        if name == "cast" and not _is_plain_cast(x, args, kwargs):
            return NotImplemented
        if name == "getitem" and not _is_slicing(args[1]):
            return NotImplemented
        run = _RUNS.get(func, func)
        rest = args[1:] if args else args
        others = kwargs if args else {k: v for k, v in kwargs.items() if k != "input"}
        result = run(x, *rest, **others)
        codes = None
        if fmt.codes is not None and name != "cast":
            with torch.no_grad():
                codes = run(fmt.codes, *rest, **others)
        if isinstance(result, Tensor):
            if result is not x:
                result = tag(result, fmt.view(codes))
        else:
            parts = (tag(p, fmt.view(None if codes is None else codes[i])) for i, p in enumerate(result))
            result = type(result)(parts)
        tape = current_tape()
        if tape is not None:
            write(tape, Call(func, x, rest, others, result))
        return result

    for spelling in spellings.split():
        func = resolve(spelling)
        if func is not None:
            WRITERS[func] = write


# ---- reshaping


def _write_reshape(tape: Tape, call: Call) -> None:
    x, y = call.x, call.result
    asked = call.args[0] if len(call.args) == 1 and isinstance(call.args[0], (tuple, list)) else call.args
    if not all(isinstance(s, int) for s in asked):
        asked = ()
    keeps_batch = y.dim() == 2 and x.dim() > 2 and x.shape[0] == y.shape[0]
    batch_from_size = bool(asked) and isinstance(asked[0], Dim) and asked[0].axis == 0
    flattens = call.func.__name__ == "flatten" or batch_from_size or (bool(asked) and asked[0] == y.shape[0])
    if keeps_batch and flattens:
        tape.node("Flatten", [x], [y], {"axis": 1})
        return
    shape = [int(s) for s in y.shape]
    if call.func.__name__ == "flatten" and y.dim() > 1 and x.shape[0] == y.shape[0]:
        shape[0] = 0
    elif len(asked) == y.dim():
        for i, size in enumerate(asked):
            if isinstance(size, Dim) and size.axis == i < x.dim():
                shape[i] = 0
            elif size == -1:
                shape[i] = -1
    tape.node("Reshape", [x, np.array(shape, np.int64)], [y])


_keeps("view", "Tensor.view", _write_reshape)
_keeps(
    "reshape",
    """torch.reshape Tensor.reshape torch.flatten Tensor.flatten torch.unflatten Tensor.unflatten Tensor.view_as
    Tensor.reshape_as torch.ravel Tensor.ravel""",
    _write_reshape,
)


# ---- order of axes


def _write_transpose(tape: Tape, call: Call) -> None:
    dummy = torch.empty([101 + i for i in range(call.x.dim())], device="meta")
    moved = call.func(dummy, *call.args, **call.kwargs)
    perm = [int(s) - 101 for s in moved.shape]
    if perm == sorted(perm):
        tape.alias(call.result, call.x)
    else:
        tape.node("Transpose", [call.x], [call.result], {"perm": perm})


_keeps(
    "transpose",
    """torch.permute Tensor.permute torch.transpose Tensor.transpose torch.swapaxes Tensor.swapaxes torch.swapdims
    Tensor.swapdims torch.movedim Tensor.movedim torch.moveaxis Tensor.moveaxis torch.t Tensor.t Tensor.T Tensor.mT
    torch.adjoint""",
    _write_transpose,
)


# ---- axes of size one


def _axes(call: Call) -> list[int]:
    dims = call.args[0] if call.args else call.kwargs.get("dim")
    rank = call.x.dim()
    if dims is None:
        return [i for i in range(rank) if call.x.shape[i] == 1]
    chosen = [int(d) % rank for d in ([dims] if isinstance(dims, int) else dims)]
    return [d for d in sorted(chosen) if call.x.shape[d] == 1]


def _write_squeeze(tape: Tape, call: Call) -> None:
    axes = _axes(call)
    if axes:
        tape.node("Squeeze", [call.x], [call.result], {"axes": axes})
    else:
        tape.alias(call.result, call.x)


def _write_unsqueeze(tape: Tape, call: Call) -> None:
    axis = int(call.args[0] if call.args else call.kwargs["dim"]) % call.result.dim()
    tape.node("Unsqueeze", [call.x], [call.result], {"axes": [axis]})


_keeps("squeeze", "torch.squeeze Tensor.squeeze", _write_squeeze)
_keeps("unsqueeze", "torch.unsqueeze Tensor.unsqueeze", _write_unsqueeze)


# ---- pieces


def _is_slicing(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return all(
        i is None
        or i is Ellipsis
        or isinstance(i, slice)
        and i.step in (None, 1)
        or isinstance(i, int)
        and not isinstance(i, bool)
        for i in items
    )


def _write_slices(
    tape: Tape, x: Tensor, y: Tensor, cuts: list[tuple[int, int, int]], drop: list[int], add: list[int]
) -> None:
    """One Slice per (axis, start, end), then Squeeze, then Unsqueeze; the packer takes one axis per node."""
    steps: list[tuple[str, list[Any], dict[str, Any]]] = []
    for axis, start, end in cuts:
        steps.append(("Slice", [np.array([v], np.int64) for v in (start, end, axis)], {}))
    if drop:
        steps.append(("Squeeze", [], {"axes": drop}))
    if add:
        steps.append(("Unsqueeze", [], {"axes": add}))
    if not steps:
        tape.alias(y, x)
        return
    source: Tensor | Value = x
    for i, (op, extra, attributes) in enumerate(steps):
        target: Tensor | Value = y if i == len(steps) - 1 else tape.value(op.lower())
        tape.node(op, [source, *extra], [target], attributes)
        source = target


def _write_getitem(tape: Tape, call: Call) -> None:
    index = call.args[0] if isinstance(call.args[0], tuple) else (call.args[0],)
    used = sum(1 for i in index if i is not None and i is not Ellipsis)
    if Ellipsis not in index:
        index = (*index, Ellipsis)
    axis, out = 0, 0
    cuts: list[tuple[int, int, int]] = []
    drop: list[int] = []
    add: list[int] = []
    for item in index:
        if item is None:
            add.append(out)
            out += 1
        elif item is Ellipsis:
            axis += call.x.dim() - used
            out += call.x.dim() - used
        elif isinstance(item, slice):
            start, end, step = item.indices(call.x.shape[axis])
            if step != 1:
                raise ExportError(f"a slice with step {step} has no form on the chips: {tape.where()}")
            if (start, end) != (0, call.x.shape[axis]):
                cuts.append((axis, start, end))
            axis, out = axis + 1, out + 1
        else:
            position = int(item) % call.x.shape[axis]
            if call.x.shape[axis] != 1:
                cuts.append((axis, position, position + 1))
            drop.append(axis)
            axis += 1
    _write_slices(tape, call.x, call.result, cuts, drop, add)


def _integers(call: Call, *names: str) -> list[int]:
    """Integer arguments in the order of ``names``, however the call gave them."""
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    return [int(given[name]) for name in names]


def _write_select(tape: Tape, call: Call) -> None:
    dim, index = _integers(call, "dim", "index")
    dim %= call.x.dim()
    position = index % call.x.shape[dim]
    cuts = [] if call.x.shape[dim] == 1 else [(dim, position, position + 1)]
    _write_slices(tape, call.x, call.result, cuts, [dim], [])


def _write_narrow(tape: Tape, call: Call) -> None:
    dim, start, length = _integers(call, "dim", "start", "length")
    dim %= call.x.dim()
    start %= max(call.x.shape[dim], 1)
    whole = length == call.x.shape[dim]
    _write_slices(tape, call.x, call.result, [] if whole else [(dim, start, start + length)], [], [])


def _write_split(tape: Tape, call: Call) -> None:
    parts = list(call.result)
    unbind = call.func.__name__ == "unbind"
    position = 0 if unbind else 1
    dim = int(call.kwargs.get("dim", call.args[position] if len(call.args) > position else 0)) % call.x.dim()
    if len(parts) == 1:
        if unbind:
            tape.node("Squeeze", [call.x], parts, {"axes": [dim]})
        else:
            tape.alias(parts[0], call.x)
        return
    sizes = [1 if unbind else int(p.shape[dim]) for p in parts]
    targets: list[Tensor | Value] = [tape.value("unbind") for _ in parts] if unbind else list(parts)
    attributes = {"axis": dim, "split": sizes}
    if info(call.x) is None:
        tape.node("Split", [call.x], targets, attributes)
    else:  # the packer wants a count that standard ONNX does not have, and ignores the domain
        tape.node("Split", [call.x], targets, {**attributes, "dims": len(parts)}, domain="linger")
    if unbind:
        for target, part in zip(targets, parts, strict=True):
            tape.node("Squeeze", [target], [part], {"axes": [dim]})


_keeps("getitem", "Tensor.__getitem__ operator.getitem", _write_getitem)
_keeps("select", "torch.select Tensor.select", _write_select)
_keeps("narrow", "torch.narrow Tensor.narrow", _write_narrow)
_keeps(
    "split",
    """torch.split Tensor.split torch.chunk Tensor.chunk torch.tensor_split Tensor.tensor_split torch.unbind Tensor.unbind
    torch.split_with_sizes Tensor.split_with_sizes torch.unsafe_split torch.unsafe_chunk Tensor.unsafe_split
    Tensor.unsafe_chunk""",
    _write_split,
)


# ---- nothing changes


def _write_alias(tape: Tape, call: Call) -> None:
    tape.alias(call.result, call.x)


def _is_plain_cast(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``to``-like calls keep the dtype; everything else about them is fine."""
    for value in [*args[1:], *kwargs.values()]:
        if isinstance(value, torch.dtype) and value != x.dtype:
            return False
        if isinstance(value, Tensor) and value.dtype != x.dtype:
            return False
    return True


_keeps(
    "contiguous",
    "Tensor.contiguous torch.clone Tensor.clone torch.detach Tensor.detach Tensor.requires_grad_",
    _write_alias,
)
_keeps("cast", "Tensor.to Tensor.type_as Tensor.cpu Tensor.cuda", _write_alias)


@handles("float", "Tensor.float")
def _float(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if info(args[0]) is not None and args[0].dtype == torch.float32 else NotImplemented


_DROPOUT = "F.dropout F.dropout1d F.dropout2d F.dropout3d torch.dropout torch.feature_dropout"


@handles("dropout", _DROPOUT)
def _dropout(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Keeps the format. In eval it is nothing; in training the scaled survivors are rounded back to the same grid."""
    named = {**dict(zip(("input", "p", "training"), args, strict=False)), **kwargs}
    x = named.get("input")
    fmt = info(x)
    if fmt is None or not isinstance(x, Tensor):
        return NotImplemented
    if not named.get("training", named.get("train", True)) or float(named.get("p", 0.5)) == 0.0:
        return x
    dropped = func(*args, **kwargs)
    if calibrating() or not fmt.exact:
        return tag(dropped, fmt.like(None))
    out = ops.quantize(dropped, fixed_output(fmt))
    return tag(out.value, Format(fmt.scale, fmt.bits, out.codes))


def fixed_output(fmt: Format) -> ops.Output:
    """Quantize to a format that stands: nothing is observed."""
    counter = torch.zeros(1, dtype=torch.int64, device=fmt.scale.device)
    known = torch.ones((), dtype=torch.bool, device=fmt.scale.device)
    stats = ops.Stats(torch.zeros_like(fmt.scale), known, fmt.scale.clone(), counter, counter.clone())
    return ops.Output(stats, None, fmt.bits, 1, 0.0, False, False)
