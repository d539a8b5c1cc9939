"""Calibration: ranges from data, before or instead of training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..settings import allow_calibration
from .eager import eagerly
from .least_error import least_error, least_error_of_two, merge_errors, peak_and_errors
from .running import in_ddp_forward, in_recomputation
from .saturation import CUT, Cut, counted, saturation

if TYPE_CHECKING:
    from .quantizer import Quantizer, State

_log = logging.getLogger("linger")
_F = TypeVar("_F", bound=Callable[..., Any])


class _Method(NamedTuple):
    """A built-in method: one measurement per batch, merged over batches, then turned into a range."""

    measure: Callable[[Tensor, Quantizer], Tensor]
    merge: Callable[[Tensor, Tensor], Tensor]
    result: Callable[[Tensor, int, Quantizer], Tensor]


def _top_10(x: Tensor, quantizer: Quantizer) -> Tensor:
    """The tenth largest magnitude; of few elements an earlier one, so that not more than a fiftieth of a tensor is cut."""
    magnitude = x.abs().flatten()
    place = min(10, -(-10 * magnitude.numel() // 512))
    return magnitude.topk(place).values[-1]


_FIRST_POWER, _LAST_POWER = -10, 9


def _power_errors(x: Tensor, quantizer: Quantizer) -> Tensor:
    bits = quantizer.bits
    limit, errors = 2.0 ** (bits - 1), []
    for power in range(_FIRST_POWER, _LAST_POWER + 1):
        step = 2.0 ** (power - bits + 1)
        code = torch.round(x.double() / step).clamp(-limit, limit - 1)
        errors.append((x.double() - code * step).square().sum())
    return torch.stack(errors)


_BUILT_IN = {
    "abs_max": _Method(lambda x, q: x.abs().max(), torch.maximum, lambda total, n, q: total),
    "top_10": _Method(_top_10, torch.add, lambda total, n, q: total / n),
    "mse": _Method(peak_and_errors, merge_errors, least_error),
    "w_like": _Method(_power_errors, torch.add, lambda total, n, q: torch.exp2(total.argmin() + _FIRST_POWER)),
}
_OF_TWO = "LEAST_ERROR"  # the strategy: no name that users give
_METHODS = _BUILT_IN | {_OF_TWO: _Method(peak_and_errors, merge_errors, least_error_of_two)}
_RANGES = ("abs_max", "top_10")  # what a strategy turns into exponents; other methods find the exponent themselves
_registered: dict[str, Callable[..., Any]] = {}


def register_calibrate_method(name: str) -> Callable[[_F], _F]:
    """Decorator: makes a function available to ``a_calibrate_name`` and ``w_calibrate_name``.

    The function is called as ``fn(quantizer, tensor, bits)`` once per batch and sets ``quantizer.running_data`` (MOM: the
    largest representable value), ``quantizer.learning_data`` (TQT: its log2) or ``quantizer.scale`` (a power of two). What
    it does not set follows from what it sets.

    Args:
        name: Its name in the configuration. A built-in name cannot be taken.

    Raises:
        ValueError: The name belongs to a built-in method.
        TypeError: Used without a name.

    Example:
        >>> import linger
        >>> @linger.register_calibrate_method("mean_x4")
        ... def mean_x4(quantizer, tensor, bits):
        ...     quantizer.running_data = 4 * tensor.abs().mean()
    """
    if not isinstance(name, str):
        raise TypeError('register_calibrate_method: write @register_calibrate_method("name")')
    if name in _BUILT_IN:
        raise ValueError(f"register_calibrate_method: {name!r} is a built-in method")

    def register(fn: _F) -> _F:
        _registered[name] = fn
        allow_calibration(name)
        return fn

    return register


def _check_method(name: str) -> str:
    if name not in _BUILT_IN and name not in _registered:
        known = ", ".join(sorted((*_BUILT_IN, *_registered)))
        raise ValueError(f"calibration: unknown method {name!r}; known methods: {known}")
    return name


class _Record(NamedTuple):
    total: Tensor | None  # None: a registered function wrote into the quantizer itself
    n: int


class _Session:
    """What one thread has collected, from the outermost ``with`` to its end."""

    def __init__(self) -> None:
        self.scopes: list[Calibration] = []
        self.eager = eagerly()
        self.records: dict[tuple[Quantizer, str], _Record] = {}
        self.cuts: dict[Quantizer, Cut] = {}
        self.highest: dict[Quantizer, Callable[[], Tensor]] = {}  # in the order of the forward
        self.empty: dict[str, tuple[int, ...]] = {}  # by name of a quantizer: the shape of an empty tensor that it got

    def method(self, quantizer: Quantizer) -> str:
        """The calibration method in force: the innermost context that names one, else the quantizer's own."""
        for scope in reversed(self.scopes):
            name = scope.w_calibrate_name if quantizer.role == "weight" else scope.a_calibrate_name
            if name is not None:
                return name
        return quantizer.calibrate

    def covers(self, quantizer: Quantizer) -> bool:
        """Whether the innermost context that names a model contains this quantizer."""
        model = next((s.model for s in reversed(self.scopes) if s.model is not None), None)
        return model is None or any(m is quantizer for m in model.modules())

    def finalise(self, keys: list[tuple[Quantizer, str]]) -> None:
        """Turns records into statistics. Of several methods on one quantizer the last one used decides."""
        for quantizer, name in keys:
            record = self.records.pop((quantizer, name))
            if record.total is not None:
                quantizer.set_range(_METHODS[name].result(record.total, record.n, quantizer), record.n)

    def report_cuts(self) -> None:
        """Says once which values the codes, or the training clamp, do not hold."""
        said = []
        for quantizer, cut in self.cuts.items():
            quantizer.__dict__[CUT] = cut
            said += [text for text in (saturation(quantizer),) if text]
        if said:
            _log.warning("calibration: values are cut:\n  %s", "\n  ".join("\n".join(said).splitlines()))

    @torch.no_grad()
    def settle(self, quantizers: set[Quantizer]) -> None:
        """Lowers scales that the operands' new scales do not allow, producers first, as the next training step would."""
        for quantizer, highest in self.highest.items():
            if quantizer not in quantizers:
                continue
            try:
                scale = highest()
            except (TypeError, ValueError, NotImplementedError):
                continue  # the next forward says what does not fit
            quantizer.scale.copy_(torch.minimum(quantizer.scale, scale))


class _Local(threading.local):
    session: _Session | None = None
    switched_off = 0  # layers that run with their quantization switched off, inside each other


_local = _Local()


def calibrating() -> bool:
    """True inside :func:`calibration` in this thread: layers compute in float and only show their tensors."""
    return _local.session is not None


def in_float() -> bool:
    """True where layers compute their float form: inside :func:`calibration`, or with quantization switched off."""
    return _local.session is not None or _local.switched_off > 0


def unobserved() -> bool:
    """True where layers compute their float form and nobody collects ranges: no state moves, no weight is clamped."""
    return _local.session is None and _local.switched_off > 0


@contextmanager
def switched_off() -> Iterator[None]:
    """One forward of a layer in its float form."""
    _local.switched_off += 1
    try:
        yield
    finally:
        _local.switched_off -= 1


@torch.no_grad()
def observe(quantizer: Quantizer, x: Tensor) -> None:
    """Takes one batch of one quantizer into the calibration of this thread.

    A tensor with NaN or infinity is left out and counted in ``quantizer.n_skipped``; empty tensors, frozen quantizers and
    recomputations in backward change nothing.

    Raises:
        RuntimeError: No calibration is running.
        ValueError: The method is unknown.
        UnsupportedError: A TQT threshold inside DDP.
    """
    session = _local.session
    if session is None:
        raise RuntimeError(
            "observe_calibration: no calibration is running in this thread; use `with linger.calibration():`"
        )
    name = _check_method(session.method(quantizer))
    if x.numel() == 0:
        session.empty.setdefault(quantizer.name, tuple(x.shape))
    if quantizer.strategy == _OF_TWO and name in _RANGES:
        name = _OF_TWO
    if (
        quantizer.frozen
        or quantizer.role == "bias"
        or x.numel() == 0
        or in_recomputation()
        or not session.covers(quantizer)
    ):
        return
    if quantizer.method == "TQT" and in_ddp_forward():
        raise UnsupportedError(
            f"linger: '{quantizer.name}' was calibrated under DistributedDataParallel, where every process would set its own "
            "threshold; calibrate the model before wrapping it"
        )
    x = x.detach().float()
    if not bool(x.isfinite().all()):
        quantizer.skip()
        return
    if quantizer.role == "activation":
        session.cuts[quantizer] = counted(quantizer, x, session.cuts.get(quantizer, Cut()))
    old = session.records.pop((quantizer, name), None)  # popped: the method used last comes last
    n = 1 if old is None else old.n + 1
    if name in _METHODS:
        total = _METHODS[name].measure(x, quantizer)
        if old is not None and old.total is not None:
            total = _METHODS[name].merge(old.total, total)
        session.records[quantizer, name] = _Record(total, n)
        return
    before = quantizer.state()
    session.scopes[-1]._saved.setdefault(quantizer, before)
    _registered[name](quantizer, x, quantizer.bits)
    quantizer.adopt(before, name)
    session.records[quantizer, name] = _Record(None, n)


def bound(quantizer: Quantizer, highest: Callable[[], Tensor]) -> None:
    """Announces the largest scale that an operator allows a quantizer, computed when all ranges of this calibration stand."""
    session = _local.session
    if session is not None:
        session.highest.pop(quantizer, None)  # of a module used twice the last call decides, as in training
        session.highest[quantizer] = highest


def finalise(quantizer: Quantizer) -> None:
    """Stores what this thread's calibration has collected for one quantizer so far."""
    session = _local.session
    if session is not None:
        session.finalise([key for key in session.records if key[0] is quantizer])


class Calibration:
    """What :func:`calibration` returns: one ``with`` block of a calibration."""

    def __init__(
        self, model: nn.Module | None = None, a_calibrate_name: str | None = None, w_calibrate_name: str | None = None
    ) -> None:
        if not isinstance(model, (nn.Module, type(None))):
            raise TypeError(f"calibration: model must be a torch.nn.Module or None, got {type(model).__name__}")
        self.model = model
        self.a_calibrate_name = a_calibrate_name if a_calibrate_name is None else _check_method(a_calibrate_name)
        self.w_calibrate_name = w_calibrate_name if w_calibrate_name is None else _check_method(w_calibrate_name)
        self._saved: dict[Quantizer, State] = {}
        self._before: dict[tuple[Quantizer, str], _Record] = {}

    def __enter__(self) -> Calibration:
        """Starts, or continues an outer calibration."""
        outer = _local.session
        session = outer or _Session()
        if any(scope is self for scope in session.scopes):
            raise RuntimeError("calibration: this context is entered already; write linger.calibration() again")
        self._saved, self._before = {}, dict(session.records)
        if outer is None:
            session.eager.__enter__()
        session.scopes.append(self)
        _local.session = session
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stores the result when this was the outermost context and nothing was raised."""
        session = _local.session
        assert session is not None and session.scopes[-1] is self
        session.scopes.pop()
        if not session.scopes:
            _local.session = None
            session.eager.__exit__(kind, error, trace)
        if kind is not None:
            self._undo(session, kind)
        elif not session.scopes:
            self._report(session)
            seen = {key[0] for key in session.records}
            session.finalise(list(session.records))
            session.settle(seen)
            session.report_cuts()
        else:
            for quantizer, state in self._saved.items():
                session.scopes[-1]._saved.setdefault(quantizer, state)
        self._saved, self._before = {}, {}

    def _undo(self, session: _Session, kind: type[BaseException]) -> None:
        lost = {key[0] for key, record in session.records.items() if self._before.get(key) is not record}
        for quantizer, state in self._saved.items():
            quantizer.restore(state)
        session.records = dict(self._before)
        if lost:
            _log.warning("calibration left by %s: what %d quantizers saw in it is not used", kind.__name__, len(lost))

    def _report(self, session: _Session) -> None:
        if session.empty:
            name, shape = next(iter(session.empty.items()))
            _log.warning("calibration: '%s' got an empty batch, of shape %s: nothing is measured there; run batches with at "
                         "least one sample", _layer_of(name) or "(root)", shape)  # fmt: skip
        if not session.records:
            _log.warning("calibration: no quantizer saw any data; run the initialised model inside the context")
        elif self.model is not None:
            seen = {id(key[0]) for key in session.records}
            ran: dict[str, bool] = {}  # by layer: operands that arrive as codes need no quantizer of their own
            for name, module in self.model.named_modules():
                if getattr(module, "role", None) in ("activation", "weight") and hasattr(module, "observe_calibration"):
                    layer = _layer_of(name)
                    ran[layer] = ran.get(layer, False) or id(module) in seen or module.ready
            unseen = [layer or "(root)" for layer, done in ran.items() if not done]
            if unseen:
                _log.warning("calibration: no data for %s", ", ".join(unseen))


def _layer_of(name: str) -> str:
    """The layer that a quantizer of this qualified name belongs to; a quantizer of another name stands for itself."""
    parts = name.split(".")
    own = [i for i, part in enumerate(parts) if "quantizer" in part]
    return ".".join(parts[: own[0]]) if own else name


def calibration(
    model: nn.Module | None = None, a_calibrate_name: str | None = None, w_calibrate_name: str | None = None
) -> Calibration:
    """Context in which forward passes measure ranges instead of quantizing; the statistics are set on exit.

    Any number of batches: ``abs_max`` keeps the maximum, ``top_10`` the mean of the batches' values, ``mse`` and ``w_like``
    the sums of the errors. Contexts nest; the outermost one stores the result, inner ones may name other methods. When an
    exception leaves a context, what was collected in it is not used, every quantizer is as it was before, and the log says so.
    The state belongs to the thread: forwards in other threads (``DataParallel``) are not calibrated.

    Args:
        model: Calibrate only the quantizers of this model, and report layers that saw nothing. None: every quantizer that runs.
        a_calibrate_name: Method for activations instead of the configured one.
        w_calibrate_name: Method for weights instead of the configured one.

    Raises:
        ValueError: A method name is unknown.

    Example:
        >>> import torch, linger
        >>> model = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> with linger.calibration():
        ...     for batch in torch.randn(3, 8, 4):
        ...         out = model(batch)
        >>> model[0].output_quantizer.ready
        True

    Source: docs/numerics.md, "Calibration".
    """
    return Calibration(model, a_calibrate_name, w_calibrate_name)
