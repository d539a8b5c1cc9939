"""Loading: every checkpoint of the same network fits, whatever stage it comes from; whatever does not fit is an error."""

from __future__ import annotations

import logging
import os
import re
import warnings
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from linger.errors import UnsupportedError
from linger.files import reading
from linger.nn.constrained.fused import MARK, FusedBN, fold
from linger.nn.constrained.layers import clamp, clamp_weight
from linger.nn.layers.batch_norm_folding import FOLDING

from .materialise import rest_unused
from .partial_load import lost_norms
from .patterns import nearest
from .prepare import ConversionRecord, Fusion, record_of

__all__ = [
    "NESTS",
    "StateDict",
    "converted_models",
    "inner_state",
    "install",
    "only_tensors",
    "open_checkpoint",
    "read_file",
    "strip_wrappers",
    "told_by_translators",
    "translate_keys",
    "when_converted",
]

State = MutableMapping[str, Any]
_log = logging.getLogger("linger")
_BN_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_WRAPPERS = ("module.", "_orig_mod.")
_COUNTERS = ("total_ops", "total_params")  # buffers that thop leaves on modules for which it has no rule
NESTS = ("state_dict", "model_state_dict", "model", "net")
_STRICT = "_linger_strict"  # in the __dict__ of a root that loads: what load_state_dict was told
_QUANTIZER = re.compile(r"_quantizer\.|_linger_qtensor_")


def strip_wrappers(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove ``module.`` and ``_orig_mod.`` (DataParallel, torch.compile) where every key carries it; metadata follows."""
    while state:
        prefix = next((p for p in _WRAPPERS if all(k.startswith(p) for k in state)), None)
        if prefix is None:
            break
        metadata = getattr(state, "_metadata", None)
        inner = StateDict({k[len(prefix) :]: v for k, v in state.items()})
        if metadata is not None:
            bare = prefix[:-1]
            moved = {k: v for k, v in metadata.items() if k == bare or k.startswith(prefix)}
            inner._metadata = {k[len(prefix) :] if k != bare else "": v for k, v in moved.items()}
        state = inner
    return state


class StateDict(dict[str, Any]):
    """A state dictionary that can carry ``_metadata``."""

    _metadata: Any = None


def read_file(path: str | os.PathLike[str] | BinaryIO, device: torch.device | None) -> Any:
    """What ``torch.save`` wrote; no code in it is run.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no file of ``torch.save``, is damaged, or holds code.
    """
    try:
        if not isinstance(path, (str, os.PathLike)):
            return torch.load(path, map_location=device, weights_only=True)
        with reading(path, "linger.save(model, path)") as file:
            return torch.load(file, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise anything
        name = repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else type(path).__name__
        raise ValueError(f"{name} is no checkpoint, or holds code, which is never run") from error


def only_tensors(state: Mapping[str, Any]) -> None:
    """Refuse what is no state dictionary.

    Raises:
        TypeError: Names the first value that is no tensor.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor) and not str(key).rpartition(".")[2] == "_extra_state":
            raise TypeError(
                f"this holds no state dictionary: {key!r} is {type(value).__name__}, not a tensor (it may also lie "
                f"under one of the keys {', '.join(NESTS)})"
            )


def open_checkpoint(source: Any, device: torch.device | None) -> Mapping[str, Any]:
    """A state dictionary from one, from a file that ``torch.save`` wrote, or from a dictionary that holds one.

    Files are read with ``weights_only=True``: no pickled code runs.

    Raises:
        TypeError: Neither a mapping nor a path, or a file with something else in it.
    """
    where = ""
    if isinstance(source, (str, os.PathLike)):
        where = f" {os.fspath(source)!r}"
        source = read_file(source, device)
    if not isinstance(source, Mapping):
        raise TypeError(
            f"load_state_dict: expected a state dictionary or a path to one{where}, got {type(source).__name__}"
        )
    state = inner_state(source)[0]
    only_tensors(state)
    return strip_wrappers(state)


def inner_state(source: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """The state dictionary that a dictionary is, or holds, and the key it is under."""
    if any(isinstance(v, Tensor) for v in source.values()):
        return source, None
    key = next((k for k in NESTS if isinstance(source.get(k), Mapping)), None)
    return (source, None) if key is None else (source[key], key)


class _Loader:
    """``model.load_state_dict`` of a converted root: takes a path, nested dictionaries and wrappers' prefixes too."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        device = next((p.device for p in self.model.parameters()), None)
        state = open_checkpoint(state_dict, device)
        hints = self.model.__dict__.setdefault("_linger_hints", [])
        hints.clear()
        self.model.__dict__[_STRICT] = strict
        try:
            return type(self.model).load_state_dict(self.model, state, strict=strict, assign=assign)
        except UnsupportedError:
            raise
        except RuntimeError as exc:
            raise RuntimeError("\n\t".join([str(exc), *hints])) from None
        finally:
            hints.clear()
            self.model.__dict__.pop(_STRICT, None)


_TOLD = "_linger_told"  # in the __dict__ of a root: sentences about the keys of a state
Translator = Callable[[nn.Module, MutableMapping[str, Any]], list[str]]
_translators: list[Translator] = []


def translate_keys(translator: Translator) -> None:
    """Let a function rewrite the keys of every state that a converted model loads (keys relative to the model, in place).

    It returns sentences about what it did. Known functions are not added again.
    """
    if translator not in _translators:
        _translators.append(translator)


def told_by_translators(model: nn.Module) -> list[str]:
    """What was done to the keys of the state that was loaded last, by all converted parts of a model."""
    return [sentence for m in model.modules() for sentence in m.__dict__.pop(_TOLD, [])]


_converted: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_listeners: list[Callable[[nn.Module], None]] = []


def converted_models() -> list[nn.Module]:
    """The roots of this process that were converted and are alive."""
    return list(_converted)


def when_converted(listener: Callable[[nn.Module], None]) -> None:
    """Call a function with every root that is converted from now on, after each stage; known ones are not added again."""
    if listener not in _listeners:
        _listeners.append(listener)


def install(model: nn.Module, record: ConversionRecord) -> None:
    """Leave the record on the root, and the hooks that write and read it with the state (once)."""
    first = record_of(model) is None
    model.__dict__["_linger_record"] = record
    _converted.add(model)
    for listener in _listeners:
        listener(model)
    if first:
        model.__dict__["load_state_dict"] = _Loader(model)
        model.register_state_dict_post_hook(_write_metadata)  # type: ignore[no-untyped-call]
        model.register_load_state_dict_pre_hook(_adapt)  # type: ignore[no-untyped-call]
        model.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]


def _write_metadata(model: nn.Module, state: State, prefix: str, local_metadata: dict[str, Any]) -> None:
    record = record_of(model)
    if record is not None:
        local_metadata["linger"] = record.metadata()


def _adapt(
    model: nn.Module,
    state: dict[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Rewrite the keys of `state` to what this model has. Runs before any module of the model loads."""
    record = record_of(model)
    if record is None:
        return
    theirs = local_metadata.get("linger")
    theirs = theirs if isinstance(theirs, Mapping) else None
    given = {k[len(prefix) :]: state.pop(k) for k in [k for k in state if k.startswith(prefix)]}
    given = dict(strip_wrappers(given))
    for translator in _translators:
        told = translator(model, given)
        model.__dict__.setdefault(_TOLD, []).extend(told)
        for sentence in told:
            _log.info("linger: load_state_dict %s", sentence)
    lost = lost_norms(model, record.fusions, given, model.__dict__.get(_STRICT, False))  # torch says True to every hook
    if lost:
        warnings.warn("linger: load_state_dict: " + "\n  ".join(lost), stacklevel=2)
    _counters(model, given)
    for fusion in record.fusions:
        _fused(model, fusion, given, errors)
    _separate(model, record, given, theirs, errors)
    _weights(model, given, theirs)
    if theirs is not None:
        if theirs.get("stage") == record.stage == "init" and "engine" not in theirs:
            _unrecorded_engine(model, record)
        _compare(record, theirs)
    model.__dict__.setdefault("_linger_hints", []).extend(_suggestions(model, given))
    state.update({prefix + k: v for k, v in given.items()})


def _counters(model: nn.Module, given: State) -> None:
    """What a counter of operations leaves on modules belongs to no checkpoint, and is missing from none."""
    mine = {name: b for name, b in model.named_buffers() if name.rpartition(".")[2] in _COUNTERS}
    for key in [k for k in given if k.rpartition(".")[2] in _COUNTERS and k not in mine]:
        del given[key]
    given.update({name: b for name, b in mine.items() if name not in given})


def _loaded(model: nn.Module, keys: Any) -> None:
    rest_unused(model)


def _take(given: State, prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {n: given.pop(prefix + n) for n in names if prefix + n in given}


def _fused(model: nn.Module, fusion: Fusion, given: State, errors: list[str]) -> None:
    """Bring one fused pair into this model's form, whichever form the checkpoint has it in."""
    x, y = f"{fusion.layer}." if fusion.layer else "", f"{fusion.bn}."
    inner = x + fusion.first + "."
    module = model.get_submodule(fusion.layer)
    layer = _take(given, inner, ("weight", "bias")) or _take(given, x, ("weight", "bias"))
    bn = _take(given, x + "bn.", _BN_KEYS) or _take(given, y, _BN_KEYS)
    marked = given.pop(y + MARK, None) is not None
    if not layer:
        return  # torch reports what is missing
    mark, device = model.get_buffer(y + MARK), next(iter(layer.values())).device
    given[y + MARK] = torch.zeros_like(mark, device=device) if mark.is_meta else mark
    if isinstance(module, (FusedBN, *FOLDING.values())):
        if not bn and marked:
            errors.append(
                f"'{fusion.layer}': the checkpoint has its BatchNorm folded into the weight; it loads into a model of "
                "linger.init(..., fold_bn='once') only"
            )
        at = inner if isinstance(module, FusedBN) else x
        given.update({at + k: v for k, v in layer.items()})
        given.update({f"{x}bn.{k}": v for k, v in bn.items()})
        counter = f"{x}bn.num_batches_tracked"
        norm: Any = module.bn
        if bn and counter not in given and norm.num_batches_tracked is not None:
            mine = norm.num_batches_tracked.detach()
            given[counter] = torch.zeros_like(mine, device=device) if mine.is_meta else mine
        return
    if bn:
        layer = _fold_state(module, fusion, layer, bn, errors)
        for name in [k for k in given if k.startswith(y) and k != y + MARK]:
            errors.append(f"'{name}' belongs to a BatchNorm that is folded into '{fusion.layer}'")
    given.update({x + k: v for k, v in layer.items()})


def _fold_state(
    module: nn.Module, fusion: Fusion, layer: dict[str, Any], bn: dict[str, Any], errors: list[str]
) -> dict[str, Any]:
    affine = [name for name, has in (("weight", True), ("bias", fusion.biased)) if has and fusion.affine]
    needed = ("running_mean", "running_var", *affine)
    absent = [k for k in needed if k not in bn]
    if absent or "weight" not in layer:
        errors.append(
            f"'{fusion.bn}': {', '.join(absent) or 'the weight in front of it'} is missing from the checkpoint"
        )
        return layer
    own: Any = module
    w = layer["weight"].detach()
    if w.shape != own.weight.shape or bn["running_var"].shape[0] != own.bias.shape[0]:
        return layer  # torch reports the shapes
    first = SimpleNamespace(
        weight=w.float(),
        bias=None if layer.get("bias") is None else layer["bias"].detach().float(),
        transposed=getattr(own, "transposed", False),
        groups=getattr(own, "groups", 1),
    )
    gain = SimpleNamespace(
        eps=fusion.eps, **{k: bn[k].detach().float() if k in bn else None for k in ("weight", "bias")}
    )
    folded, shift = fold(first, gain, bn["running_mean"].detach().float(), bn["running_var"].detach().float())
    return {"weight": folded.to(w.dtype), "bias": shift.to(w.dtype)}


def _separate(
    model: nn.Module, record: ConversionRecord, given: State, theirs: Mapping[str, Any] | None, errors: list[str]
) -> None:
    """Take apart pairs that the checkpoint has fused and this model has not."""
    mine = {f.layer for f in record.fusions}
    pairs = [(str(a), str(b)) for a, b in theirs.get("fusions", [])] if theirs is not None else []
    for layer, bn in pairs:
        if layer in mine:
            continue
        inner = next((f"{layer}.{n}." for n in ("conv", "linear") if f"{layer}.{n}.weight" in given), f"{layer}.")
        norm = _take(given, f"{layer}.bn.", _BN_KEYS)
        if given.pop(f"{bn}.{MARK}", None) is not None and not norm and f"{bn}.running_mean" not in given:
            errors.append(
                f"'{bn}' is folded into '{layer}' in the checkpoint but stands alone in this model: pass example_inputs "
                "so that the pair is found here too"
            )
        given.update({f"{layer}.{k}": v for k, v in _take(given, inner, ("weight", "bias")).items()})
        given.update({f"{bn}.{k}": v for k, v in norm.items()})


def _weights(model: nn.Module, given: State, theirs: Mapping[str, Any] | None) -> None:
    """A weight that arrives without its quantizer's state starts over; one from the constrained stage arrives clamped."""
    constrained = theirs is not None and theirs.get("stage") == "constrain"
    for name, module in model.named_modules():
        at = f"{name}." if name else ""
        quantizer: Any = getattr(module, "weight_quantizer", None)
        key = at + "weight"
        if quantizer is None or key not in given or any(k.startswith(at + "weight_quantizer.") for k in given):
            continue
        quantizer.reset()
        weight, quant = given[key], getattr(module, "quant", None)
        if not constrained or quant is None or not isinstance(weight, Tensor):
            continue
        left = theirs.get("left", {}) if theirs is not None else {}
        if name in left:
            continue
        info = quant.clamp
        given[key] = clamp_weight(weight.detach(), info.clamp_weight_value, info.clamp_factor_value)
        if "is_init_mom_clamp_weight" in quantizer._buffers:
            given[at + "weight_quantizer.is_init_mom_clamp_weight"] = torch.tensor(True)
        if given.get(at + "bias") is not None:
            given[at + "bias"] = clamp(given[at + "bias"].detach(), info.clamp_bias_value)


def _unrecorded_engine(model: nn.Module, record: ConversionRecord) -> None:
    """The checkpoint is from before engines were recorded: the model computes as it did then, unless the caller chose one."""
    if "engine" in record.settings.explicit:
        return
    record.settings = replace(record.settings, engine=None)
    record.__dict__.pop("settings_text", None)
    for m in model.modules():
        if "_linger_settings" in m.__dict__:
            m.__dict__["_linger_settings"] = replace(m.__dict__["_linger_settings"], engine=None)


def _compare(record: ConversionRecord, theirs: Mapping[str, Any]) -> None:
    """Warn about settings that differ from those the checkpoint was trained with."""
    mine = record.metadata()
    found = [
        f"{key}: {theirs.get(key)} in the checkpoint, {mine[key]} here"
        for key in ("platform", "qat_method", "engine")
        if theirs.get(key) not in (None, mine[key])
    ]
    if theirs.get("stage") == record.stage:
        bits = theirs.get("bits", {})
        found += [
            f"{n}: bits {bits[n]} in the checkpoint, {b} here" for n, b in mine["bits"].items() if bits.get(n, b) != b
        ]
    off, mine_off = set(theirs.get("left", {})), set(mine["left"])
    known = set(mine["bits"]) | mine_off
    verb = {"constrain": "constrained", "init": "quantized", "trace_layers": "fused"}
    there, here = verb.get(str(theirs.get("stage")), "converted"), verb.get(record.stage, "converted")
    found += [f"{n}: {there}=off, {here}=on" for n in sorted(off & known - mine_off)]
    found += [f"{n}: {there}=on, {here}=off" for n in sorted((mine_off - off) & set(theirs.get("bits", {})))]
    if found:
        warnings.warn("linger: settings differ from those of the checkpoint:\n  " + "\n  ".join(found), stacklevel=2)


def _suggestions(model: nn.Module, given: State) -> list[str]:
    """For keys that do not fit, the ones that were probably meant. Shown only when the load fails."""
    hints = []
    expected = set(model.state_dict())
    extra = [k for k in given if k not in expected and not _QUANTIZER.search(k)]
    absent = [k for k in expected if k not in given and not _QUANTIZER.search(k)]
    for key in extra[:20]:
        close = nearest(key, absent, 1) or nearest(key, expected, 1)
        if close:
            hints.append(f"'{key}' is not a key of this model; nearest: '{close[0]}'")
    return hints
