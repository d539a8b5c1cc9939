"""What the tensors of a file look like: the runner tries it on zeros."""

from __future__ import annotations

from typing import Any

import torch

from linger.errors import ModelError, UnsupportedError
from linger.onnx.loader import Graph, ValueDef
from linger.onnx.runner import OnnxRunner, lengths_of

from .node import Known

# sizes that open axes are tried with: two far apart, so that what depends on them shows
_TRIED = ((1, 2), (2, 4), (16, 32), (64, 128), (100, 200), (256, 512), (1, 1))
_Seen = dict[str, tuple[tuple[int, ...], torch.dtype]]


class TrialRunner(OnnxRunner):
    """A runner that notes shape and type of every tensor."""

    _seen: _Seen | None = None

    def _made(self, name: str, value: Any) -> None:
        if self._seen is not None:
            self._seen[name] = (tuple(value.tensor.shape), value.tensor.dtype)

    @property
    def graph(self) -> Graph:
        """The checked file."""
        return self._graph

    def known(self) -> dict[str, Known]:
        """Every tensor; sizes that follow an open axis are open.

        Raises:
            UnsupportedError: An input without declared shape; the file runs with none of the sizes tried for its open axes.
        """
        bare = [port.name for port in self.graph.inputs if port.shape is None]
        if bare:
            raise UnsupportedError(f"to_standard: the file does not say the shape of its input {bare[0]!r}")
        is_open = any(None in (port.shape or ()) for port in self.graph.inputs)
        why = ""
        for sizes in _TRIED if is_open else ((1,),):
            try:
                seen = [self._look(size) for size in sizes]
            except (ModelError, ValueError) as exc:
                why = str(exc)
                continue
            constants = {name: Known(tuple(t.shape), t.dtype) for name, t in self.graph.constants.items()}
            return constants | {name: _joined([found[name] for found in seen]) for name in seen[0]}
        raise UnsupportedError(f"to_standard: the file runs with no size that was tried for its open axes: {why}")

    def _look(self, size: int) -> _Seen:
        lengths = lengths_of(self.graph)
        given = {port.name: zeros(port, size, port.name in lengths) for port in self.graph.inputs}
        self._seen = {name: (tuple(t.shape), t.dtype) for name, t in given.items()}
        try:
            self.run_once(given)
            return self._seen
        finally:
            self._seen = None


def zeros(port: ValueDef, size: int, length: bool) -> torch.Tensor:
    """An input of a file, open axes of ``size``; ones where it says how many steps there are."""
    return torch.full(tuple(size if d is None else d for d in port.shape or ()), int(length), dtype=port.dtype)


def _joined(seen: list[tuple[tuple[int, ...], torch.dtype]]) -> Known:
    sizes = zip(*(shape for shape, _ in seen), strict=True)
    return Known(tuple(a[0] if len(set(a)) == 1 else None for a in sizes), seen[0][1])


__all__ = ["TrialRunner", "zeros"]
