"""Graph inputs that are earlier outputs: a streaming cache enters the file with the scale that it leaves with."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from linger import ops
from linger.errors import ExportError
from linger.runtime import Format, Node, info, tag

from .arguments import copied, tensors_in

__all__ = ["as_state", "check_states", "state_formats", "warn_untouched"]

_FLOOR = 2.0**23  # the scale of a range that was all zero
_ROUNDS = 4  # a format that depends on the state's own settles at once, or not at all


def check_states(states: Any, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """The mapping of input to output names.

    Raises:
        TypeError: It is no mapping of names.
        ExportError: A name that ``input_names`` or ``output_names`` lacks.
    """
    if states is None:
        return {}
    if not isinstance(states, Mapping) or not all(isinstance(n, str) for pair in states.items() for n in pair):
        raise TypeError(f"export: states must map input names to output names, got {states!r}")
    given = [(n, inputs, "input_names") for n in states] + [(n, outputs, "output_names") for n in states.values()]
    for name, known, key in given:
        if name not in known:
            raise ExportError(f"export: states names {name!r}, which {key} lacks ({', '.join(known) or 'none given'})")
    return dict(states)


def as_state(t: Tensor, fmt: Format) -> Tensor:
    """A float tensor in the format of the output that it will come from."""
    codes = ops.codes_of(torch.floor(t * fmt.scale + 0.5) / fmt.scale, fmt.scale, fmt.bits)
    return tag(codes / fmt.scale, Format(fmt.scale, fmt.bits, codes))


def state_formats(
    model: nn.Module,
    args: tuple[Any, Any],
    states: Mapping[str, str],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> dict[str, Format]:
    """The format of every output that is a later input, from eval forwards that are not recorded.

    Raises:
        ExportError: Such an output is float, or of another shape than the input.
    """
    found: dict[str, Format] = {}
    for _ in range(_ROUNDS if states else 0):
        given: dict[str, Tensor] = {}

        def place(t: Tensor, given: dict[str, Tensor] = given, known: dict[str, Format] = found) -> Tensor:
            name = inputs[len(given)] if len(given) < len(inputs) else ""
            given[name or str(len(given))] = t
            return as_state(t, known[name]) if name in known else t

        results = list(tensors_in(model(*copied(args[0], place), **copied(args[1], place))))
        before, found = found, {}
        for name, output in states.items():
            y = results[outputs.index(output)]
            fmt = info(y)
            if fmt is None or fmt.bits > 8:
                raise ExportError(
                    f"export: states: output {output!r} is {'float' if fmt is None else f'{fmt.bits} bits wide'}; only an 8-bit "
                    "quantized output can come back as an input"
                )
            if y.shape != given[name].shape:
                raise ExportError(
                    f"export: states: output {output!r} has shape {tuple(y.shape)}, input {name!r} {tuple(given[name].shape)}"
                )
            found[name] = fmt
        if before and all(bool(before[n].scale == found[n].scale) for n in found):
            return found
    if states:
        raise ExportError(
            f"export: states: the scale of {', '.join(states)} does not settle: every pass gives it another one"
        )
    return {}


def warn_untouched(nodes: Iterable[Node], inputs: Iterable[str]) -> None:
    """Say which graph inputs have a scale that no value has made."""
    names = set(inputs)
    zero = [
        n.inputs[0]
        for n in nodes
        if n.op_type == "Quant" and n.inputs[0] in names and n.attributes["scale_x"] >= _FLOOR
    ]
    if zero:
        warnings.warn(
            f"linger: export: input(s) {', '.join(dict.fromkeys(zero))} were zero in training and calibration: their scale of "
            "2**23 cuts whatever they will hold. If such an input is an earlier output (a cache, a state), give both names and "
            f'write states={{"{zero[0]}": "<its output>"}}; else calibrate with real values',
            stacklevel=3,
        )
