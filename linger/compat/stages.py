"""The classic calls around the two stages: ``normalize_layers``, ``disable_quant``, ``quant_module`` and their relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from linger.convert import trace_layers
from linger.convert.classic import BLEND, classic_settings
from linger.convert.constrain import apply_constraints
from linger.convert.convertible import target_class
from linger.convert.flow import Adjacency
from linger.convert.marks import leave_alone, own_settings
from linger.convert.patterns import Selection, with_own_settings
from linger.convert.prepare import check_root
from linger.errors import UnsupportedError
from linger.nn import RecurrentInt
from linger.nn.base import Converted, QuantLayer
from linger.nn.constrained.fused import FUSED, FusedBN
from linger.nn.constrained.layers import CONSTRAINED, Constrained
from linger.runtime import base_class, is_owner
from linger.settings import ClampInfo

_M = TypeVar("_M", bound=nn.Module)
_FUSED = tuple(dict.fromkeys(FUSED.values()))
DefaultNormalizeIntXModule: tuple[type[nn.Module], ...] = (
    nn.Conv2d, nn.Linear, nn.ConvTranspose2d, nn.Conv1d, nn.BatchNorm2d, nn.GRU, nn.LSTM, *_FUSED,
)  # fmt: skip
DefaultQuantIntXOP: tuple[type[nn.Module], ...] = (
    nn.BatchNorm2d, nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.Conv1d, nn.ReLU6, nn.GRU, nn.LSTM, *_FUSED,
)  # fmt: skip
_RENAMED = {
    "clamp_modules": "normalize_modules (normalize_layers) or quant_modules (init)",
    "replace_tuple": "normalize_modules (normalize_layers) or quant_modules (init)",
}
_WIDTHS = (4, 8, 16, 32)

trace_layer = trace_layers  # the name in older documents


def _module(value: Any, call: str) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise TypeError(f"{call}: module must be a torch.nn.Module, got {type(value).__name__}")
    return value


def _classes(given: Any, call: str, keyword: str) -> tuple[type[nn.Module], ...]:
    classes = (given,) if isinstance(given, type) else tuple(given)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"{call}: {keyword} must hold classes of torch.nn.Module, got {cls!r}")
    return classes


def _renamed(call: str, unknown: Mapping[str, Any]) -> None:
    for key in unknown:
        hint = f"; it is called {_RENAMED[key]}" if key in _RENAMED else ""
        raise TypeError(f"{call}: unexpected keyword {key!r}{hint}")


def _covered(m: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a set of classes names a module: its own class, one that it extends, or the torch class behind it."""
    if isinstance(m, FusedBN):
        return isinstance(m, classes)
    kinds: set[type[nn.Module]] = {base_class(m)}
    if isinstance(m, Constrained):
        kinds.add(m.float_class)
    return any(issubclass(kind, classes) for kind in kinds)


def disable_normalize(module: nn.Module) -> None:
    """Keep a module and everything below it out of ``normalize_layers`` (and ``constrain``); call it before.

    Raises:
        TypeError: ``module`` is no module.
    """
    leave_alone(_module(module, "disable_normalize"), "constrain", "disable_normalize")


def disable_quant(module: nn.Module) -> None:
    """Keep a module and everything below it in float; call it before ``linger.init``.

    Raises:
        TypeError: ``module`` is no module.
    """
    leave_alone(_module(module, "disable_quant"), "init", "disable_quant")


def normalize_layers(
    model: _M,
    *,
    normalize_modules: Any = DefaultNormalizeIntXModule,
    normalize_weight_value: float | None = 8,
    normalize_bias_value: float | None = None,
    normalize_output_value: float | None = 8,
    **unknown: Any,
) -> _M:
    """First stage of the classic flow: layers of the given classes become float layers with limits, in place.

    Pairs of layer and BatchNorm are those that ``trace_layers`` has fused; no others are looked for.

    Args:
        model: Changed in place and returned; Parameters keep their identity.
        normalize_modules: Classes to convert; fused pairs always are.
        normalize_weight_value: Weights stay in [-value, value], in real units; None: no limit.
        normalize_bias_value: The same for biases.
        normalize_output_value: The same for outputs.

    Raises:
        TypeError: An unknown keyword (older names are translated), or something that is no class.
        ConfigError: A value that is not above 0.
        RuntimeError: The model is already initialised.
    """
    _renamed("normalize_layers", unknown)
    check_root(model, "normalize_layers")
    if is_owner(model):
        raise RuntimeError("normalize_layers: the model is already initialised; it comes before linger.init")
    classes = (*_classes(normalize_modules, "normalize_layers", "normalize_modules"), *_FUSED)
    limits = ClampInfo(normalize_output_value, normalize_bias_value, None, normalize_weight_value)
    settings = with_own_settings(replace(classic_settings(), clamp_info=limits), model)
    selection = Selection(model, stage="constrain")
    for m in model.modules():
        if (target_class(m, CONSTRAINED) or isinstance(m, Constrained)) and not _covered(m, classes):
            selection.off.setdefault(id(m), "not in normalize_modules")
    apply_constraints(model, settings, selection, Adjacency(), blend=BLEND)
    return model


def normalize_module(
    module: nn.Module,
    type_modules: Any = DefaultNormalizeIntXModule,
    normalize_weight_value: float | None = 8,
    normalize_bias_value: float | None = 8,
    normalize_output_value: float | None = None,
) -> None:
    """Give a module and those below it limits of their own; call it before ``normalize_layers`` or ``constrain``.

    Args:
        module: Root of the part.
        type_modules: Classes that are meant.
        normalize_weight_value, normalize_bias_value, normalize_output_value: As in :func:`normalize_layers`.

    Raises:
        TypeError: ``module`` is no module.
        ConfigError: A value that is not above 0.
    """
    classes = _classes(type_modules, "normalize_module", "type_modules")
    limits = ClampInfo(normalize_output_value, normalize_bias_value, None, normalize_weight_value)
    values = {f"clamp_info.{key}": value for key, value in vars(limits).items()}
    own_settings(_module(module, "normalize_module"), values, lambda m: _covered(m, classes))


def _width(call: str, key: str, bits: Any) -> int:
    if bits not in _WIDTHS:
        raise ValueError(f"{call}: {key} must be one of {', '.join(map(str, _WIDTHS))}, got {bits!r}")
    return int(bits)


def _widths(call: str, data_bits: Any, parameter_bits: Any, out_bits: Any) -> dict[str, Any]:
    values = {
        "quant_info.input_bits": _width(call, "data_bits", data_bits),
        "quant_info.weight_bits": _width(call, "parameter_bits", parameter_bits),
    }
    if out_bits is not None:
        values["quant_info.output_bits"] = _width(call, "out_bits", out_bits)
    return values


def quant_module(module: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Widths, and limits in the 3.x form, of a module and everything below it.

    Two signatures; the keywords decide:

    * Classic, before ``linger.init``: ``quant_module(module, type_modules=DefaultQuantIntXOP, mode=QuantMode.QValue,
      data_bits=8, parameter_bits=8, out_bits=None)``.
    * 3.x, on a converted model: ``quant_module(module, c_activation_val=8.0, c_weight_val=8.0, c_bias_val=None,
      c_weight_factor=None, data_bits=8, weight_bits=8, bias_bits=32, out_bits=8)``.

    Raises:
        TypeError: Keywords of both, or unknown ones.
        ValueError: A width that no chip has.
    """
    _module(module, "quant_module")
    classic = {"type_modules", "mode", "parameter_bits"} & set(kwargs) or (args and not _is_limit(args[0]))
    if classic or not _is_converted(module) and not any(k.startswith("c_") or k in _NEW for k in kwargs):
        _quant_module_classic(module, "quant_module", *args, **kwargs)
    else:
        _requantize(module, *args, **kwargs)


_NEW = ("weight_bits", "bias_bits")


def _is_limit(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _is_converted(module: nn.Module) -> bool:
    return any(isinstance(m, Converted) for m in module.modules())


def quant_module_by_type(
    module: nn.Module,
    type_modules: Any = DefaultQuantIntXOP,
    mode: Any = None,
    data_bits: int = 8,
    parameter_bits: int = 8,
    out_bits: int | None = None,
) -> None:
    """Widths of the layers of some classes below a module; call it before ``linger.init``.

    Args:
        module: Root of the part.
        type_modules: Classes that are meant.
        mode: ``QuantMode.QValue``, the only one.
        data_bits, parameter_bits, out_bits: Widths of input, weight and output.

    Raises:
        ValueError: A width that no chip has.
    """
    _quant_module_classic(module, "quant_module_by_type", type_modules, mode, data_bits, parameter_bits, out_bits)


def _quant_module_classic(
    module: nn.Module,
    call: str,
    type_modules: Any = DefaultQuantIntXOP,
    mode: Any = None,
    data_bits: int = 8,
    parameter_bits: int = 8,
    out_bits: int | None = None,
) -> None:
    if _is_converted(module):
        raise RuntimeError(f"{call}: the module is already initialised; widths are set before linger.init")
    classes = _classes(type_modules, call, "type_modules")
    own_settings(module, _widths(call, data_bits, parameter_bits, out_bits), lambda m: _covered(m, classes))


def _requantize(
    module: nn.Module,
    c_activation_val: float | None = 8.0,
    c_weight_val: float | None = 8.0,
    c_bias_val: float | None = None,
    c_weight_factor: float | None = None,
    data_bits: int = 8,
    weight_bits: int = 8,
    bias_bits: int = 32,
    out_bits: int = 8,
) -> None:
    """The 3.x form: new widths and limits for layers that are converted; statistics stay."""
    if not _is_converted(module):
        raise RuntimeError("quant_module: nothing below the module is initialised; the 3.x form follows linger.init")
    if bias_bits != 32:
        raise ValueError(f"quant_module: bias_bits must be 32, the only width the chips have, got {bias_bits}")
    limits = ClampInfo(c_activation_val, c_bias_val, c_weight_factor, c_weight_val)
    widths: dict[str, Any] = {
        "input_bits": _width("quant_module", "data_bits", data_bits),
        "weight_bits": _width("quant_module", "weight_bits", weight_bits),
        "output_bits": _width("quant_module", "out_bits", out_bits),
    }
    for m in module.modules():
        if isinstance(m, RecurrentInt) and any(getattr(m.quant, k) != v for k, v in widths.items()):
            raise UnsupportedError(
                f"quant_module: {type(m).__name__} has 8 bits throughout; pass the layers that are meant"
            )
        if isinstance(m, Converted):
            m.quant = replace(m.quant, clamp=limits, **widths)
        if isinstance(m, QuantLayer):
            for quantizer, bits in (
                (m.input_quantizer, data_bits),
                (m.weight_quantizer, weight_bits),
                (m.output_quantizer, out_bits),
            ):
                quantizer.bits = bits


def const_module(
    module: nn.Module,
    c_activation_val: float | None = 8.0,
    c_weight_val: float | None = 8.0,
    c_bias_val: float | None = None,
    c_weight_factor: float | None = None,
) -> None:
    """New limits for the constrained layers below a module (3.x).

    Args:
        module: Root of the part.
        c_activation_val, c_weight_val, c_bias_val: Limits in real units, None: off.
        c_weight_factor: Limit of the weights in multiples of mean|w|; a static value wins.

    Raises:
        RuntimeError: Nothing below the module is constrained.
        ConfigError: A limit that is not above 0.
    """
    limits = ClampInfo(c_activation_val, c_bias_val, c_weight_factor, c_weight_val)
    found = [m for m in _module(module, "const_module").modules() if isinstance(m, Constrained)]
    if not found:
        raise RuntimeError("const_module: nothing below the module is constrained; call linger.constrain first")
    for m in found:
        m.apply_clamp_info(limits)
