"""The measurement behind every report: batches through a copy of the model, in integers and in float, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from linger.convert.dry_run import copied
from linger.convert.prepare import check_root, record_of
from linger.convert.repeat_conversion import repeat_conversion
from linger.nn.base import QuantLayer
from linger.runtime import is_owner, islands_of

from .bench import Bench, Loss
from .rows import Measurement
from .watch import batches_of
from .weights import weight_rows

__all__ = ["bench", "measure", "measured_model"]


def measured_model(model: Any, caller: str) -> None:
    """Refuse what cannot be measured.

    Raises:
        TypeError: Not a module, or a wrapper.
        ValueError: The model is not initialised.
    """
    check_root(model, caller)
    if record_of(model) is None or not any(map(is_owner, model.modules())) and not isinstance(model, QuantLayer):
        raise ValueError(f"{caller}: the model is not quantized: call linger.init first (the root that it returned)")


def measure(
    model: nn.Module,
    batches: Any,
    reference: nn.Module | None = None,
    loss: Loss | None = None,
    caller: str = "measure",
) -> Measurement:
    """Run batches through a copy of a quantized model and through the float model; nothing of the model changes.

    Args:
        model: Result of ``linger.init``. Parameters, statistics, mode, hooks and random states stay as they are.
        batches: A tensor, a dict of keyword arguments, or an iterable of these or of tuples and lists, whose first entries go
            to ``forward`` (as many as it takes).
        reference: Float model to compare with, not converted or converted; None: the same model with quantization off.
        loss: Called with output and batch, in integers and in float, for the first batch.
        caller: Name for messages.

    Raises:
        TypeError: An argument of another kind.
        ValueError: The model is not initialised, cannot be copied or does not run on a batch; no batch was given.
    """
    with bench(model, batches, reference, loss, caller) as b:
        b.attribute()
        return b.found


@contextmanager
def bench(
    model: nn.Module,
    batches: Any,
    reference: nn.Module | None = None,
    loss: Loss | None = None,
    caller: str = "measure",
) -> Iterator[Bench]:
    """As :func:`measure`, with the copies still there: what a change of one layer would bring can be tried on them."""
    measured_model(model, caller)
    found = Measurement(referred=reference is not None)
    record = record_of(model)
    assert record is not None
    found.settings, found.fusions = record.settings, {f.layer: f.bn for f in record.fusions}
    found.left_float = [(r.name, r.was, r.note) for r in record.report.stayed_float]
    with ExitStack() as stack:
        twin = stack.enter_context(copied(model, caller))
        plain = twin if reference is None else stack.enter_context(copied(reference, caller))
        if reference is not None and record_of(plain) is None:
            repeat_conversion(plain, record.metadata())
        plain.eval()
        b = Bench(found, twin, plain, loss)
        for batch in batches_of(batches):
            b.batch(batch, caller)
        if not found.batches:
            raise ValueError(f"{caller}: batches gave no batch")
        weight_rows(found.rows, twin, None if plain is twin else plain)
        found.islands = islands_of(twin)
        yield b
