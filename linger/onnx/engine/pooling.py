"""Rows A1-A4: average pooling in windows, strides and pieces that the engine divides right. The integers stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from linger.chip import Average, average_rows, average_runs, limits_of
from linger.nn.nodes.file_tensor import FileTensor
from linger.nn.pooling.product import write_products
from linger.runtime import Node

from .graph import Graph, hint_of, sizes


class _Axis(NamedTuple):
    """Windows along one axis: elements of a window, their distance, padding before and behind."""

    kernel: int
    stride: int
    before: int
    after: int

    def count(self, size: int) -> int:
        """Number of windows."""
        return (size + self.before + self.after - self.kernel) // self.stride + 1

    def pieces(self, size: int, most: int) -> Iterator[tuple[int, int, _Axis]]:
        """(first element, end, windows there) of parts of at most ``most`` elements and the padding."""
        count = self.count(size)
        each = max((most - self.kernel) // self.stride + 1, 1)
        for first in range(0, count, each):
            last = min(first + each, count) - 1
            start, end = first * self.stride - self.before, last * self.stride - self.before + self.kernel
            low, high = max(start, 0), min(end, size)
            yield low, high, _Axis(self.kernel, self.stride, low - start, end - high)


def average_pooling(graph: Graph) -> None:
    """Write every AvgPool2dInt in a form that the engine computes, where there is one."""

    def rewrite(node: Node) -> bool:
        shape, kernel = graph.shape(node.inputs[0]), sizes(node.attributes["kernel_shape"])
        if shape is None or len(shape) != 4:
            return False
        stride, pads = sizes(node.attributes["strides"]), sizes(node.attributes["pads"])
        plan = Average(graph.platform, shape[1], shape[2], shape[3], kernel, stride, pads)
        if average_runs(graph.engine, plan):
            return False
        y, x = _Axis(kernel[0], stride[0], pads[0], pads[2]), _Axis(kernel[1], stride[1], pads[1], pads[3])
        writer = _Writer(graph, node)
        made = writer.lowered(graph.chain(node.inputs[0], hint_of(node)), y, x)
        if made is None:
            return False
        graph.finish(made, node.outputs[0])
        return True

    graph.change(rewrite, "AvgPool2dInt")


class _Writer:
    def __init__(self, graph: Graph, node: Node) -> None:
        self.engine, self.platform, self.node = graph.engine, graph.platform, node

    def lowered(self, chain: FileTensor, y: _Axis, x: _Axis) -> FileTensor | None:
        """The result of the pooling; None where no exact form exists."""
        pixels = y.kernel * x.kernel
        power = pixels & (pixels - 1) == 0
        rows = self.engine.average_rows
        too_large = 0 < rows < average_rows(self.platform, self.engine, 8, 8, x.kernel, (y.kernel, x.kernel), (1, 1))
        if power and (0 < self.engine.average_sums < pixels or too_large):
            form = (y.kernel, x.kernel), (y.stride, x.stride), (y.before, x.before, y.after, x.after)
            return write_products(chain, *form)
        if not power and (0 < self.engine.average_elements < pixels or too_large):
            return None
        allowed = self.engine.average_strides
        every_y, every_x = _step(y.stride, allowed), _step(x.stride, allowed)
        fine_y, fine_x = y._replace(stride=y.stride // every_y), x._replace(stride=x.stride // every_x)
        chain = self._pieces(chain, fine_y, fine_x)
        chain = _every(chain, 2, every_y, y.count(self.height))
        return _every(chain, 3, every_x, x.count(self.width))

    def _pieces(self, chain: FileTensor, y: _Axis, x: _Axis) -> FileTensor:
        """Bands, columns and channels that fit the engine's buffers."""
        self.height, self.width = chain.shape[2:]
        most_h, most_w = self._room(y, x)
        bands = []
        for top, bottom, rows in y.pieces(self.height, most_h):
            band = chain.slice(2, top, bottom)
            parts = [
                self._channels(band.slice(3, left, right), rows, columns)
                for left, right, columns in x.pieces(self.width, most_w)
            ]
            bands.append(parts[0].cat(parts[1:], 3))
        return bands[0].cat(bands[1:], 2)

    def _room(self, y: _Axis, x: _Axis) -> tuple[int, int]:
        """Rows and columns of a part with which eight channels fit; the whole map where they do anyway."""

        def fits(h: int, w: int) -> bool:
            return self._most(h, w, y, x) >= 8

        h, w = self.height, self.width
        while w > x.kernel and not fits(y.kernel, w):
            w = max(x.kernel, w // 2)
        while h > y.kernel and not fits(h, w):
            h = max(y.kernel, h // 2)
        return h, w

    def _most(self, h: int, w: int, y: _Axis, x: _Axis) -> int:
        """Channels that fit at once, in eights."""
        kernel, stride = (y.kernel, x.kernel), (y.stride, x.stride)
        eight = average_rows(self.platform, self.engine, 8, h, w, kernel, stride)
        most = limits_of(self.platform).pool_row_bytes // (8 * h * _up(w, 8 * x.stride)) * 8
        return min(most, self.engine.average_rows // eight * 8) if self.engine.average_rows else most

    def _channels(self, chain: FileTensor, y: _Axis, x: _Axis) -> FileTensor:
        """The pooling of one part: nodes with as many channels as fit."""
        channels, height, width = chain.shape[1:]
        most = max(self._most(height, width, y, x), 8)
        parts = []
        for first in range(0, channels, most):
            part = chain.slice(1, first, min(first + most, channels))
            parts.append(self._around_whole(part, y, x))
        return parts[0].cat(parts[1:], 1)

    def _around_whole(self, chain: FileTensor, y: _Axis, x: _Axis) -> FileTensor:
        """One node. More padding at the end gives it more windows than are wanted, which are cut off again."""
        channels, h, w = chain.shape[1:]
        rows, cols = y.count(h), x.count(w)
        pixels = y.kernel * x.kernel
        power = pixels & (pixels - 1) == 0
        share = 0 if power else self.engine.average_share
        below, beside = 0, 0
        whole = (h + y.before + y.after, w + x.before + x.after) == (y.kernel, x.kernel)
        if whole and not self.engine.average_whole and pixels > 1:
            y, x = y._replace(stride=1), x._replace(stride=1)
            below, beside = (1, 0) if y.after < y.kernel else (0, 1)
        if share:
            while pixels > share * channels * (rows + below) * (cols + beside):
                if y.after + (below + 1) * y.stride <= y.kernel:
                    below += 1
                elif x.after + (beside + 1) * x.stride <= x.kernel:
                    beside += 1
                else:
                    break
        y, x = y._replace(after=y.after + below * y.stride), x._replace(after=x.after + beside * x.stride)
        attributes: dict[str, Any] = dict(self.node.attributes)
        attributes |= {"kernel_shape": [y.kernel, x.kernel], "strides": [y.stride, x.stride]}
        attributes |= {"pads": [y.before, x.before, y.after, x.after]}
        shape = (chain.shape[0], channels, y.count(h), x.count(w))
        pooled = chain.node("AvgPool2dInt", shape, attributes, chip=True)
        return pooled.slice(2, 0, rows).slice(3, 0, cols)


def _step(stride: int, allowed: tuple[int, ...]) -> int:
    """How many windows of the emitted stride lie between two wanted ones."""
    if not allowed or stride in allowed:
        return 1
    return stride // max(s for s in allowed if stride % s == 0)


def _every(chain: FileTensor, axis: int, step: int, count: int) -> FileTensor:
    return chain if step == 1 else chain.gather(axis, [i * step for i in range(count)])


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


def earlier_forms(graph: Graph) -> None:
    """The forms for other engines: no window over the whole map where its scratch memory is short, channels in pieces."""

    def rewrite(node: Node) -> bool:
        shape, kernel = graph.shape(node.inputs[0]), sizes(node.attributes["kernel_shape"])
        if shape is None or len(shape) != 4:
            return False
        stride, pads = sizes(node.attributes["strides"]), sizes(node.attributes["pads"])
        new_stride, new_pads = _off_the_whole(graph.platform, shape, kernel, stride, pads)
        eight = 8 * shape[2] * _up(shape[3], 8 * new_stride[1])
        most = max(limits_of(graph.platform).pool_row_bytes // eight * 8, 8)
        if (new_stride, new_pads) == (stride, pads) and most >= shape[1]:
            return False
        chain = graph.chain(node.inputs[0], hint_of(node))
        new = {**node.attributes, "strides": [*new_stride], "pads": [*new_pads]}
        size = [(s + new_pads[i] + new_pads[i + 2] - kernel[i]) // new_stride[i] + 1 for i, s in enumerate(shape[2:])]
        parts = []
        for first in range(0, shape[1], most):
            part = chain.slice(1, first, min(first + most, shape[1]))
            parts.append(part.node("AvgPool2dInt", (shape[0], part.shape[1], *size), new, chip=True))
        graph.finish(parts[0].cat(parts[1:], 1), node.outputs[0])
        return True

    graph.change(rewrite, "AvgPool2dInt")


def _off_the_whole(
    platform: str, shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stride and padding with which a window over the whole map does not enter the engines' own path for it.

    That path has too little scratch memory: on one chip for sizes that are no power of two, on the others for these with few
    channels, and for powers of two it overlaps its neighbour. One row of padding that no window reaches leads around it.
    """
    _, channels, h, w = shape
    if (h + pads[0] + pads[2], w + pads[1] + pads[3]) != kernel or kernel == (1, 1):
        return stride, pads
    pixels = kernel[0] * kernel[1]
    power = pixels & (pixels - 1) == 0
    if limits_of(platform).pool_whole_scratch:
        safe = not power and 4 * channels >= h * w
    else:
        safe = power
    if safe:
        return (1, 1), pads
    top, left, bottom, right = pads
    if kernel[0] > 1:
        return (2, 1), (top, left, bottom + 1, right)
    return (1, 2), (top, left, bottom, right + 1)


__all__ = ["average_pooling", "earlier_forms"]
