"""``linger.monitor``: a training watched every few steps, and the layer named where it breaks."""

from __future__ import annotations

import logging
import math
import statistics
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TextIO

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linger.errors import UnsupportedError
from linger.quantizers import highest
from linger.runtime import Leaf, info

from .observation import Layer, Looked, exponents, watch_layers

_log = logging.getLogger("linger")
SATURATED = 0.1  # share of extreme codes that is said when two looks in a row find it
_ZERO = 0.999  # share of zeros that is said
_JUMP = 4.0  # a loss this far above the first ones has exploded
_FIRST = 5  # losses that say where a training began
_SHARE = 0.1  # of float training's learning rate


class Diverged(RuntimeError):
    """The loss has exploded; the message names the first layer that breaks and what helps."""


class Writer(Protocol):
    """``torch.utils.tensorboard.SummaryWriter``, or what has its two methods."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int) -> Any:
        """One number."""

    def add_histogram(self, tag: str, values: Any, global_step: int) -> Any:
        """One distribution."""


@dataclass(frozen=True)
class Event:
    """Something that the monitor said.

    Attributes:
        step: Training step, from 1.
        kind: ``saturated``, ``zeros``, ``not finite`` or ``explosion``.
        layer: Qualified name; empty where no single one is to blame.
        text: The sentence.
    """

    step: int
    kind: str
    layer: str
    text: str


class Monitor:
    """What :func:`monitor` returns; a context manager.

    Attributes:
        steps: Training forwards seen.
        layers: The last look: name -> :class:`~linger.monitoring.observation.Layer`, in the order of the forward.
        moved: Quantizer -> by how much its exponent moved between the last two looks.
        events: What was said, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        every: int = 50,
        *,
        writer: Writer | None = None,
        stream: TextIO | None = None,
        stop: bool = False,
    ) -> None:
        _check(model, every)
        self.model, self.every, self.writer, self.stop = model, every, writer, stop
        self.stream = sys.stderr if stream is None else stream
        self.steps = 0
        self.layers: dict[str, Layer] = {}
        self.moved: dict[str, float] = {}
        self.events: list[Event] = []
        self._exponents: dict[str, float] = {}
        self._usual: dict[str, float] = {}  # share of extreme codes before anything went wrong
        self._looked: Looked | None = None
        self._remove: Callable[[], None] | None = None
        self._root: list[Any] = []
        self._first: list[float] = []  # losses
        self._recent: deque[float] = deque(maxlen=50)
        self._result: float | None = None  # share of extreme codes of the model's own result, in the first steps
        self._alarm = ""  # what went wrong, until a look has found the layer
        self._over = False

    # -- the training -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Monitor:
        if not self._root:
            self._root = [
                self.model.register_forward_pre_hook(self._before),
                self.model.register_forward_hook(self._behind, always_call=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        self._end_look()
        for handle in self._root:
            handle.remove()
        self._root = []
        if self._alarm:
            self._say("explosion", "", f"{self._alarm}; no step came afterwards in which the layer could be found")
            self._alarm = ""

    def begin(self) -> None:
        """A training step begins. Called by the hooks; by hand where the model's own ``forward`` is not what a step calls."""
        self.steps += 1
        if self._alarm or self.steps % self.every == 1 or self.every == 1:
            self._looked = Looked(keep=self.writer is not None)
            self._remove = watch_layers(self.model, self._looked)

    def end(self, result: Any = None) -> None:
        """The forward of a training step is over.

        Args:
            result: What the model returned.

        Raises:
            Diverged: ``stop=True`` and the layer at which the loss exploded is found.
        """
        looked = self._end_look()
        if looked is not None:
            self._report(looked)
        self._look_at_result(result)

    def loss(self, loss: Tensor | float) -> None:
        """Tells the loss of a step: a non-finite one, or one far above the first ones, is an explosion.

        Args:
            loss: One number; reading it waits for its device.
        """
        value = float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
        if self.writer is not None:
            self.writer.add_scalar("linger/loss", value, self.steps)
        before = statistics.median(self._recent) if self._recent else math.nan
        if not math.isfinite(value):
            self._suspect(f"the loss is {value}" + (f", it was {before:.3g}" if self._recent else ""))
        elif len(self._first) == _FIRST and value > _JUMP * max(self._first):
            self._suspect(f"the loss is {value:.3g}, it was {before:.3g}")
        if math.isfinite(value):
            self._recent.append(value)
            if len(self._first) < _FIRST:
                self._first.append(value)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        layers = {name: layer._asdict() for name, layer in self.layers.items()}
        return {"steps": self.steps, "layers": layers, "moved": self.moved, "events": [asdict(e) for e in self.events]}

    # -- inside -----------------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, _args: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self.begin()

    def _behind(self, module: nn.Module, _args: Any, result: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self.end(result)

    def _end_look(self) -> Looked | None:
        looked, self._looked = self._looked, None
        if self._remove is not None:
            self._remove()
            self._remove = None
        return looked

    def _report(self, looked: Looked) -> None:
        earlier, self.layers = self.layers, looked.layers()
        now = exponents(self.model)
        before, self._exponents = self._exponents, now
        self.moved = {n: e - before[n] for n, e in now.items() if n in before and e != before[n]}
        alarm = self._alarm
        if alarm:
            self._explain(alarm)
        for name, layer in self.layers.items():
            if not layer.finite:
                self._say("not finite", name, f"'{name}': a NaN has entered its results")
                break  # those behind it have it from there
            lasts = name in earlier and earlier[name].saturated >= SATURATED  # a first range may be one exponent off
            if layer.saturated >= SATURATED and lasts and not alarm:
                top = highest(layer.bits)
                self._say(
                    "saturated",
                    name,
                    f"'{name}': {layer.saturated:.0%} of its results are at the largest or smallest code ({top}); "
                    f"output_bits: 16 in a section whose name covers it, or a smaller learning rate",
                )
            if layer.zeros >= _ZERO:
                self._say("zeros", name, f"'{name}': all of its results are code 0: nothing behind it learns from them")
        if not alarm:
            self._usual = {n: max(layer.saturated, self._usual.get(n, 0.0)) for n, layer in self.layers.items()}
        self._write(looked)
        self._line()
        if alarm and self.stop:
            raise Diverged(self.events[-1].text)

    def _explain(self, alarm: str) -> None:
        """The first layer of the forward that breaks."""
        self._alarm, self._over = "", True
        for name, layer in self.layers.items():
            if not layer.finite:
                why = "a NaN has entered its results"
            elif layer.saturated >= max(0.05, 2 * self._usual.get(name, 0.0)):
                why = f"{layer.saturated:.0%} of its results are at the largest or smallest code"
            else:
                continue
            break
        else:
            name, why = "", "no layer saturates: look at what comes behind the model"
        at = f"'{name}' is the first that breaks: {why}" if name else why
        self._say(
            "explosion",
            name,
            f"{alarm}. {at}. Go back to a checkpoint and lower the learning rate (linger.suggest_lr: a tenth of float "
            "training's), or clip gradients",
        )

    def _suspect(self, alarm: str) -> None:
        if not self._alarm and not self._over:
            self._alarm = alarm

    def _look_at_result(self, result: Any) -> None:
        """A model whose results sit at the ends of their codes has exploded, whatever its loss; not where it would wait."""
        fmt = info(result) if isinstance(result, Tensor) else None
        if fmt is None or fmt.codes is None or not fmt.codes.is_cpu or not fmt.codes.numel():
            return
        top = highest(fmt.bits)
        share = float(((fmt.codes >= top) | (fmt.codes <= -top - 1)).float().mean())
        if self.steps <= _FIRST:
            self._result = max(share, self._result or 0.0)
        elif share > 0.5 and share > 2 * (self._result or 0.0):
            self._suspect(f"{share:.0%} of the model's results are at the largest or smallest code")

    def _say(self, kind: str, layer: str, text: str) -> None:
        if any((e.kind, e.layer) == (kind, layer) for e in self.events) and kind != "explosion":
            return
        event = Event(self.steps, kind, layer, f"step {self.steps}: {text}")
        self.events.append(event)
        _log.warning("linger.monitor: %s", event.text)

    def _write(self, looked: Looked) -> None:
        if self.writer is None:
            return
        for name, layer in self.layers.items():
            self.writer.add_scalar(f"linger/saturated/{name}", layer.saturated, self.steps)
            self.writer.add_scalar(f"linger/zeros/{name}", layer.zeros, self.steps)
            self.writer.add_scalar(f"linger/exponent/{name}", layer.exponent, self.steps)
        for name, (codes, scale) in looked.codes.items():
            self.writer.add_histogram(f"linger/results/{name}", codes.float() / scale, self.steps)

    def _line(self) -> None:
        """The live line: in place on a terminal, below each other elsewhere; not where a writer shows it."""
        if self.writer is not None or not self.layers:
            return
        parts = [f"step {self.steps}"]
        if self._recent:
            parts.append(f"loss {self._recent[-1]:.4g}")
        for what in ("saturated", "zeros"):
            name = max(self.layers, key=lambda n: getattr(self.layers[n], what))
            parts.append(f"{what} at most {getattr(self.layers[name], what):.1%} ({name})")
        if self.moved:
            first = ", ".join(f"{n} {by:+.0f}" for n, by in list(self.moved.items())[:2])
            parts.append(f"{len(self.moved)} exponent(s) moved ({first}{', ...' if len(self.moved) > 2 else ''})")
        text = f"linger.monitor: {', '.join(parts)}"
        live = getattr(self.stream, "isatty", lambda: False)()
        self.stream.write(f"\r\033[K{text}" if live else f"{text}\n")
        self.stream.flush()


def _check(model: Any, every: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"monitor: model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"monitor: every must be a number of steps from 1, got {every!r}")
    if hasattr(model, "_orig_mod"):
        raise UnsupportedError(
            "monitor: compiled code hides its layers; watch the model that was given to torch.compile"
        )
    if not any(isinstance(m, Leaf) for m in model.modules()):
        raise ValueError("monitor: nothing in the model is quantized: call linger.init first")


def monitor(
    model: nn.Module,
    every: int = 50,
    *,
    writer: Writer | None = None,
    stream: TextIO | None = None,
    stop: bool = False,
) -> Monitor:
    """Watch a quantized training: saturation, zeros, moving exponents, NaN, an exploding loss.

    Every ``every`` steps one forward is looked at, layer by layer; what is wrong is logged once, with the layer and what helps.
    The other steps cost two empty calls. The numbers of the training stay as they are.

    Args:
        model: Result of ``linger.init``, or a module that holds one.
        every: Steps between two looks.
        writer: A ``SummaryWriter`` (or what has its ``add_scalar`` and ``add_histogram``), instead of the live line.
        stream: Where the live line goes; None: standard error.
        stop: Raise :class:`Diverged` in the step after the loss has exploded.

    Returns:
        A context manager. ``m.loss(loss)`` tells it the loss of a step (else it sees explosions in the model's results
        only); ``m.events``, ``m.layers`` and ``m.to_dict()`` are what it has found.

    Raises:
        TypeError, ValueError: An argument of the wrong kind, or a model without quantized layers.
        UnsupportedError: A compiled model.

    Example:
        >>> import io, torch, linger
        >>> model = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> with linger.monitor(model, every=10, stream=io.StringIO()) as m:
        ...     for _ in range(3):
        ...         loss = model(torch.ones(2, 4)).square().mean()
        ...         m.loss(loss)
        >>> m.steps
        3

    Source: ours.
    """
    return Monitor(model, every, writer=writer, stream=stream, stop=stop)


def suggest_lr(lr: float | Optimizer) -> float | list[float]:
    """Learning rates for quantized training: a tenth of float training's.

    Args:
        lr: The rate of the float or constrained stage, or its optimizer.

    Returns:
        One rate, or one for each group of parameters.

    Raises:
        TypeError: Something else.
        ValueError: A rate that is not above 0.

    Example:
        >>> import linger
        >>> linger.suggest_lr(0.5)
        0.05

    Source: the users' FAQ (training rates of the two stages).
    """
    if isinstance(lr, Optimizer):
        return [_tenth(float(group["lr"])) for group in lr.param_groups]
    if isinstance(lr, bool) or not isinstance(lr, (int, float)):
        raise TypeError(f"suggest_lr: lr must be a number or an optimizer, got {type(lr).__name__}")
    return _tenth(float(lr))


def _tenth(lr: float) -> float:
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"suggest_lr: lr must be a number above 0, got {lr}")
    return lr * _SHARE
