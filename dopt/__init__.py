"""Plug-in quantization of single layers to 8 bits: ``dopt.dopt_torch.opt_main`` and ``dopt.dopt_tf.opt_main``.

``dopt.to_linger`` and ``dopt.from_linger`` exchange configurations with linger (PyTorch). Neither framework is imported before
one of these is used. Docs: docs/dopt.md.
"""

from __future__ import annotations

from typing import Any

__all__ = ["from_linger", "to_linger"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dopt.dopt_torch import yaml

        return getattr(yaml, name)
    raise AttributeError(f"module 'dopt' has no attribute {name!r}")
