"""Fake kernels (shapes and strides, for tracing) of all native operators: declared on import, loaded by the first trace.

``torch.library.register_fake`` reads source files to say where a kernel stands, milliseconds for each. One small function per
operator is registered instead; it finds the kernel in ``linger.ops`` when a fake or meta tensor reaches the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

import linger._C  # noqa: F401  registers torch.ops.linger

_NAMESPACE = "linger::"
_library = torch.library.Library("linger", "FRAGMENT")  # type: ignore[no-untyped-call]  # dropping it unregisters


def _kernel(op: str) -> Callable[..., Any]:
    def fake(*args: Any, **kwargs: Any) -> Any:
        return import_module("linger.ops").fake_kernel(op)(*args, **kwargs)

    return fake


def _register() -> None:
    for op in torch._C._dispatch_get_registrations_for_dispatch_key("CPU"):
        if not op.startswith(_NAMESPACE):
            continue
        try:
            entry = torch._library.simple_registry.singleton.find(op)
            entry.fake_impl.register(_kernel(op), _NAMESPACE, _library)
        except (AttributeError, TypeError):  # another torch: the public way, slower
            torch.library.register_fake(op, _kernel(op), lib=_library)


_register()
