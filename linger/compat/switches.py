"""Setters of the classic generation: which operators of user code run in integers, and whether BatchNorm statistics move.

A setter holds for the models that are converted afterwards; each keeps its own copy (``linger.summary`` shows it).
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linger.convert import converted_models, when_converted
from linger.errors import UnsupportedError
from linger.nn import BatchNorm1dInt, BatchNorm2dInt
from linger.nn.constrained.fused import FusedBN
from linger.nn.constrained.layers import Constrained
from linger.nn.layers.batch_norm_folding import FOLDING
from linger.runtime import OPERATOR_OF
from linger.settings import PlatFormQuant, current, use


class Previous:
    """What a setter returns: true or false like the value before; as a context manager it brings that value back.

    Example:
        >>> import linger
        >>> with linger.SetIQTensorAdd(False):  # models initialised inside keep every ``+`` in float
        ...     pass
    """

    def __init__(self, value: bool, restore: Any) -> None:
        self.value, self._restore = value, restore

    def __bool__(self) -> bool:
        return self.value

    def __eq__(self, other: object) -> bool:
        return self.value == (other.value if isinstance(other, Previous) else other)

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)

    def __enter__(self) -> Previous:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


class Setter:
    """Switches an operator of user code on (integers) or off (float) in the models that are converted afterwards.

    Args:
        name: The setter's own name.
        operators: Names of the operators, as ``linger.summary`` and the key ``operators`` of a file have them.
        default: What holds where nobody has said anything.
    """

    def __init__(self, name: str, *operators: str, default: bool = True) -> None:
        self.__name__, self.operators, self.default = name, operators, default
        self.__doc__ = (
            f"``{', '.join(operators)}`` of models converted afterwards: True runs in integers, False stays in float.\n\n"
            "Returns the value before; as a context manager it brings that value back."
        )

    def __call__(self, enable: bool = True) -> Previous:
        """Set it; returns the value before (:class:`Previous`)."""
        enable = _boolean(self.__name__, enable)
        before = dict(current().operators)
        given = {name: before.get(name) for name in self.operators}

        def restore() -> None:
            now = {k: v for k, v in current().operators if k not in given}
            _use(now | {k: v for k, v in given.items() if v is not None})

        _use(before | dict.fromkeys(self.operators, enable))
        return Previous(all(self.default if v is None else v for v in given.values()), restore)

    def __repr__(self) -> str:
        return f"<setter {self.__name__}>"


def _use(operators: dict[str, bool]) -> None:
    use(replace(current(), operators=tuple(operators.items())))


SetIQTensorAdd = Setter("SetIQTensorAdd", "add")
SetIQTensorMul = Setter("SetIQTensorMul", "mul")
SetIQTensorDiv = Setter("SetIQTensorDiv", "div")
SetIQTensorSum = Setter("SetIQTensorSum", "sum")
SetIQTensorCat = Setter("SetIQTensorCat", "cat")
SetIQTensorClamp = Setter("SetIQTensorClamp", "clamp")
SetIQTensorSigmoid = Setter("SetIQTensorSigmoid", "sigmoid")
SetIQTensorTanh = Setter("SetIQTensorTanh", "tanh")
SetIQTensorSoftmax = Setter("SetIQTensorSoftmax", "softmax")
SetIQTensorLogSoftmax = Setter("SetIQTensorLogSoftmax", "log_softmax")
SetFunctionBmmQuant = Setter("SetFunctionBmmQuant", "bmm", default=False)  # of the classic form; on in the 3.x form
SetFunctionLinearQuant = Setter("SetFunctionLinearQuant", "linear_call")
SetFunctionChannelShuffleQuant = Setter("SetFunctionChannelShuffleQuant", "channel_shuffle")


def SetIQTensorVar(enable: bool = True) -> Previous:
    """No chip computes a variance: it stays in float either way and is reported. Returns False."""
    _boolean("SetIQTensorVar", enable)
    return Previous(False, lambda: None)


def SetIQCat2AddZero(enable: bool = True) -> Previous:
    """A work-around of the classic exporter; files need none, False is what is done.

    Raises:
        UnsupportedError: True.
    """
    if _boolean("SetIQCat2AddZero", enable):
        raise UnsupportedError(
            "SetIQCat2AddZero(True): torch.cat is written as iqCat on every chip; leave the call out"
        )
    return Previous(False, lambda: None)


def SetPlatFormQuant(platform_quant: Any = PlatFormQuant.luna_quant) -> Previous:
    """Only ``luna_quant`` exists; the chip is the key ``platform`` of the configuration.

    Raises:
        ValueError: Another value.
    """
    if platform_quant not in (PlatFormQuant.luna_quant, "luna_quant"):
        raise ValueError(f"SetPlatFormQuant: only luna_quant exists, got {platform_quant!r}")
    return Previous(True, lambda: None)


def SetCastorBiasInt16(bias_int16: bool = True) -> Previous:
    """Biases have 32 bits on every chip.

    Raises:
        UnsupportedError: True.
    """
    if _boolean("SetCastorBiasInt16", bias_int16):
        raise UnsupportedError("SetCastorBiasInt16(True): the chips take biases of 32 bits; leave the call out")
    return Previous(False, lambda: None)


# ---- BatchNorm statistics

_HELD = "_momentum_before_update_was_disabled"
_frozen = False


_HOLDERS: tuple[type[nn.Module], ...] = (FusedBN, *FOLDING.values())


def _norms(model: nn.Module) -> list[_BatchNorm]:
    """BatchNorms of a converted model that are constrained, quantized or fused; plain ones are the user's."""
    own = [
        m
        for m in model.modules()
        if isinstance(m, (Constrained, BatchNorm1dInt, BatchNorm2dInt)) and isinstance(m, _BatchNorm)
    ]
    inside = [c for m in model.modules() if isinstance(m, _HOLDERS) for c in m.modules() if isinstance(c, _BatchNorm)]
    return [*own, *inside]


def _apply(model: nn.Module) -> None:
    """Momentum 0, or what it was: batches still normalise with their own statistics, as in the classic generation."""
    for norm in _norms(model):
        if _frozen and _HELD not in norm.__dict__:
            norm.__dict__[_HELD], norm.momentum = norm.momentum, 0
        elif not _frozen and _HELD in norm.__dict__:
            norm.momentum = norm.__dict__.pop(_HELD)


def SetBnMomentumUpdate(disable: bool = True) -> Previous:
    """True freezes the running mean and variance of constrained, fused and quantized BatchNorms (their momentum becomes 0).

    Reaches models that exist and those converted afterwards, at any time; affine parameters go on training, plain
    BatchNorms are left alone. Returns the previous value (see :class:`Previous`).
    """
    global _frozen
    before, _frozen = _frozen, _boolean("SetBnMomentumUpdate", disable)
    when_converted(_apply)
    for model in converted_models():
        _apply(model)
    return Previous(before, lambda: SetBnMomentumUpdate(before))


# ---- 3.x


def _matching(words: Any) -> set[str]:
    known = sorted(set(OPERATOR_OF.values()))
    found: set[str] = set()
    for word in (words,) if isinstance(words, str) else words:
        plain = str(word).lower().removesuffix("layer").removesuffix("int").removeprefix("iq").removeprefix("q")
        hits = {name for name in known if plain and plain in name}
        if not hits:
            raise ValueError(f"disable_quant_ops: no operator matches {word!r}; there are {', '.join(known)}")
        found |= hits
    return found


def disable_quant_ops(qmodule_list: Any = (), qtensor_list: Any = ()) -> Previous:
    """Keep operators of user code in float in models initialised afterwards.

    Args:
        qmodule_list: Classes of layers. They belong to a model: pass them as ``disable_module`` of ``linger.init``.
        qtensor_list: Parts of operators' names, e.g. ``['softmax']`` (which also finds ``log_softmax``).

    Returns:
        A context manager that restores what was set before.

    Raises:
        UnsupportedError: ``qmodule_list`` is not empty.
        ValueError: A word that no operator's name contains; the message lists the operators.
    """
    if list(qmodule_list or ()):
        raise UnsupportedError(
            "disable_quant_ops: layers are switched off per model: linger.init(model, ..., disable_module=(nn.Linear,))"
        )
    return _set_all(_matching(qtensor_list), False)


def enable_quant_ops(qtensor_list: Any = ()) -> Previous:
    """Run operators of user code in integers again in models initialised afterwards (see :func:`disable_quant_ops`)."""
    return _set_all(_matching(qtensor_list), True)


def _set_all(names: set[str], integers: bool) -> Previous:
    before = dict(current().operators)
    _use(before | dict.fromkeys(names, integers))
    return Previous(all(before.get(name, True) for name in names), lambda: _use(before))


def get_quant_ops_name() -> tuple[list[str], list[str]]:
    """Names of the layers that have a quantized form, and of the operators of user code that have one."""
    from linger.nn import swaps

    return [cls.__name__ for cls in swaps.values()], sorted(set(OPERATOR_OF.values()))
