"""Batches through a copy of a quantized model, in integers and in float, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from linger.convert.quantization import quantization
from linger.nn.base import Converted
from linger.nn.functional import FunctionalLayer
from linger.quantizers import TRAIN_LIMIT, Quantizer
from linger.runtime import float_tensors, info, remembered, state

from .rows import Measurement, OperandRow, Row
from .sums import Energy
from .watch import Call, Errors, Sources, arguments_of, first_tensor, injected, run, watched

__all__ = ["Bench", "Loss"]

_CHANNELS_LAST = ("Linear", "LayerNorm", "LSTM", "GRU", "Embedding", "Attention")
_SUMS = ("add", "sub", "cat")
Loss = Callable[[Any, Any], Any]


class Bench:
    """One measurement while it runs.

    Args:
        found: Filled.
        twin: Copy of the model.
        plain: What runs in float: the same copy, or one of the reference.
        loss: See :func:`measure`.
    """

    def __init__(self, found: Measurement, twin: nn.Module, plain: nn.Module, loss: Loss | None) -> None:
        self.found, self.twin, self.plain, self.loss = found, twin, plain, loss
        self.sources, self.floats = Sources(), dict[tuple[str, int], Tensor]()
        self.inputs: dict[tuple[str, int], list[list[str]]] = {}
        self.first: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.wanted: list[Tensor] = []
        self.errors: Errors = {}  # of the first batch

    @torch.no_grad()
    def batch(self, batch: Any, caller: str) -> None:
        """One batch, in float and in integers."""
        args, kwargs = arguments_of(self.twin, batch)
        try:
            if self.first is None:
                self.prepare(args, kwargs)
            wanted = self.in_float(args, kwargs)
            with watched(self.twin, self.see):
                got = run(self.twin, args, kwargs)
        except (TypeError, RuntimeError, ValueError) as error:
            what = f"batch {self.found.batches} of type {type(batch).__name__}"
            raise ValueError(f"{caller}: the model does not run on {what}: {type(error).__name__}: {error}") from error
        for a, b in zip(float_tensors(wanted), float_tensors(got), strict=False):
            if a.shape == b.shape:
                self.found.output.add(a, b)
        if self.first is None:
            self.first = (args, kwargs)
            if self.loss is not None:
                self.found.losses = float(self.loss(got, batch)), float(self.loss(wanted, batch))
        self.found.batches += 1
        self.floats.clear()

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The operators of user code come to life, so that they can be watched; who has seen no data is noted."""
        used = state.used = set()
        try:
            run(self.twin, args, kwargs)
        finally:
            state.used = None
        self.found.unseen = [q.name for q in used if isinstance(q, Quantizer) and not q.ready]
        if self.plain is not self.twin:
            with quantization(self.plain, False):
                run(self.plain, args, kwargs)

    def in_float(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The float model's outputs; what each layer hands on is kept, and of the first batch who reads whose result."""
        first = self.first is None
        if first:
            args, kwargs = self.sources.tracked(args), self.sources.tracked(kwargs)

        def see(call: Call) -> None:
            y = first_tensor(call.output)
            if y is not None:
                self.floats[call.name, call.visit] = y.detach().clone()
            if first:
                reads = [self.sources.of(t) for t in float_tensors([call.args, call.kwargs])]
                self.inputs[call.name, call.visit] = reads
                self.sources.made(call.name, call.output)

        with quantization(self.plain, False), torch.set_grad_enabled(first), watched(self.plain, see):
            y = run(self.plain, args, kwargs)
        if first:
            self.found.outputs = self.sources.of(y)
        return y

    def see(self, call: Call) -> None:
        """One call in the quantized forward."""
        y = first_tensor(call.output)
        fmt = None if y is None else info(y)
        if y is None or fmt is None:
            return
        row = self.found.rows.get(call.name) or self.new_row(call, y)
        own = first_tensor(call.float_form())
        with torch._C.DisableTorchFunction():
            y = y.detach().float()
            scale, row.bits, row.relu = float(fmt.scale), fmt.bits, bool(fmt.relu)
            row.scale = scale
            if own is not None and own.shape == y.shape:
                own = own.detach().relu() if fmt.relu else own.detach()
                row.own.add(own, y)
                if self.first is None:
                    self.errors[call.name, call.visit] = y - own
                limit = getattr(call.module, "output_quantizer", call.module).__dict__.get(TRAIN_LIMIT)
                row.values.add(own, y, scale, fmt.bits, limit)
            wanted = self.floats.get((call.name, call.visit))
            if wanted is not None and wanted.shape == y.shape:
                row.model.add(wanted.relu() if fmt.relu else wanted, y)
            if row.kind in _SUMS and row.operator:
                self.see_operands(row, call, scale, fmt.bits)

    def new_row(self, call: Call, y: Tensor) -> Row:
        m: Any = call.module
        operator = isinstance(m, FunctionalLayer) or not isinstance(m, Converted)
        kind = (getattr(m, "operator", "") if operator else "") or type(m).__name__
        last = any(word in type(m).__name__ for word in _CHANNELS_LAST)
        axis = (y.dim() - 1 if last else 1) if y.dim() > 1 else None
        row = Row(call.name, kind, operator, place=call.place if operator else "")
        row.own.axis = row.model.axis = axis
        row.input_bits = getattr(getattr(m, "quant", None), "input_bits", 0)
        reads = self.inputs.get((call.name, call.visit), [])
        row.inputs = list(dict.fromkeys(name for names in reads for name in names)) or ["input"]
        self.found.rows[call.name] = row
        return row

    def see_operands(self, row: Row, call: Call, scale: float, bits: int) -> None:
        """What the operands of a sum or concatenation lose where they are brought to the result's scale."""
        operands = list(float_tensors([call.args, call.kwargs]))
        reads = self.inputs.get((call.name, call.visit), [])
        top = 1 << (bits - 1)
        for i, x in enumerate(operands):
            if len(row.operands) <= i:
                source = " + ".join(reads[i]) if i < len(reads) and reads[i] else "input"
                row.operands.append(OperandRow(source))
            known = info(x) or info(remembered(x))
            if known is None:
                continue
            operand, value = row.operands[i], x.detach().float()
            operand.bits_lost = max(operand.bits_lost, math.log2(float(known.scale) / scale))
            operand.energy.add(value, torch.floor(value * scale + 0.5).clamp(-top, top - 1) / scale)

    # ---- what one layer costs

    @torch.no_grad()
    def outputs(self) -> list[Tensor]:
        """The network's outputs on the first batch."""
        assert self.first is not None
        return list(float_tensors(run(self.twin, *self.first)))

    def attribute(self) -> None:
        """Fill ``alone`` of every row, on the first batch."""
        for row in self.found.rows.values():
            row.alone = self.alone([row.name])
            self.add_limit(row)

    def alone(self, names: Iterable[str], errors: Errors | None = None) -> Energy:
        """The float model's outputs, and those with the errors that these layers made among the integers.

        Args:
            names: Qualified names.
            errors: Of all layers; None: as the model is.
        """
        energy, chosen = Energy(), set(names)
        known = self.errors if errors is None else errors
        mine = {key: (e, self.found.rows[key[0]].relu) for key, e in known.items() if key[0] in chosen}
        with quantization(self.twin, False):
            if not self.wanted:
                self.wanted = self.outputs()
            with injected(self.twin, mine):
                for a, b in zip(self.wanted, self.outputs(), strict=False):
                    if a.shape == b.shape:
                        energy.add(a, b)
        return energy

    def errors_with(self, floats: Iterable[str]) -> Errors:
        """The errors of all layers on the first batch, as the copy is set now, some layers in float.

        Raises:
            UnsupportedError: A layer refuses what another one hands to it.
        """
        found: Errors = {}
        inside = list(floats)

        def see(call: Call) -> None:
            y = first_tensor(call.output)
            fmt = None if y is None else info(y)
            own = None if y is None or fmt is None or not fmt.exact else first_tensor(call.float_form())
            if y is not None and fmt is not None and own is not None and own.shape == y.shape:
                with torch._C.DisableTorchFunction():
                    found[call.name, call.visit] = y.float() - (own.relu() if fmt.relu else own)

        with quantization(self.twin, False, inside) if inside else nullcontext(), watched(self.twin, see):
            self.outputs()
        return found

    @torch.no_grad()
    def add_limit(self, row: Row) -> None:
        """What the limit of a weight costs beside the rounding: the reference with this weight cut."""
        assert self.first is not None
        if self.plain is self.twin:
            return
        for weight in row.weights:
            p = getattr(self.plain.get_submodule(row.name), weight.name, None)
            if not weight.cut.share or not isinstance(p, nn.Parameter):
                continue
            before = p.detach().clone()
            with quantization(self.plain, False):
                wanted = list(float_tensors(run(self.plain, *self.first)))
                p.clamp_(-weight.cut.limit, weight.cut.limit)
                try:
                    got = list(float_tensors(run(self.plain, *self.first)))
                finally:
                    p.copy_(before)
            for a, b in zip(wanted, got, strict=True):
                cut = Energy()
                cut.add(a, b)
                row.alone.noise += cut.noise
