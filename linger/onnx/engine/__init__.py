"""The recorded nodes in forms that one engine computes exactly; one file per kind of fault.

A rewrite keeps every integer: the runner gives the same results before and after it. Where no exact form exists the nodes
stay, and the rules of ``linger.check`` say so.
"""

from __future__ import annotations

from collections.abc import Iterable

from linger.chip import SHIPPED
from linger.runtime import Tape

from .graph import Graph
from .long_kernels import channels_for_taps, rows_for_taps
from .parameters import own_parameters, whole_bytes
from .pooling import average_pooling, earlier_forms
from .reserve import reserve_scratch
from .rows import rows_as_pixels
from .shapes import explicit_sizes, hidden_exchanges
from .steps import rows_of_features
from .upsampling import padded_maps, spread_maps

_PASSES = (
    rows_of_features,
    spread_maps,
    channels_for_taps,
    average_pooling,
    rows_as_pixels,
    whole_bytes,
    reserve_scratch,
    padded_maps,
    hidden_exchanges,
    own_parameters,
    explicit_sizes,
)


def rewrite(tape: Tape, outputs: Iterable[str], engine: str | None, open_batch: bool = False) -> None:
    """Put the nodes of a recording into the forms of an engine.

    Args:
        tape: Its nodes are those that an output needs.
        outputs: Names of the graph's outputs.
        engine: Release of the engine; None: the shipped one.
        open_batch: The first axis of the inputs is open.
    """
    graph = Graph(tape, outputs, engine, open_batch)
    rows_for_taps(graph)
    if engine not in (None, SHIPPED):
        channels_for_taps(graph)
        earlier_forms(graph)
        return
    for change in _PASSES:
        change(graph)
        graph.refresh()


__all__ = ["rewrite"]
