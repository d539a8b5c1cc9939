"""A file as the rules of the chips see it."""

from __future__ import annotations

from typing import Any

import torch

from linger.chip import FLOAT, TensorFacts

from .loader import Graph


def graph_facts(graph: Graph) -> tuple[Any, ...]:
    """A file as :func:`linger.convert.findings.walk` takes it."""
    entries = [(n.op_type, n.name, _plain(n.attributes), n.inputs, n.outputs) for n in graph.nodes]
    constants = {name: t.numpy() for name, t in graph.constants.items()}
    return entries, graph.platform, ports(graph), constants, {out.name for out in graph.outputs}


def _plain(attributes: Any) -> dict[str, Any]:
    return {k: v for k, v in attributes.items() if not isinstance(v, torch.Tensor)}


def ports(graph: Graph) -> dict[str, TensorFacts]:
    """What a file declares about its inputs."""
    given = {}
    for port in graph.inputs:
        shape = None
        if port.shape is not None and all(d is not None for d in port.shape):
            shape = tuple(int(d) for d in port.shape if d is not None)
        bits = FLOAT if port.dtype.is_floating_point else torch.iinfo(port.dtype).bits
        given[port.name] = TensorFacts(shape, bits)
    return given


__all__ = ["graph_facts", "ports"]
