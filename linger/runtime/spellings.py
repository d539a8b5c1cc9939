"""From a torch function object to the handler of its operator. One list of spellings per operator; the tests walk it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

HANDLERS: dict[Callable[..., Any], Handler] = {}
SPELLINGS: dict[str, list[str]] = {}
OPERATOR_OF: dict[Callable[..., Any], str] = {}  # function -> the operator that settings and reports call it
NAMES: dict[Callable[..., Any], str] = {}  # compiled code cannot ask a torch function for its name

_SPACES: dict[str, Any] = {
    "torch": torch,
    "Tensor": Tensor,
    "F": F,
    "operator": operator,
    "special": torch.special,
    "_VF": torch._VF,
    "_nn": torch._C._nn,
}


METADATA = frozenset(
    {
        "size", "dim", "shape", "dtype", "device", "is_cuda", "is_cpu", "requires_grad", "ndim", "numel",
        "nelement", "__len__", "is_floating_point", "is_contiguous", "layout", "stride", "storage_offset",
        "is_complex", "is_leaf", "names", "element_size", "itemsize", "is_sparse", "is_quantized", "is_meta",
        "grad_fn", "ndimension", "get_device", "_version", "is_inference",
    }
)  # fmt: skip
"""Reads that do not use a tensor's values."""


def resolve(spelling: str) -> Callable[..., Any] | None:
    """``"Tensor.view"`` -> the function object the mode sees, or None where this torch has no such name."""
    space, name = spelling.split(".", 1)
    found: Any = getattr(_SPACES[space], name, None)
    if isinstance(found, property) or type(found).__name__ == "getset_descriptor":
        found = found.__get__
    return cast("Callable[..., Any] | None", found)


_REFLECTED = {"rsub": "sub", "rdiv": "div", "rmatmul": "matmul"}


def handles(name: str, spellings: str) -> Callable[[Handler], Handler]:
    """Register the decorated handler for every spelling.

    Args:
        name: Operator, as reports and tests name it.
        spellings: Space separated, e.g. ``"torch.add Tensor.add Tensor.__add__ operator.add"``. Names that the running
            torch lacks are left out.

    A handler takes (func, args, kwargs) with interception switched off and returns the result, or ``NotImplemented`` when
    the call is none of its business or cannot run in integers: it then runs in float and is recorded as an island.
    """
    operator_name = name.rstrip("_")
    operator_name = _REFLECTED.get(operator_name, operator_name)

    def register(handler: Handler) -> Handler:
        for spelling in spellings.split():
            func = resolve(spelling)
            if func is not None:
                HANDLERS[func] = handler
                OPERATOR_OF[func] = operator_name
                NAMES.setdefault(func, spelling.split(".", 1)[1])
                SPELLINGS.setdefault(name, []).append(spelling)
        return handler

    return register


def _silent() -> frozenset[Any]:
    names = """size dim shape dtype device is_cuda requires_grad grad grad_fn ndim numel nelement __len__ is_floating_point
        requires_grad_ register_hook backward is_contiguous layout is_nested data stride storage_offset is_complex __repr__
        __format__ item tolist numpy data_ptr untyped_storage is_leaf retain_grad retains_grad output_nr _version names
        element_size itemsize nbytes is_sparse is_quantized is_meta is_cpu is_mkldnn is_inference __bool__ __int__ __float__
        __hash__ __deepcopy__ _backward_hooks _base _is_view type new_empty new_zeros new_ones new_tensor new_full"""
    found = {resolve(f"Tensor.{name}") for name in names.split()}
    found |= {
        torch.zeros_like,
        torch.ones_like,
        torch.empty_like,
        torch.is_tensor,
        torch.is_floating_point,
        torch.numel,
    }
    return frozenset(f for f in found if f is not None)


def _in_place() -> frozenset[Any]:
    """Functions that write into their first argument."""
    words = "add sub mul matmul truediv floordiv mod pow and or xor lshift rshift".split()
    found = {getattr(operator, f"i{w}", None) for w in words} | {getattr(Tensor, f"__i{w}__", None) for w in words}
    found |= {operator.setitem, Tensor.__setitem__}
    for space in (Tensor, torch, F):
        names = dir(F) if space is F else dir(Tensor)  # torch has more that are none
        found |= {getattr(space, n, None) for n in names if n[0] != "_" and n.endswith("_")}
    return frozenset(f for f in found if callable(f) and f not in SILENT)


SILENT = _silent()
IN_PLACE = dict.fromkeys(_in_place(), True)  # compiled code looks functions up in dictionaries only
