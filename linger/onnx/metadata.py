"""What a file says about where it comes from."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from linger.settings import Settings, dumps

__all__ = ["fingerprint", "origin"]


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's parameters and buffers; files carry that of their model under ``linger.model``.

    Args:
        model: Any module, on any device. Names, types, shapes and every bit count.

    Returns:
        SHA-256 in hexadecimal digits.

    Example:
        >>> import torch, linger
        >>> layer = torch.nn.Linear(2, 2)
        >>> linger.onnx.fingerprint(layer) == linger.onnx.fingerprint(layer)
        True

    Source: ours.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def origin(model: nn.Module, settings: Settings, platform: str) -> dict[str, str]:
    """Metadata of a file: chip, settings as YAML (``linger.settings.loads`` reads them) and the model's fingerprint."""
    return {
        "linger.platform": platform,
        "linger.settings": dumps(settings, comments=False),
        "linger.model": fingerprint(model),
    }
