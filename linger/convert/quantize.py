"""``linger.init``: layers become quantized ones, and operators of user code are intercepted."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from linger import runtime
from linger.errors import UnsupportedError
from linger.nn import visible
from linger.nn.base import convert_class
from linger.ops.checks import has_cuda_kernels
from linger.settings import Settings

from .by_hand import initialised_parts, release
from .classic import classic_settings, is_classic, with_keywords
from .conversion import Conversion
from .findings import layer_findings, sentences, unsaid
from .hooked import hooked_neighbours
from .inherit import inherit_exceptions, inherited_settings
from .materialise import materialise, name_quantizers
from .neighbours import discover
from .optimizer import watch_first_step
from .own_code import as_written, limit_again
from .patterns import Selection, check_operators, check_sections, with_own_settings
from .prepare import (
    ConversionRecord,
    check_root,
    former_settings_on_failure,
    log_report,
    open_settings,
    place,
    record_of,
    say_calibration,
    with_engine,
)
from .state import install
from .weight_limits import cut_weights
from .widths import check_widths

__all__ = ["check_method", "init", "quantize"]

_OLDEST_GPU = (7, 5)  # compute capability of the oldest GPU that the toolkit compiles for
_M = TypeVar("_M", bound=nn.Module)
_NOT_IMPLEMENTED = {
    "CUDA_GS": "use NATIVE: it runs the kernels of the device that the tensor is on",
    "COMPILE": "use NATIVE and torch.compile(model)",
    "TRITON": "use NATIVE: its kernels are C and CUDA",
}


def init(
    model: _M,
    config_file: Any = None,
    disable_module: Any = None,
    disable_submodel: Any = None,
    *,
    example_inputs: Any = None,
    fold_bn: str = "once",
    keep_hooked: bool = False,
    inherit: bool = False,
    quant_modules: Any = None,
    parameter_bits: int | None = None,
    mode: Any = None,
    engine: str | None = None,
) -> _M:
    """Second stage: the model computes the chip's integers, in training and in evaluation.

    Takes float and constrained models. A BatchNorm whose only input is a Conv or Linear layer is folded into it. Parameters
    keep their identity (those of a folded BatchNorm vanish, a bias may be added); hooks, flags, dtype and device stay.

    Args:
        model: Changed in place and returned. With ``open_quant: false`` it is returned untouched.
        config_file: YAML file; it becomes the current configuration. None: the current one, device and seed untouched.
        disable_module: Classes that stay in float, subclasses included. ``nn.BatchNorm2d`` also switches folding off.
        disable_submodel: Module-name patterns, e.g. ``('classifier*',)``; everything below a match stays in float too.
        example_inputs: A tensor, a tuple or a dict of keyword arguments. One eval forward then tells which layers are
            neighbours, and creates the operators of user code (``+``, ``torch.cat`` ...) before an optimizer is built.
        fold_bn: ``"once"`` folds now and for good; ``"step"`` keeps the BatchNorm trainable and folds it in every step.
        keep_hooked: Leave layers with hooks of yours unfused. A layer that is fused with the BatchNorm or ReLU behind it shows
            its hooks the value behind them, in their place: features that a hook collects are those of the next step. By
            default it is fused all the same, and named once.
        inherit: Go on as ``constrain`` began: layers that it was told to leave alone stay in float, every layer keeps its limits,
            and without a ``config_file`` its configuration holds. Differences between the stages are named in any case.
        quant_modules: Classic form: the only classes to convert.
        parameter_bits: Classic form: weight width, 4 or 8.
        mode: Classic form: ``QuantMode.QValue`` is the only one.
        engine: Release of the engine that files are for, ``562ddc7`` (the shipped one) or ``later``; a few sums are rounded
            otherwise for it (docs/numerics.md, "Engines"). None: what ``constrain`` recorded, or the configuration says.

    Raises:
        ConfigError: The file, or a section that names nothing.
        ValueError: A pattern that matches nothing; example inputs that do not run; an unknown engine; ``inherit`` without a first
            stage.
        RuntimeError: The model, or a part of it, is already initialised; ``quant_method: CUDA`` without CUDA kernels, with a GPU
            older than they are, or for a model that is elsewhere.
        UnsupportedError: Widths that the chip lacks, all layers at once; a ``quant_method`` that no code exists for; a root
            whose ``forward`` is replaced on the instance.
    """
    check_root(model, "init")
    if fold_bn not in ("once", "step"):
        raise ValueError(f"init: fold_bn must be 'once' or 'step', got {fold_bn!r}")
    done = initialised_parts(model)
    if done:
        part = f"its part {done[0]!r}" if done[0] else "the model"
        raise RuntimeError(f"init: {part} is already initialised; a model is initialised once")
    if "forward" in model.__dict__ and next(model.children(), None) is not None:
        raise UnsupportedError(
            f"init: the forward of this {type(model).__name__} is replaced on the instance, where its operators cannot be "
            "reached: define it on a class, or put the model into a module that calls it"
        )
    classic = config_file is None and is_classic(model, quant_modules, parameter_bits, mode)
    with former_settings_on_failure():
        settings = classic_settings() if classic else open_settings(config_file)
        if inherit:
            settings = inherited_settings(model, settings, config_file is None and not classic)
        settings = with_engine(settings, engine, record_of(model))
        settings = with_own_settings(with_keywords(settings, parameter_bits, mode), model, classic or inherit)
        selection = Selection(model, disable_module, disable_submodel, "init", settings)
        if inherit:
            inherit_exceptions(model, selection)
        if not settings.open_quant:
            return model
        check_sections(model, settings)
        check_operators(settings)
        place(model, settings, "init")
        say_calibration(settings)
        check_method(model, settings)
        by_hand = release(model)
        with as_written(model):
            found = discover(model, example_inputs)
            hooked = hooked_neighbours(model, found, keep_hooked)
            conversion = Conversion(model, settings, selection, found, fold_bn, quant_modules, by_hand)
            check_widths(model, settings, conversion.left_alone())
            record = quantize(conversion)
        if example_inputs is not None:
            materialise(model, example_inputs)
        record.report.notes += [*hooked, *cut_weights(model)]
        told = [v for v in layer_findings(model, settings.platform, settings.engine) if v.severity != "note"]
        record.report.notes += sentences(unsaid(model, told))
        differing = (row for row in record.report.rows if row.became == "GRUInt" and row.note)
        record.report.notes += [f"{row.name or '(root)'}: {row.note}" for row in differing]
        log_report(record.report)
        return model


def quantize(conversion: Conversion) -> ConversionRecord:
    """The conversion itself: layers are replaced, the model knows its record and settings, and its operators are met."""
    model, record = conversion.model, conversion.run()
    limit_again(model)
    install(model, record)
    for m in model.modules():
        if type(m) in visible:
            convert_class(m, visible[type(m)])
    runtime.attach(model, conversion.settings, runtime.register_state_hooks)
    name_quantizers(model)
    watch_first_step(model)
    return record


def check_method(model: nn.Module, settings: Settings) -> None:
    """Refuse a ``quant_method`` that has no code, or no device."""
    method = settings.quant_method
    if method in _NOT_IMPLEMENTED:
        raise UnsupportedError(f"init: quant_method {method} is not implemented; {_NOT_IMPLEMENTED[method]}")
    if method == "CUDA":
        off = next((n for n, p in model.named_parameters() if p.device.type != "cuda"), None)
        if off is not None:
            raise RuntimeError(
                f"init: quant_method CUDA, but {off!r} is not on a CUDA device; move the model, or use NATIVE"
            )
        if not has_cuda_kernels():
            raise RuntimeError(
                "init: quant_method CUDA, but this build of linger has no CUDA kernels; build it where nvcc is "
                "(LINGER_CUDA=1), or use NATIVE on the CPU"
            )
        for device in {p.device for p in model.parameters()}:
            capability = torch.cuda.get_device_capability(device)
            if capability < _OLDEST_GPU:
                raise RuntimeError(
                    f"init: quant_method CUDA, but {torch.cuda.get_device_name(device)} has compute capability "
                    f"{capability[0]}.{capability[1]}; the kernels need 7.5 or newer. Move the model to another GPU, or "
                    "use NATIVE on the CPU"
                )
