"""A converted copy of a model, for looking at: the model, its statistics and the random states stay as they are."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from linger.settings import Settings, current

from .by_hand import initialised_parts, release
from .conversion import Conversion
from .neighbours import discover
from .neighbours_from_forward import undisturbed
from .patterns import Selection
from .prepare import check_root
from .quantize import quantize

__all__ = ["copied", "dry_run", "quietly"]


def _by_ranges(settings: Settings) -> Settings:
    """The settings with moving maxima everywhere: thresholds that nothing has trained would say nothing about the data."""
    sections = (replace(s, quant_info=replace(s.quant_info, qat_method="MOM")) for s in settings.sections)
    quant = replace(settings.quant_info, qat_method="MOM")
    return replace(settings, quant_info=quant, sections=tuple(sections))


@contextmanager
def dry_run(
    model: nn.Module, platform: str | None, example_inputs: Any, engine: str | None = None
) -> Iterator[tuple[nn.Module, Settings]]:
    """A copy of ``model`` in eval mode, initialised for a chip where it was not, and its settings.

    Args:
        model: Float, constrained or initialised.
        platform: Chip; None: the model's, or that of the current configuration.
        example_inputs: As in ``init``; None: the code alone tells which layers are neighbours.
        engine: Release of the engine; None: the model's, or that of the current configuration.

    Raises:
        TypeError, ValueError: The model cannot be converted as a whole, or not be copied.
        RuntimeError: A part of the model is initialised, the model is not.
    """
    check_root(model, "check")
    known = model.__dict__.get("_linger_settings")
    done = initialised_parts(model)
    if known is None and done:
        raise RuntimeError(
            f"check: the part {done[0]!r} is initialised, the model is not: check the part, or all before init"
        )
    settings = _by_ranges(current()) if known is None else known
    settings = replace(
        settings,
        platform=settings.platform if platform is None else platform,
        engine=settings.engine if engine is None else engine,
    )
    with copied(model, "check") as twin:
        if known is None:
            settings = replace(settings, open_quant=True, file=None, explicit=frozenset())
            selection = Selection(twin, settings=settings)
            release(twin)
            quantize(Conversion(twin, settings, selection, discover(twin, example_inputs), "once"))
        else:
            _retarget(twin, settings.platform, settings.engine)
        yield twin, settings


@contextmanager
def copied(model: nn.Module, caller: str) -> Iterator[nn.Module]:
    """A copy of ``model`` in eval mode; the model and the random states stay as they are, and nothing is told.

    Raises:
        ValueError: The model cannot be copied.
    """
    with quietly(model):
        for m in model.modules():  # torch copies no computed tensors, such as pruned weights
            m.__dict__.update({k: v.detach() for k, v in m.__dict__.items() if isinstance(v, Tensor) and v.grad_fn})
        try:
            twin = copy.deepcopy(model)
        except Exception as error:
            raise ValueError(f"{caller}: the model cannot be copied: {error}") from error
        yield twin


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Inside, nothing is told; afterwards the statistics of the model's BatchNorms and the random states are as before."""
    with undisturbed(model), _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """A dry run tells nothing but its findings."""
    log = logging.getLogger("linger")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="linger: ")
            yield
    finally:
        log.disabled = before


def _retarget(model: nn.Module, platform: str, engine: str | None) -> None:
    """Let an initialised copy compute as on another chip, for another engine."""
    for m in model.modules():
        quant, settings = m.__dict__.get("quant"), m.__dict__.get("_linger_settings")
        if quant is not None and quant.platform != platform:
            m.__dict__["quant"] = replace(quant, platform=platform)
        if settings is not None:
            sections = tuple(replace(s, platform=platform) for s in settings.sections)
            m.__dict__["_linger_settings"] = replace(settings, platform=platform, engine=engine, sections=sections)
