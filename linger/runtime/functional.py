"""State of functional operators (``+``, ``torch.cat`` ...): one module per call site, held by the owner."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import nn

from linger.errors import UnsupportedError
from linger.quantizers import Quantizer, in_ddp_forward

from . import sites
from .containers import PREFIX
from .owners import BOUNDARY
from .sites import StoredSite
from .state import Frame, StaysFloat, state

_KEY = re.compile(re.escape(PREFIX) + r"q([a-z_]+)_(\d+)\.(?:input_quantizer\.(\d+)\.)?")
_log = logging.getLogger("linger")

# operator -> makes its module from the number of inputs and the settings of the layer
Factory = Callable[[int, Any], nn.Module]
FACTORIES: dict[str, Factory] = {}
NEW_OPERATOR = (
    "_linger_new_operator"  # in the __dict__ of an owner: called with name and module of what is created in it
)

BORN: list[
    Callable[[nn.Module], None]
] = []  # called with the outermost owner when an operator with parameters is new in training


def factory(operator: str) -> Callable[[Factory], Factory]:
    """Register how the module of a functional operator is made, e.g. ``"add"``."""

    def register(make: Factory) -> Factory:
        FACTORIES[operator] = make
        return make

    return register


def _number(attribute: str) -> int:
    return int(attribute.rsplit("_", 1)[1])


def _operators(owner: nn.Module) -> list[str]:
    return [a for a in owner._modules if a.startswith(PREFIX)]


def _qualified(owner: nn.Module, attribute: str) -> str:
    return ".".join(filter(None, (owner.__dict__["_linger_name"], attribute)))


def _stays_float(owner: nn.Module, attribute: str) -> bool:
    """Whether a section of the settings keeps this operator in float."""
    settings = owner.__dict__["_linger_settings"]
    return any(not section.open_quant for section in settings.sections) and not (
        settings.layer(_qualified(owner, attribute)).open_quant
    )


def _create(owner: nn.Module, attribute: str, operator: str, n_inputs: int) -> nn.Module:
    name = _qualified(owner, attribute)
    if _stays_float(owner, attribute):
        raise StaysFloat(
            f"linger: open_quant is false in the section that covers '{name}': call `{operator}` of torch there"
        )
    first = f"linger: `{operator}` of '{owner.__dict__['_linger_name'] or type(owner).__name__}' was first met"
    if owner.__dict__.get("_is_replica", False):
        raise UnsupportedError(
            f"{first} inside a DataParallel replica; "
            "run one forward (or linger.init(..., example_inputs=...)) before wrapping the model"
        )
    if in_ddp_forward():
        raise UnsupportedError(
            f"{first} under DistributedDataParallel, which synchronises only what existed when the model was wrapped; "
            "call linger.init(..., example_inputs=...) (or run one forward) before wrapping the model"
        )
    module = FACTORIES[operator](n_inputs, owner.__dict__["_linger_settings"].layer(name))
    module.__dict__["_linger_name"] = name
    verify = getattr(module, "verify", None)
    if verify is not None:
        verify()
    for child_name, child in module.named_modules():
        if isinstance(child, Quantizer):
            child.name = f"{name}.{child_name}"
    module.train(owner.training)
    reference = next(owner.parameters(), None)
    if reference is not None:
        module.to(reference.device)
    owner.add_module(attribute, module)
    announce = owner.__dict__.get(NEW_OPERATOR)
    if announce is not None:
        announce(name, module)
    if state.frames and owner.training and next(module.parameters(), None) is not None:  # none while a file is loaded
        for tell in BORN:
            tell(state.frames[0].owner)
    return module


def _stored(operator: str, calls: list[sites.Position], visit: int) -> StoredSite:
    return (operator, tuple(sites.step(c) for c in calls), visit)


def _bind(owner: nn.Module, site: StoredSite) -> str | None:
    """Attribute of a loaded operator for a site met for the first time, or None: create one.

    The stored site decides. Where the checkpoint has no sites, or its code was another, operators of the same kind bind
    in order with one warning; more calls than the checkpoint has operators are an error.
    """
    known: dict[StoredSite, str] = owner.__dict__["_linger_sites"]
    if site in known:
        return known[site]
    operator = site[0]
    loaded: set[str] = owner.__dict__.get("_linger_loaded", set())
    candidates = [a for a in loaded if a.startswith(f"{PREFIX}q{operator}_") and a in owner._modules]
    if not candidates:
        return None
    stored: dict[StoredSite, str] = owner.__dict__.get("_linger_stored", {})
    prints = {step[2] for s in stored if s[0] == operator for step in s[1]}
    if prints and {step[2] for step in site[1]} <= prints:
        return None  # the code is the same: this call was simply never run before the checkpoint was written
    used: set[str] = owner.__dict__.setdefault("_linger_rebound", set())
    free = sorted((a for a in candidates if a not in used), key=_number)
    name = owner.__dict__["_linger_name"] or type(owner).__name__
    if not free:
        raise UnsupportedError(
            f"linger: '{name}' calls `{operator}` more often than the loaded checkpoint has operators "
            f"({len(candidates)}), and its code has changed since: their order no longer tells which is which"
        )
    if not used:
        _log.warning("linger: `%s` operators of '%s' are matched to the checkpoint by their order", operator, name)
    used.add(free[0])
    for s in [s for s, a in known.items() if a == free[0]]:
        del known[s]
    return free[0]


def operator_at_site(operator: str, n_inputs: int) -> nn.Module:
    """The module of the functional operator that user code is calling now; created at its first call.

    Args:
        operator: Name registered with :func:`factory`.
        n_inputs: Number of tensor operands.

    Raises:
        UnsupportedError: Called outside a converted model, or a new operator inside a DataParallel replica or DDP.
        StaysFloat: A section of the settings keeps it in float.
    """
    if not state.frames:
        raise UnsupportedError(f"linger: quantized `{operator}` was called outside a converted model")
    frame = state.frames[-1]
    owner = frame.owner
    if torch.compiler.is_dynamo_compiling():
        return _traced_operator(frame, operator, n_inputs)
    if frame.active:
        positions, entry = sites.method_calls(sys._getframe(1), owner)
        frame.begins(entry)
    else:
        positions = sites.user_calls(sys._getframe(1), BOUNDARY)
    key = (operator, *positions)
    visit = frame.visits.get(key, 0)
    frame.visits[key] = visit + 1
    bindings: dict[Any, str] = owner.__dict__.setdefault("_linger_bindings", _Transient())
    attribute = bindings.get((key, visit))
    if attribute is not None:
        return owner._modules.get(attribute) or _create(owner, attribute, operator, n_inputs)
    sites.refuse_checkpointed_function(operator, sys._getframe(1), BOUNDARY)
    earlier = {bindings.get((k, v), "") for k, n in frame.visits.items() for v in range(n) if (k, v) != (key, visit)}
    attribute = bindings[key, visit] = _attribute(owner, operator, positions, visit, earlier)
    return owner._modules.get(attribute) or _create(owner, attribute, operator, n_inputs)


def _attribute(
    owner: nn.Module,
    operator: str,
    positions: list[sites.Position],
    visit: int,
    earlier: Container[str] = (),
) -> str:
    """Name of the operator's module in its owner.

    Functions of one name and one fingerprint (lambdas, mostly) share their stored sites: what another of them has used
    ``earlier`` in this forward counts as a visit more.
    """
    site = _stored(operator, positions, visit)
    known: dict[StoredSite, str] = owner.__dict__["_linger_sites"]
    while known.get(site) in earlier:
        visit += 1
        site = _stored(operator, positions, visit)
    attribute = _bind(owner, site)
    if attribute is None:
        taken = {*_operators(owner), *known.values()}  # those in float have a number, too
        attribute = f"{PREFIX}q{operator}_{max(map(_number, taken), default=-1) + 1}"
    known[site] = attribute
    return attribute


def _traced_operator(frame: Frame, operator: str, n_inputs: int) -> nn.Module:
    """As :func:`operator_at_site` while dynamo traces: what concerns the site is done once, at trace time."""
    key = _traced_key(operator)
    visit = frame.visits.get(key, 0)
    frame.visits[key] = visit + 1
    module: nn.Module = getattr(frame.owner, _traced_attribute(frame.owner, operator, n_inputs, visit))
    return module


def _traced_key(operator: str) -> str:
    return f"{operator} {[sites.step(call) for call in sites.traced_calls(BOUNDARY)]}"


def _traced_attribute(owner: nn.Module, operator: str, n_inputs: int, visit: int) -> str:
    from torch._dynamo.exc import RestartAnalysis

    known = len(owner._modules)
    attribute = _attribute(owner, operator, sites.traced_calls(BOUNDARY), visit)
    if owner._modules.get(attribute) is None:
        if _stays_float(owner, attribute):
            raise UnsupportedError(
                f"linger: torch.compile does not see that '{_qualified(owner, attribute)}' stays in float (open_quant: false in "
                f"a section): run the model uncompiled, or switch off `{operator}` in the whole model (`operators`)"
            )
        _create(owner, attribute, operator, n_inputs)
    if len(owner._modules) != known:  # dynamo has taken stock of the owner already: let it look again
        sites.forget_trace()  # code that goes through the owner's children takes other steps the next time
        raise RestartAnalysis(restart_reason=f"linger created {attribute}")
    return attribute


for _constant in (_traced_key, _traced_attribute):  # torch.compiler.assume_constant_result, without importing dynamo
    _constant.__dict__["_dynamo_marked_constant"] = True


class _Transient(dict[Any, str]):
    """Bindings to code objects: neither copied nor pickled, found again at the next call."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (_Transient, ())

    def __deepcopy__(self, memo: Any) -> _Transient:
        return _Transient()


def create_from_state(
    owner: nn.Module, state_dict: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]
) -> None:
    """Create the operators of ``owner`` that a checkpoint contains, before any forward has met them."""
    found: dict[str, tuple[str, int]] = {}
    for key in state_dict:
        match = _KEY.match(key[len(prefix) :]) if key.startswith(prefix) else None
        if match:
            attribute = f"{PREFIX}q{match[1]}_{match[2]}"
            n_inputs = max(found.get(attribute, ("", 0))[1], int(match[3]) + 1 if match[3] else 0)
            found[attribute] = (match[1], n_inputs)
    if found and "linger_sites" not in metadata:
        _check_counts(owner, found)
    for attribute, (operator, n_inputs) in sorted(found.items(), key=lambda item: _number(item[0])):
        if attribute not in owner._modules and operator in FACTORIES and not _stays_float(owner, attribute):
            _create(owner, attribute, operator, n_inputs)
    if found:
        owner.__dict__["_linger_loaded"] = set(found)
        owner.__dict__["_linger_rebound"] = set()
        owner.__dict__["_linger_bindings"] = _Transient()
        stored = {_site(s): a for s, a in metadata.get("linger_sites", []) if a in found or _stays_float(owner, a)}
        owner.__dict__["_linger_stored"] = stored
        owner.__dict__["_linger_sites"] = dict(stored)


def _check_counts(owner: nn.Module, found: Mapping[str, tuple[str, int]]) -> None:
    """Without call sites operators of one kind are matched by their order: there must be as many as the model has met.

    Raises:
        UnsupportedError: Names the owner, the operator and both counts.
    """
    mine = [match[1] for a in _operators(owner) if (match := _KEY.match(f"{a}."))]
    theirs = [operator for operator, _ in found.values()]
    for operator in sorted(set(theirs)):
        here, there = mine.count(operator), theirs.count(operator)
        if here > there:
            name = owner.__dict__.get("_linger_name") or type(owner).__name__
            raise UnsupportedError(
                f"linger: '{name}' has {here} operators `{operator}`, the checkpoint has the state of {there} and no record of "
                "their places: it was made of other code, or its metadata was dropped; save it with linger.save, or load it into "
                "a model whose forward has not run yet"
            )


def _site(raw: Any) -> StoredSite:
    operator, steps, visit = raw
    return (str(operator), tuple((str(n), int(r), str(f)) for n, r, f in steps), int(visit))


def _save_hook(owner: nn.Module, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
    known = owner.__dict__.get("_linger_sites")
    if known:
        local_metadata["linger_sites"] = [(site, attribute) for site, attribute in known.items()]


def _load_hook(
    owner: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *_: Any
) -> None:
    create_from_state(owner, state_dict, prefix, local_metadata)


def register_state_hooks(owner: nn.Module) -> None:
    """Let ``owner`` write its call sites beside its state and recreate its operators on load."""
    hooks: Any = owner
    hooks._register_state_dict_hook(_save_hook)
    hooks.register_load_state_dict_pre_hook(_load_hook)
