"""``linger.tune``: settings of a quantized model found by trying them on calibration batches."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from linger import settings as store
from linger.convert.prepare import check_root, open_settings
from linger.convert.repeat_conversion import stage_of
from linger.convert.report import format_table
from linger.files import replaced
from linger.measure.measure import bench
from linger.measure.watch import batches_of
from linger.settings import Settings, dumps

from .equalise import equalised
from .trial import Keys, Trials, with_keys

__all__ = ["Step", "Tuning", "tune"]

_GAIN = 0.2  # dB that a change must bring
_LAYER_GAIN = 0.05  # dB that a change of one layer must bring: many small ones add up
_WIDE_GAIN = 1.0  # dB that 16 bits must bring
_LAYERS = 24  # layers that are looked at one by one, those that cost most first
_EVERYWHERE: tuple[Mapping[str, Any], ...] = (
    {"w_strategy": "LEAST_ERROR"},
    {"w_calibrate_name": "mse"},
    {"a_calibrate_name": "mse"},
    {"a_calibrate_name": "abs_max"},
    {"a_strategy": "LEAST_ERROR"},
    {"average_scale": "own"},
)
_OF_A_LAYER: tuple[Mapping[str, Any], ...] = (
    {"a_calibrate_name": "abs_max"},
    {"a_calibrate_name": "mse"},
    {"a_calibrate_name": "top_10"},
    {"a_strategy": "LEAST_ERROR"},
    {"a_strategy": "RANGE_MEAN"},
    {"w_calibrate_name": "mse"},
    {"w_strategy": "RANGE_MEAN"},
)
Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Step:
    """One change that was kept.

    Attributes:
        what: The change in words.
        sqnr: What the outputs keep of the float model's, in dB, with it and all before it.
    """

    what: str
    sqnr: float


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` found; prints as a table.

    Attributes:
        model: The initialised and calibrated model, ready for training or export.
        settings: What it was initialised with.
        steps: The default first, then every change that was kept.
        scores: Of ``evaluate``: the float model's, the default's, the tuned model's; empty without it.
        trials: Models that were built.
        note: What the goal lacks; empty where it is met.
    """

    model: nn.Module
    settings: Settings
    steps: tuple[Step, ...]
    scores: tuple[float, ...] = ()
    trials: int = 0
    note: str = ""

    @property
    def yaml(self) -> str:
        """The configuration that gives these settings."""
        return dumps(self.settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :attr:`yaml`; the file appears complete or not at all."""
        with replaced(path) as file:
            file.write(self.yaml.encode())

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [(step.what, f"{step.sqnr:.1f} dB") for step in self.steps]
        lines = [f"linger.tune, {self.settings.platform}, {self.trials} trials"]
        lines.append(format_table(("change", "outputs keep"), rows))
        if self.scores:
            lines.append("evaluate: float {:.4g}, default {:.4g}, tuned {:.4g}".format(*self.scores))
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model as plain data."""
        steps = [asdict(step) for step in self.steps]
        return {
            "steps": steps,
            "scores": list(self.scores),
            "trials": self.trials,
            "note": self.note,
            "yaml": self.yaml,
        }


def tune(
    model: nn.Module,
    calibration_batches: Any,
    evaluate: Evaluate | None = None,
    *,
    max_loss: float | None = None,
    config_file: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    equalise: bool = True,
    progress: bool = True,
    **named: Any,
) -> Tuning:
    """Initialise and calibrate a model with the settings that cost it least, within what the chip can do.

    Tried in turn, each kept where it helps the outputs on the calibration batches: calibration methods and strategies for
    all layers, scales moved between neighbouring layers (bit for bit the same network in float), methods of the layers that
    cost most, and 16 bits where they are needed.

    Args:
        model: Float or constrained, trained; it stays as it is.
        calibration_batches: A tensor, a dict of keyword arguments, or an iterable of these or of tuples and lists. A few
            batches; every trial runs all of them.
        evaluate: Called with a model in eval mode; its score, the larger the better. None: the outputs' distance from the
            float model's decides alone.
        max_loss: What the score may lose against the float model's; layers get 16 bits, those that cost most first, until
            it is met. None: 16 bits where they bring much (1 dB at the outputs).
        config_file: Where the search starts; None: the current configuration.
        path: Write the found configuration there.
        equalise: Whether scales may move between layers. It changes weights: the tuned model's, not the given one's.
        progress: A live line on standard error.
        **named: Of ``linger.init``: ``disable_module``, ``disable_submodel``, ``example_inputs``, ``fold_bn`` ...

    Returns:
        A report with ``.model``, ``.yaml``, ``.steps``, ``.scores``. The configuration alone repeats everything but moved scales:
        save the model with ``linger.save``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind, a model that is initialised already, no batch, ``max_loss``
            without ``evaluate``.
        UnsupportedError, ConfigError: The starting point itself is refused; see ``linger.init``.

    Source: ours; scales between layers as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", by powers of two.
    """
    check_root(model, "tune")
    if stage_of(model) == "init":
        raise ValueError(
            "tune: the model is initialised already; give the float or constrained one, tune initialises it"
        )
    if evaluate is not None and not callable(evaluate):
        raise TypeError(f"tune: evaluate must be a function of a model, got {type(evaluate).__name__}")
    if max_loss is not None and evaluate is None:
        raise ValueError("tune: max_loss is a loss of evaluate's score; give evaluate, too")
    batches = list(batches_of(calibration_batches))
    if not batches:
        raise ValueError("tune: calibration_batches gave no batch")
    before = store.current()
    try:
        settings = open_settings(None if config_file is None else os.fspath(config_file))
    finally:
        store.use(before)
    search = _Search(Trials(model, settings, batches, named), evaluate, max_loss, progress)
    found = search.run(equalise)
    if path is not None:
        found.save(path)
    return found


class _Search:
    def __init__(self, trials: Trials, evaluate: Evaluate | None, max_loss: float | None, progress: bool) -> None:
        self.trials, self.evaluate, self.max_loss, self.progress = trials, evaluate, max_loss, progress
        self.keys: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, Tensor] = {}
        self.steps: list[Step] = []
        self.stages: list[tuple[float, nn.Module, dict[str, dict[str, Any]], int]] = []

    def run(self, equalise: bool) -> Tuning:
        """The whole search."""
        training = self.trials.model.training
        scores = [self.score(self.trials.model)] if self.evaluate is not None else []
        self.tell("default settings", math.nan)
        first = self.trials.start()
        self.model, self.quality = first, self.trials.quality(first)
        self.steps.append(Step("default settings", self.quality))
        if self.evaluate is not None:
            scores.append(self.score(first))
        self.stage()
        self.everywhere()
        self.stage()
        if equalise:
            before = self.quality
            self.weights, self.model, self.quality = equalised(
                self.trials, self.keys, self.model, self.quality, self.tell
            )
            if self.quality > before:
                self.steps.append(Step("scales moved between layers", self.quality))
        self.stage()
        self.layers()
        self.stage()
        note = self.widths(scores)
        self.stage()
        if self.evaluate is not None:
            note = self.best(scores) or note
        self.done()
        settings = with_keys(self.trials.settings, self.keys)
        self.model.train(training)
        return Tuning(self.model, settings, tuple(self.steps), tuple(scores), self.trials.tried, note)

    def stage(self) -> None:
        """Remember where the search stands; the score is asked for once a stage."""
        if self.evaluate is not None and (not self.stages or self.stages[-1][1] is not self.model):
            self.stages.append((self.score(self.model), self.model, dict(self.keys), len(self.steps)))

    def best(self, scores: list[float]) -> str:
        """The last stage that meets the goal, else the one of the best score: the batches may not stand for all data."""
        goal = math.inf if self.max_loss is None else scores[0] - self.max_loss
        good = [s for s in self.stages if s[0] >= goal] or [
            s for s in self.stages if s[0] == max(r[0] for r in self.stages)
        ]
        score, self.model, self.keys, count = good[-1]
        scores.append(score)
        cut, self.steps = len(self.steps) - count, self.steps[:count]
        return f"{cut} later change(s) helped the batches, but not evaluate's score, and are left out" if cut else ""

    def everywhere(self) -> None:
        """Methods and strategies for all layers; a second round, since they depend on each other."""
        for _ in range(2):
            before = self.quality
            for keys in _EVERYWHERE:
                self.attempt("", keys, _GAIN)
            if self.quality == before:
                break

    def layers(self) -> None:
        """Methods of single layers."""
        for name in self.costly()[:_LAYERS]:
            for keys in _OF_A_LAYER:
                key, value = next(iter(keys.items()))
                if self.in_force(name, key) == value:
                    continue
                self.attempt(name, keys, _LAYER_GAIN)

    def in_force(self, name: str, key: str) -> Any:
        """What a layer has now."""
        settings = with_keys(self.trials.settings, self.keys)
        section = next((s for s in settings.sections if s.matches(name)), settings)
        return getattr(section.quant_info, key)

    def widths(self, scores: list[float]) -> str:
        """16 bits; what the goal lacks in the end."""
        goal = None if self.max_loss is None else scores[0] - self.max_loss
        for name in self.costly():
            if goal is not None and self.score(self.model) >= goal:
                return ""
            self.attempt(name, {"output_bits": 16}, _WIDE_GAIN if goal is None else _GAIN)
        if goal is None:
            return ""
        reached = self.score(self.model)
        return (
            ""
            if reached >= goal
            else f"evaluate gives {reached:.4g}, the goal was {goal:.4g}: training has to do the rest"
        )

    def attempt(self, name: str, keys: Mapping[str, Any], gain: float) -> None:
        """Try a change, and keep it where it helps."""
        own = self.keys.get(name, {})
        if all(own.get(key) == value for key, value in keys.items()):
            return
        said = ", ".join(f"{key}: {value}" for key, value in keys.items()) + (f" for {name}" if name else "")
        self.tell(said, self.quality)
        changed: Keys = {**self.keys, name: {**own, **keys}}
        model = self.trials.build(changed, self.weights)
        if model is None:
            return
        quality = self.trials.quality(model)
        if quality > self.quality + gain:
            self.keys, self.model, self.quality = {n: dict(k) for n, k in changed.items()}, model, quality
            self.steps.append(Step(said, quality))

    def costly(self) -> list[str]:
        """Layers and operators, those that cost most first."""
        with bench(self.model, self.trials.batches[:1]) as b:
            b.attribute()
            rows = [r for r in b.found.rows.values() if r.name]
        return [r.name for r in sorted(rows, key=lambda r: -r.alone.noise if math.isfinite(r.alone.noise) else 0.0)]

    def score(self, model: nn.Module) -> float:
        """What ``evaluate`` says."""
        assert self.evaluate is not None
        training = model.training
        try:
            return float(self.evaluate(model.eval()))
        finally:
            model.train(training)

    def tell(self, what: str, quality: float) -> None:
        """The live line."""
        if self.progress:
            at = "" if math.isnan(quality) else f", {quality:.1f} dB so far"
            text = f"linger.tune: trial {self.trials.tried + 1}{at}: {what}"
            live = sys.stderr.isatty()
            sys.stderr.write(f"\r\033[K{text[:100]}" if live else f"{text}\n")
            sys.stderr.flush()

    def done(self) -> None:
        """The live line ends."""
        if self.progress and sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
