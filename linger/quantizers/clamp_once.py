"""The one clamp of a weight in front of its first training step or calibration."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import ops
from .calibration import unobserved
from .quantizer import Quantizer
from .saturation import layer_of
from .weight_limit import CUT_SAID, WEIGHT_CUT, cut_note, weight_cut

if TYPE_CHECKING:
    from ..settings import ClampInfo

_log = logging.getLogger("linger")


def clamp_weight_once(weight: Tensor, quantizer: Quantizer, clamp: ClampInfo) -> None:
    """Clamps a weight in place before its first training step or calibration, and never again.

    The limit is ``clamp_weight_value`` where it is set, else ``clamp_factor_value * mean|w|``. A weight that does not
    require a gradient is left alone: frozen parameters stay as they are, bit for bit.

    Args:
        weight: The layer's weight, changed in place.
        quantizer: Its quantizer; remembers (and stores in checkpoints) that it was done.
        clamp: The layer's constraint settings.

    Source: docs/numerics.md, "Training".
    """
    if quantizer._clamped or not weight.requires_grad or unobserved():
        return
    done = quantizer._buffers.get("is_init_mom_clamp_weight")
    if torch.compiler.is_compiling():
        _clamp_unless(weight, quantizer._buffers[quantizer._flag] if done is None else done, clamp)
        if done is not None:
            done.fill_(True)
    elif not quantizer.weight_clamped:
        with torch.no_grad():
            if clamp.clamp_weight_value is not None or clamp.clamp_factor_value is not None:
                _measure(weight, quantizer, clamp)
                weight.copy_(ops.clamp_weight(weight.detach(), clamp.clamp_weight_value, clamp.clamp_factor_value))
            if done is not None:
                done.fill_(True)
    quantizer._clamped = True


def _measure(weight: Tensor, quantizer: Quantizer, clamp: ClampInfo) -> None:
    """Remembers what the clamp is about to cut, and says it where it is much and the user does not know."""
    cut = weight_cut(weight, clamp.clamp_weight_value, clamp.clamp_factor_value)
    quantizer.__dict__[WEIGHT_CUT] = cut
    note = cut_note([(layer_of(quantizer.name)[0].replace("(root)", ""), cut)]) if quantizer.name else ""
    if note and CUT_SAID not in quantizer.__dict__:
        quantizer.__dict__[CUT_SAID] = True
        _log.warning("linger: %s", note)


def _clamp_unless(weight: Tensor, done: Tensor | None, clamp: ClampInfo) -> None:
    """Clamps ``weight`` where the flag ``done`` is false, without reading it on the host: for compiled code."""
    assert done is not None
    if clamp.clamp_weight_value is not None or clamp.clamp_factor_value is not None:
        with torch.no_grad():
            now = weight.detach()
            clamped = ops.clamp_weight(now, clamp.clamp_weight_value, clamp.clamp_factor_value)
            weight.copy_(torch.where(done.bool(), now, clamped))
