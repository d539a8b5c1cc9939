"""``linger.compare_float``: whether a converted model, in float, still is the model that it was made from."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from linger.nn.base import Converted
from linger.nn.constrained.layers import Constrained
from linger.runtime import float_tensors, is_owner

from .neighbours_from_forward import bind_inputs, undisturbed
from .prepare import record_of
from .quantization import quantization

__all__ = ["FloatComparison", "compare_float"]

_TOLERANCE = 1e-5  # folding a BatchNorm moves a float32 result by a few units of its last place
Tensors = list[Tensor]


@dataclass
class FloatComparison:
    """What :func:`compare_float` found; true when both compute the same.

    Attributes:
        largest: The largest difference of the results, in units of their largest magnitude.
        tolerance: What was allowed.
        layers: Layer -> its largest difference in the same units, in the order of the converted model.
    """

    largest: float
    tolerance: float
    layers: dict[str, float] = field(default_factory=dict)

    @property
    def first(self) -> str | None:
        """The first layer that differs; None where none does."""
        return next((name for name, d in self.layers.items() if not d <= self.tolerance), None)

    def __bool__(self) -> bool:
        return self.largest <= self.tolerance

    def __str__(self) -> str:
        if self:
            return f"the same in float: results differ by {self.largest:.1e} of their magnitude at most"
        where = "no layer on its own differs: look at the code between the layers"
        if self.first is not None:
            where = f"the first layer that differs is '{self.first}' (by {self.layers[self.first]:.1e}); was it loaded?"
        return f"not the same in float: results differ by {self.largest:.1e} of their magnitude; {where}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self) | {"first": self.first}


def compare_float(
    model: nn.Module, original: nn.Module, example_inputs: Any, *, tolerance: float = _TOLERANCE
) -> FloatComparison:
    """Compare a converted model with the float model it comes from, both in float and in eval mode; neither changes.

    For the question "was the checkpoint loaded right?" before any training: a first loss that jumps has its reason here, or
    in the quantization. Limits of the first stage and 8-bit arithmetic are left out of the comparison.

    Args:
        model: Result of ``linger.init`` or ``linger.constrain``, loaded.
        original: The float model with its own checkpoint.
        example_inputs: A tensor, a tuple or a dict of keyword arguments.
        tolerance: In units of the largest magnitude of what is compared.

    Raises:
        TypeError: One of the two is no module.
        ValueError: ``model`` was not converted, or ``original`` was.

    Example:
        >>> import copy, torch, linger
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.BatchNorm1d(4), torch.nn.ReLU())
        >>> model = linger.init(copy.deepcopy(net))
        >>> bool(linger.compare_float(model, net, torch.randn(8, 2, 16)))
        True
        >>> _ = torch.nn.init.zeros_(model[0].weight)
        >>> linger.compare_float(model, net, torch.randn(8, 2, 16)).first
        '0'

    Source: ours.
    """
    for name, given in (("model", model), ("original", original)):
        if not isinstance(given, nn.Module):
            raise TypeError(f"compare_float: {name} must be a torch.nn.Module, got {type(given).__name__}")
    record = record_of(model)
    if record is None:
        raise ValueError("compare_float: model was not converted: the order is compare_float(model, original, inputs)")
    if record_of(original) is not None:
        raise ValueError("compare_float: original was converted itself; build it anew and load its float checkpoint")
    norms = {fusion.layer: fusion.bn for fusion in record.fusions}
    mine: dict[str, Tensors] = {}
    theirs: dict[str, Tensors] = {}
    layers = {name: m for name, m in model.named_modules() if name and _is_layer(m)}
    with undisturbed(model), undisturbed(original), torch.no_grad():
        for m in layers.values():
            if isinstance(m, Constrained):
                m.set_limits(ahead_relu=m.ahead_relu)  # none; undisturbed() brings them back
        with quantization(model, False) if is_owner(model) else nullcontext():
            got = _run(model, example_inputs, layers, mine)
        behind = {norms.get(name, name): name for name in layers}
        known = {behind[n]: m for n, m in original.named_modules() if n in behind}
        want = _run(original, example_inputs, known, theirs)
    found = {name: _difference(mine[name], theirs[name]) for name in layers if name in mine and name in theirs}
    return FloatComparison(_difference(got, want), tolerance, found)


def _is_layer(m: nn.Module) -> bool:
    return isinstance(m, (Converted, Constrained))


def _run(model: nn.Module, example_inputs: Any, layers: Mapping[str, nn.Module], seen: dict[str, Tensors]) -> Tensors:
    """Results of a forward; ``seen`` gets those of the first call of each layer."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            with torch._C.DisableTorchFunction():
                seen.setdefault(name, [t.detach().clone() for t in float_tensors(output)])

        return keep

    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    args, kwargs = bind_inputs(model, example_inputs)
    try:
        return [t.detach().clone() for t in float_tensors(model(*args, **kwargs))]
    finally:
        for handle in handles:
            handle.remove()


def _difference(a: Tensors, b: Tensors) -> float:
    """The largest difference, in units of the largest magnitude; infinite where shapes or numbers of tensors differ."""
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    largest = 0.0
    for x, y in zip(a, b, strict=True):
        if not x.numel():
            continue
        wide = y.double()
        scale = max(float(wide.abs().max()), 1e-12)
        d = float((x.double().to(wide.device) - wide).abs().max()) / scale
        largest = max(largest, d) if d == d else float("inf")
    return largest
