"""Which modules a call covers: ``disable_module``, ``disable_submodel`` and the names of sections."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from linger.errors import config_error
from linger.nn.constrained.layers import Constrained
from linger.runtime import OPERATOR_OF, base_class
from linger.settings import Section, Settings, covers

from .convertible import target_class
from .marks import left_reason, settings_of

__all__ = ["Selection", "check_operators", "check_sections", "limits_of", "names_of", "nearest", "with_own_settings"]

_FUNCTIONAL = "_linger_qtensor_"


def names_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every qualified name, shared modules under each of theirs."""
    return dict(model.named_modules(remove_duplicate=False))


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The known names that look most like `name`."""
    return difflib.get_close_matches(name, list(known), n, 0.5)


def _hint(pattern: str, known: Iterable[str]) -> str:
    names = [n for n in known if n]
    close = nearest(pattern.rstrip("*"), names) or sorted(names)[:8]
    return f"nearest: {', '.join(close)}" if close else "the model has no submodules"


class Selection:
    """What one call of ``constrain`` or ``init`` leaves alone, and why.

    Args:
        model: The root.
        disable_module: A module class or several; their subclasses count too.
        disable_submodel: A pattern or several: qualified names (with everything below them) or shell globs.
        stage: Modules that are marked to be left alone in this stage count too (:mod:`marks`).
        settings: Modules that its sections keep in float (``open_quant: false``) count too.

    Raises:
        TypeError: A class that is none, or a pattern that is no text.
        ValueError: A pattern that matches no module; the message lists near misses.
    """

    def __init__(
        self,
        model: nn.Module,
        disable_module: Any = None,
        disable_submodel: Any = None,
        stage: str = "",
        settings: Settings | None = None,
    ) -> None:
        self.names = names_of(model)
        self.classes = self._classes(disable_module)
        patterns = (disable_submodel,) if isinstance(disable_submodel, str) else tuple(disable_submodel or ())
        self.off: dict[int, str] = {id(m): why for m in self.names.values() if (why := left_reason(m, stage))}
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"disable_submodel: expected module-name patterns, got {type(pattern).__name__}")
            hits = [m for name, m in self.names.items() if name and covers(pattern, name)]
            if not hits:
                raise ValueError(f"disable_submodel: {pattern!r} matches no module; {_hint(pattern, self.names)}")
            self.off.update({id(m): f"disable_submodel {pattern!r}" for m in hits})
        if settings is not None and any(not section.open_quant for section in settings.sections):
            closed = [m for name, m in self.names.items() if name and not settings.layer(name).open_quant]
            self.off.update({id(m): "open_quant: false in its section" for m in closed})

    @staticmethod
    def _classes(given: Any) -> tuple[type[nn.Module], ...]:
        single = isinstance(given, (type, nn.Module, str))
        classes = (given,) if single else tuple(() if given is None else given)
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
                raise TypeError(f"disable_module: expected classes of torch.nn.Module, got {cls!r}")
        return classes

    def disabled(self, m: nn.Module, *also: type[nn.Module]) -> str | None:
        """Why a module stays as it is, or None. `also`: classes it stands for (those of a fused layer's children)."""
        why = self.off.get(id(m))
        if why is None:
            for cls in self.classes:
                if issubclass(base_class(m), cls) or any(issubclass(c, cls) for c in also):
                    return f"disable_module {cls.__name__}"
        return why

    def within(self, m: nn.Module, table: Any) -> bool:
        """Whether a module's class is in a set of classes (``quant_modules``)."""
        return target_class(m, table) is not None


def check_operators(settings: Settings) -> None:
    """Refuse settings that name an operator which user code cannot call.

    Raises:
        ConfigError: With file, line and near misses.
    """
    known = set(OPERATOR_OF.values())
    for name, _ in settings.operators:
        if name not in known:
            close = nearest(name, known) or sorted(known)
            raise settings.error(f"operators.{name}", f"no operator has this name; nearest: {', '.join(close)}")


def check_sections(model: nn.Module, settings: Settings) -> None:
    """Refuse sections that name nothing of this model.

    Raises:
        ConfigError: With file, line and near misses.
    """
    names = names_of(model)
    for section in settings.sections:
        for pattern in section.name:
            owner, functional, _ = pattern.partition(_FUNCTIONAL)
            owner = owner.rstrip(".")
            if functional and (owner in names or any(covers(owner, name) for name in names)):
                continue  # operators that the first forward creates
            if not any(covers(pattern, name) for name in names):
                what = f"section {section.key!r}: name {pattern!r} matches no module; {_hint(pattern, names)}"
                if any(c in pattern for c in "*?["):
                    what += f"; operators between layers have names such as {_FUNCTIONAL}qadd_0, see linger.summary"
                raise config_error(what, file=settings.file, line=section.line or None, key=section.key)


def limits_of(m: nn.Module) -> dict[str, Any]:
    """The limits of a constrained layer, by dotted key; empty where it has none."""
    if not isinstance(m, Constrained):
        return {}
    limits = {
        "activation": m.normalize_data,
        "bias": m.normalize_bias,
        "factor": m.normalize_factor,
        "weight": m.normalize_weight,
    }
    return {f"clamp_info.clamp_{key}_value": v for key, v in limits.items()} if any(limits.values()) else {}


def with_own_settings(settings: Settings, model: nn.Module, keep_limits: bool = False) -> Settings:
    """The settings of a model with a section for every module that has settings of its own, in front of the others.

    Args:
        settings: Of the whole model.
        model: Its modules may be marked (:mod:`marks`).
        keep_limits: The limits of constrained layers count as settings of their own, where no mark says others.
    """
    sections = []
    for name, m in names_of(model).items():
        own = (limits_of(m) if keep_limits else {}) | settings_of(m)
        if not own:
            continue
        if not name:  # the model is one layer: there is no name that a section could have
            settings = _apply(settings, own)
            continue
        base = next((s for s in settings.sections if s.matches(name)), None)
        section = Section(name, (name,), settings.clamp_info, settings.quant_info, settings.platform)
        if base is not None:
            section = replace(base, key=name, name=(name,), line=0)
        section = _apply(section, own)
        sections.append(replace(section, given=tuple({*section.given, *own})))
    return settings.with_sections((*sections, *settings.sections)) if sections else settings


def _apply(target: Any, own: Mapping[str, Any]) -> Any:
    """Settings or a section with dotted keys replaced."""
    for dotted, value in own.items():
        part, _, key = dotted.partition(".")
        target = replace(target, **{part: replace(getattr(target, part), **{key: value})})
    return target
