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
from linger.chip import OPERATORS
from linger.nn.nodes.file_tensor import FileTensor
from linger.quantizers import in_float
from linger.runtime import Dim, Format, Tape, fixed_output, handles, info, tag

from .register import MoveCall, register_move


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.dim()
    return x.reshape([*x.shape[:dim], *sizes, *x.shape[dim + 1 :]])


# ---- reshaping


class _Groups(NamedTuple):
    """Channels of ``source`` in groups, as a channel shuffle written by hand has them; ``turned`` behind its transpose."""

    source: Tensor
    groups: int
    turned: bool


def _ends_shuffle(tape: Tape, call: MoveCall) -> bool:
    """Whether this reshape ends a shuffle of channels that the chip has a node for; it is then written."""
    known = tape.noted(call.x)
    shuffles = isinstance(known, _Groups) and known.turned and call.result.shape == known.source.shape
    if not shuffles or OPERATORS["ShuffleChannel"][tape.platform].kind != "native":
        return False
    write_shuffle(tape, known.source, call.result, known.groups)
    return True


def _note_groups(tape: Tape, call: MoveCall) -> None:
    """Remember a view of channels as groups."""
    x, y = call.x, call.result
    if x.dim() == 4 and y.dim() == 5 and y.shape[3:] == x.shape[2:] and y.shape[0] == x.shape[0]:
        tape.note(y, _Groups(x, int(y.shape[1]), False), x)


def write_shuffle(tape: Tape, x: Tensor, y: Tensor, groups: int) -> None:
    """ShuffleChannel: the channels of every group in turn."""
    attributes = {"groups": groups, "platform": tape.platform, "platform_quant": "luna_quant"}
    FileTensor.of(tape, x, info(x), "shuffle").node("ShuffleChannel", x.shape, attributes, chip=True).done(y)


def _write_reshape(tape: Tape, call: MoveCall) -> None:
    x, y = call.x, call.result
    if info(x) is not None and _ends_shuffle(tape, call):
        return
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
            if isinstance(size, Dim) and size.axis == i < x.dim() and x.shape[i] == y.shape[i]:
                shape[i] = 0
            elif size == -1:
                shape[i] = -1
    tape.node("Reshape", [x, np.array(shape, np.int64)], [y])
    _note_groups(tape, call)


def _is_new_shape(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return not isinstance(args[0] if args else kwargs.get("dtype"), torch.dtype)


# a channels-last result has no NCHW view
register_move("view", "Tensor.view", _write_reshape, takes=_is_new_shape, runs={Tensor.view: Tensor.reshape})
register_move(
    "reshape",
    """torch.reshape Tensor.reshape torch.flatten Tensor.flatten torch.unflatten Tensor.unflatten Tensor.view_as
    Tensor.reshape_as torch.ravel Tensor.ravel""",
    _write_reshape,
    runs={Tensor.unflatten: _unflatten},  # dynamo cannot look into the method
)


# ---- order of axes


def _write_transpose(tape: Tape, call: MoveCall) -> None:
    dummy = torch.empty([101 + i for i in range(call.x.dim())], device="meta")
    moved = call.func(dummy, *call.args, **call.kwargs)
    perm = [int(s) - 101 for s in moved.shape]
    fmt = info(call.x)
    if perm == sorted(perm):
        tape.alias(call.result, call.x)
    elif fmt is None:
        tape.node("Transpose", [call.x], [call.result], {"perm": perm})
    else:
        FileTensor.of(tape, call.x, fmt, "transpose").permute(*perm).done(call.result)
        known = tape.noted(call.x)
        if isinstance(known, _Groups) and perm == [0, 2, 1, 3, 4]:
            tape.note(call.result, known._replace(turned=True), known.source, call.x)


register_move(
    "transpose",
    """torch.permute Tensor.permute torch.transpose Tensor.transpose torch.swapaxes Tensor.swapaxes torch.swapdims
    Tensor.swapdims torch.movedim Tensor.movedim torch.moveaxis Tensor.moveaxis torch.t Tensor.t Tensor.T Tensor.mT Tensor.H
    Tensor.mH Tensor.adjoint torch.adjoint""",
    _write_transpose,
)


# ---- axes of size one


def _axes(call: MoveCall) -> list[int]:
    dims = call.args[0] if call.args else call.kwargs.get("dim")
    rank = call.x.dim()
    if dims is None:
        return [i for i in range(rank) if call.x.shape[i] == 1]
    chosen = [int(d) % rank for d in ([dims] if isinstance(dims, int) else dims)]
    return [d for d in sorted(chosen) if call.x.shape[d] == 1]


def _write_squeeze(tape: Tape, call: MoveCall) -> None:
    axes = _axes(call)
    if axes:
        tape.node("Squeeze", [call.x], [call.result], {"axes": axes})
    else:
        tape.alias(call.result, call.x)


def _write_unsqueeze(tape: Tape, call: MoveCall) -> None:
    axis = int(call.args[0] if call.args else call.kwargs["dim"]) % call.result.dim()
    tape.node("Unsqueeze", [call.x], [call.result], {"axes": [axis]})


register_move("squeeze", "torch.squeeze Tensor.squeeze", _write_squeeze)
register_move("unsqueeze", "torch.unsqueeze Tensor.unsqueeze", _write_unsqueeze)


# ---- nothing changes


def _write_alias(tape: Tape, call: MoveCall) -> None:
    tape.alias(call.result, call.x)


def _is_plain_cast(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``to``-like calls keep the dtype; everything else about them is fine."""
    for value in [*args, *kwargs.values()]:
        if isinstance(value, torch.dtype) and value != x.dtype:
            return False
        if isinstance(value, Tensor) and value.dtype != x.dtype:
            return False
    return True


register_move(
    "contiguous",
    "Tensor.contiguous torch.clone Tensor.clone torch.detach Tensor.detach Tensor.requires_grad_",
    _write_alias,
)
register_move(
    "cast", "Tensor.to Tensor.type_as Tensor.cpu Tensor.cuda", _write_alias, takes=_is_plain_cast, codes=False
)


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
    if in_float() or not fmt.exact:
        return tag(dropped, fmt.like(None))
    out = ops.quantize(dropped, fixed_output(fmt.scale, fmt.bits))
    return tag(out.value, Format(fmt.scale, fmt.bits, out.codes))
