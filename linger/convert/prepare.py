"""What ``constrain`` and ``init`` do alike: settings, checks of the root, device, seed, and the record they leave."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from linger.chip import ENGINES
from linger.errors import UnsupportedError
from linger.settings import Settings, current, dumps, load, use

from .convertible import uninitialised
from .report import Report

__all__ = [
    "CHOSEN",
    "GATHER",
    "ConversionRecord",
    "Fusion",
    "check_root",
    "check_whole",
    "former_settings_on_failure",
    "log_report",
    "open_settings",
    "place",
    "record_of",
    "say_calibration",
    "with_engine",
]

_log = logging.getLogger("linger")
CHOSEN = ("disable_", "open_quant", "not in ")  # reasons that are the user's own


@dataclass(frozen=True)
class Fusion:
    """A layer and the BatchNorm that was fused into it. `first` is the layer's name inside a constrained module.

    `affine` says that the BatchNorm has a weight, `biased` that it has a bias, too.
    """

    layer: str
    bn: str
    first: str
    eps: float
    affine: bool
    biased: bool = True


@dataclass
class ConversionRecord:
    """What was applied to a model; kept on its root and, as plain data, in the metadata of its state.

    Args:
        stage: ``constrain``, ``init`` or ``trace_layers``.
        settings: Frozen copy.
        fusions: Layers and BatchNorms that are one now, those of earlier stages included.
        covered: Qualified names of the layers that were converted.
        left: Qualified name -> reason of the layers that were not.
        relu: Qualified names of the layers whose only consumer is a ReLU.
        classic: Made by a call of the classic form (:mod:`classic`).
    """

    stage: str
    settings: Settings
    fusions: tuple[Fusion, ...] = ()
    covered: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    report: Report = field(default_factory=lambda: Report(""))
    fold_bn: str = "once"
    relu: tuple[str, ...] = ()
    classic: bool = False

    @cached_property
    def settings_text(self) -> str:
        """The settings as YAML."""
        return dumps(self.settings)

    def metadata(self) -> dict[str, Any]:
        """Plain data: loads with ``weights_only=True``."""
        s = self.settings
        layers = {name: s.layer(name) for name in self.covered}
        return {
            "version": 1,
            "stage": self.stage,
            "platform": s.platform,
            "engine": s.engine,
            "qat_method": s.quant_info.qat_method,
            "fold_bn": self.fold_bn,
            "bits": {name: [q.input_bits, q.weight_bits, q.output_bits] for name, q in layers.items()},
            "fusions": [[f.layer, f.bn] for f in self.fusions],
            "left": dict(self.left),
            "relu": list(self.relu),
            "settings": self.settings_text,
            **({"classic": True} if self.classic else {}),
        }


def record_of(model: nn.Module) -> ConversionRecord | None:
    """The record on a root, None for a model that was not converted."""
    found = model.__dict__.get("_linger_record")
    return found if isinstance(found, ConversionRecord) else None


def check_root(model: Any, what: str) -> None:
    """Refuse what cannot be converted as a whole.

    Raises:
        TypeError: Not a module, or a wrapper whose inside has to be converted instead.
        UnsupportedError: Parameters that are spread over several processes.
        ValueError: Lazy layers that have no parameters yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{what}: model must be a torch.nn.Module, got {type(model).__name__}")
    wrapper = type(model).__name__
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TypeError(f"{what}: convert the model before wrapping it in {wrapper} (or pass model.module)")
    if hasattr(model, "_orig_mod") and wrapper == "OptimizedModule":
        raise TypeError(f"{what}: convert the model before torch.compile (or pass model._orig_mod)")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"{what}: a scripted or traced model cannot be converted; convert it before torch.jit")
    check_whole(model, what, "convert the model before fully_shard")
    lazy = [name for name, m in model.named_modules() if uninitialised(m)]
    if lazy:
        raise ValueError(f"{what}: lazy layers have no parameters yet: {', '.join(lazy)}; run one forward first")


def check_whole(model: nn.Module, call: str, cure: str) -> None:
    """Refuse a model of which every process holds a part (FSDP, tensor parallelism).

    Args:
        model: Any model.
        call: What was called, for the message.
        cure: What to do instead.

    Raises:
        UnsupportedError: A parameter is a DTensor.
    """
    tensors = sys.modules.get("torch.distributed.tensor")  # without it there is none
    spread = tensors and next((n for n, p in model.named_parameters() if isinstance(p, tensors.DTensor)), None)
    if spread:
        raise UnsupportedError(f"{call}: '{spread}' is spread over several processes (FSDP): {cure}")


GATHER = (
    "gather it with torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)), load that into a model of one process and take this one"
)


@contextmanager
def former_settings_on_failure() -> Iterator[None]:
    """The file of a conversion that fails does not become the current configuration."""
    former = current()
    try:
        yield
    except BaseException:
        use(former)
        raise


def open_settings(config_file: Any) -> Settings:
    """Settings of a file, which become the current ones, or the current ones."""
    if config_file is None:
        return replace(current(), file=None, explicit=frozenset())
    if not isinstance(config_file, (str, os.PathLike)):
        raise TypeError(f"config_file must be the path of a YAML file, got {type(config_file).__name__}")
    settings = load(config_file)
    settings = settings.with_operators(dict(current().operators) | dict(settings.operators))
    use(settings)
    return settings


def with_engine(settings: Settings, engine: str | None, earlier: ConversionRecord | None) -> Settings:
    """The settings for the engine that the caller names, else for the file's, that of an earlier stage, or the current one.

    Raises:
        ValueError: An unknown engine.
    """
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine is not None:
        return replace(settings, engine=engine, explicit=settings.explicit | {"engine"})
    if earlier is not None and "engine" not in settings.explicit and earlier.settings.engine is not None:
        return replace(settings, engine=earlier.settings.engine)
    return settings


def _place_of(key: str, settings: Settings) -> str:
    return f"{settings.file}, line {settings.marks[key][0]}"


def place(model: nn.Module, settings: Settings, stage: str) -> None:
    """Do what the file says about device, dtype and seed; without a file nothing happens.

    Args:
        model: Moved in place.
        settings: Of the file.
        stage: ``constrain`` or ``init``, for the log.
    """
    if "seed" in settings.explicit:
        torch.manual_seed(settings.seed)
        random.seed(settings.seed)
        np.random.seed(settings.seed % 2**32)
        _log.warning("linger.%s: seeded torch, numpy and random with %d (%s); to leave them alone, remove the line `seed`",
                     stage, settings.seed, _place_of("seed", settings))  # fmt: skip
    if "device" in settings.explicit:
        device = torch.device(settings.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            warnings.warn(
                f"linger: {settings.file} asks for {device}, this machine has no CUDA; the model stays", stacklevel=4
            )
        else:
            model.to(device)
    if "dtype" in settings.explicit and settings.dtype != "torch.float32":  # the default keeps the model's own
        model.to(getattr(torch, settings.dtype.removeprefix("torch.")))


def say_calibration(settings: Settings) -> None:
    """The key `calibration` starts nothing: say what does."""
    if settings.calibration and "calibration" in settings.explicit:
        _log.warning("linger.init: `calibration: true` (%s) starts nothing; to calibrate, run batches inside "
                     "`with linger.calibration(model):`", _place_of("calibration", settings))  # fmt: skip


def log_report(report: Report) -> None:
    """One line for what stayed float against the user's wish, one for what was switched off."""
    wanted = [r for r in report.stayed_float if not r.note.startswith(CHOSEN)]
    if wanted:
        lines = [f"  {r.name or '(root)'} ({r.was}): {r.note}" + (f" [{r.where}]" if r.where else "") for r in wanted]
        what = "stay in float" if report.stage == "init" else "train without limits"
        _log.warning("linger.%s: these layers %s:\n%s", report.stage, what, "\n".join(lines))
    off = [r.name for r in report.stayed_float if r.note.startswith(CHOSEN)]
    if off:
        _log.info("linger.%s: switched off: %s", report.stage, ", ".join(off))
    for note in report.notes:
        _log.warning("linger.%s: %s", report.stage, note)
