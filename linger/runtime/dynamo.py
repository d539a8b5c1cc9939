"""What dynamo keeps from function modes, and how a converted model gets to see it: for the trace of that model only.

Nothing here runs at import. Dynamo calls :func:`shows_functions` while it traces the outermost forward of a converted model,
under its lock, and undoes it when it leaves that trace: other models are traced as ever, before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from linger.errors import ExportError

from .spellings import HANDLERS

_Order = Callable[[int], list[int]]

# What dynamo itself knows to do with a tensor: the method that does the same, and how it permutes n axes where it does.
_METHODS: dict[str, tuple[str, _Order | None]] = {
    "method_attr_T": ("permute", lambda n: list(range(n))[::-1]),
    "method_attr_H": ("permute", lambda n: list(range(n))[::-1]),
    "method_attr_mT": ("permute", lambda n: [*range(n - 2), n - 1, n - 2]),
    "method_attr_mH": ("permute", lambda n: [*range(n - 2), n - 1, n - 2]),
    "nb_absolute_impl": ("abs", None),
    "unpack_var_sequence": ("unbind", None),
}


def refuse_torchs_exporter() -> None:
    """Say what writes a converted model, when torch's exporter runs it.

    Raises:
        ExportError: Inside ``torch.onnx.export``, whichever of its forms.
    """
    if "torch.onnx._internal.exporter" in sys.modules and torch.onnx.is_in_onnx_export():
        raise ExportError(
            "torch.onnx.export cannot write an initialised model; call "
            'linger.onnx.export(model, args, "model.onnx") with the same arguments instead'
        )


def shows_functions() -> bool:
    """Let dynamo hand to the mode of a converted model what it keeps from modes; it calls this while it traces.

    It asks modes about the functions of one set, which lacks in-place functions (``torch.relu_``), functions of one line
    (``F.sigmoid``) and others (``F.hardswish``): they would run in float. Nor does it ask about properties (``x.mT``).
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    refuse_torchs_exporter()
    trace: Any = InstructionTranslator.current_tx().output
    asked: set[Any] = getattr(import_module("torch._dynamo.variables.torch"), "get_overridable_functions", set)()
    hidden = [f for f in HANDLERS if f not in asked]
    asked.update(hidden)
    trace.add_cleanup_hook(lambda: asked.difference_update(hidden))

    tensor: Any = getattr(import_module("torch._dynamo.variables"), "TensorVariable", None)
    for name, (method, order) in _METHODS.items():
        own = vars(tensor).get(name)
        if not hasattr(own, "_linger"):
            setattr(tensor, name, _as_method(own, method, order))
            trace.add_cleanup_hook(lambda n=name, own=own: setattr(tensor, n, own) if own else delattr(tensor, n))
    return True


shows_functions.__dict__["_dynamo_marked_constant"] = (
    True  # torch.compiler.assume_constant_result, without importing dynamo
)


def _as_method(own: Callable[..., Any] | None, method: str, order: _Order | None) -> Callable[..., Any]:
    """Dynamo's ``own`` way, but as a call of a method, which modes see, while a mode is on."""

    def read(self: Any, tx: Any, *rest: Any, **named: Any) -> Any:
        variables, function = (import_module(f"torch._dynamo.variables{m}") for m in ("", ".torch_function"))
        real = self.ndim is not None and self.dtype is not None and not self.dtype.is_complex
        if not real or not function.can_dispatch_torch_function(tx, (self,), {}):
            return own(self, tx, *rest, **named) if own else None
        axes = order(self.ndim) if order else []
        result = self.call_method(tx, method, [variables.ConstantVariable.create(axis) for axis in axes], {})
        return result.unpack_var_sequence(tx) if method == "unbind" else result

    read.__dict__["_linger"] = True
    return read
