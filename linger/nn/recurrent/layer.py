"""Recurrent layers: what LSTM and GRU share, from the quantizers to packed sequences and states."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from linger import ops
from linger.chip import limits_of
from linger.errors import UnsupportedError
from linger.nn.base import (
    Converted,
    accept,
    activation_quantizer,
    calibrate_input,
    emit,
    emit_calibrated,
    note_use,
    operand_scale,
    weight_quantizer,
    weight_scale,
)
from linger.nn.constrained.recurrent import FloatRows, run_float
from linger.nn.moves.rows import mark_rows
from linger.ops.recurrent import Formulas, Result, States, Walk, Weights, hidden_observe, hidden_scale
from linger.quantizers import Quantizer, clamp_weight_once, in_float, in_recomputation, unobserved
from linger.runtime import Leaf, current_tape, info

from .inputs import given_states, input_rows, state_parts
from .packing import Padded, padded
from .states import InputRows, both_directions, drop_between_layers, formulas_of, tag_state
from .write import Direction, NodeWriter

if TYPE_CHECKING:
    from linger.settings import LayerSettings

_log = logging.getLogger("linger")
_R = TypeVar("_R", bound="RecurrentInt")
_dynamo = torch._C._dynamo.eval_frame
_NOTABLE = 0.001  # share of saturated cells from which the user hears of it


def _no_projection(m: nn.Module) -> None:
    if getattr(m, "proj_size", 0):
        raise UnsupportedError(f"linger: {type(m).__name__} with proj_size={m.proj_size}: no chip projects the state")


class RecurrentInt(Converted, Leaf):
    """Base of recurrent layers that compute the chip's integers.

    One scale serves output and hidden state of a layer, and both directions: the state feeds back, so the scale is fixed for
    a whole pass and moves after it. A layer of several layers is a chain of single ones.

    Source: docs/numerics.md, "Recurrent layers".
    """

    gates: ClassVar[int]
    op_type: ClassVar[str]
    quant: LayerSettings
    fused_relu: bool
    input_quantizer: Quantizer
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    dropout: float

    def __init__(self, *args: Any, unified: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not unified:
            raise UnsupportedError(
                f"{type(self).__name__}: unified=False: the chips have one scale for output and state"
            )
        _no_projection(self)

    @classmethod
    def from_float(cls: type[_R], m: nn.Module, quant: LayerSettings) -> _R:
        """Turn a float layer into this one in place, with the same Parameters, hooks and flags; returns it."""
        _no_projection(m)
        return super().from_float(m, quant)

    def set_quantizers(self, quant: LayerSettings) -> None:
        """Create the quantizers; those whose tensor has no scale of its own exist because 3.x checkpoints have them."""
        self.quant, self.fused_relu = quant, False
        self.input_quantizer = activation_quantizer(quant, quant.input_bits)
        for d in self.directions():
            for kind in ("weightih", "weighthh"):
                setattr(self, d.quantizer(kind), weight_quantizer(quant))
            named = ["hidden", "biasih", "biashh", *(["cell"] if self.gates == 4 else [])]
            for kind in [*named, *(["input", "output"] if d.reverse else [])]:
                setattr(self, d.quantizer(kind), Quantizer(32, role="bias"))
            if not d.reverse:
                setattr(self, d.quantizer("output"), activation_quantizer(quant, 8))
        self.register_buffer("_saturated", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.register_buffer("_cells", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.name_quantizers()

    def limited_weights(self) -> list[tuple[Tensor, Quantizer]]:
        """All matrices, each with its quantizer."""
        return [
            (getattr(self, d.parameter(f"weight_{kind}")), getattr(self, d.quantizer(f"weight{kind}")))
            for d in self.directions()
            for kind in ("ih", "hh")
        ]

    def clamp_now(self) -> None:
        """Clamp the matrices once, as the first training step would."""
        for weight, quantizer in self.limited_weights():
            clamp_weight_once(weight, quantizer, self.quant.clamp)

    def keep_constrained(self) -> None:
        """A layer that was constrained computes with clamped parameters already: keep them."""
        self.clamp_now()
        limit = self.quant.clamp.clamp_bias_value
        for name, p in self.named_parameters(recurse=False):
            if limit is not None and name.startswith("bias") and p.requires_grad:
                with torch.no_grad():
                    p.clamp_(-limit, limit)

    def directions(self, layer: int | None = None) -> list[Direction]:
        """Directions of one layer, or of all, in torch's order."""
        layers = range(self.num_layers) if layer is None else (layer,)
        return [Direction(k, r) for k in layers for r in ((False, True) if self.bidirectional else (False,))]

    def weights(self, d: Direction) -> Weights:
        """Parameters of one direction and the settings of its quantizers."""
        parameters = cast("dict[str, Tensor]", self._parameters)
        biases = [parameters[d.parameter(f"bias_{k}")] if self.bias else None for k in ("ih", "hh")]
        matrices = [parameters[d.parameter(f"weight_{k}")] for k in ("ih", "hh")]
        quantizers = [cast("Quantizer", getattr(self, d.quantizer(f"weight{k}"))) for k in ("ih", "hh")]
        outs = [q.weight_output(w) for q, w in zip(quantizers, matrices, strict=True)]
        return Weights(matrices[0], matrices[1], biases[0], biases[1], outs[0], outs[1])

    def output_quantizer_of(self, layer: int) -> Quantizer:
        """Quantizer of the output and state of one layer."""
        return cast("Quantizer", getattr(self, Direction(layer, False).quantizer("output")))

    @property
    def formulas(self) -> Formulas:
        """How the layer's chip computes it."""
        return formulas_of(self.quant.platform, self.gates)

    # ---- what a subclass adds

    def step(
        self, x: ops.Coded, w: Weights, scale: Tensor, out: ops.Output, walk: Walk, given: tuple[Tensor | None, ...]
    ) -> Result:
        """One direction of one layer."""
        raise NotImplementedError

    # ---- forward

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  torch's name
        """Chip integers in forward, gradients through time in backward; arguments and results as torch's layer."""
        if torch.compiler.is_compiling() or _dynamo.get_eval_frame_callback() is None:
            return self._run(input, hx)
        before = _dynamo.set_eval_frame(None)  # torch.compile leaves recurrent layers alone: their helpers, too
        try:
            return self._run(input, hx)
        finally:
            _dynamo.set_eval_frame(before)

    def _run(self, input: Any, hx: Any) -> Any:  # noqa: A002  torch's name
        with torch._C.DisableTorchFunction():
            if self.training or in_float():
                self.clamp_now()
            x, rows = input_rows(self, input)
            given = given_states(self, hx, rows)
            if rows.batch == 0:
                return self._nothing(x)
            if in_float():
                y, states = self._calibrate(x, rows, given)
            else:
                y, states = self._compute(x, rows, given, hx)
            return self._results(y, states, rows)

    def _nothing(self, x: Tensor) -> Any:
        """What a batch without entries gives; nothing is observed."""
        n, last = 2 if self.bidirectional else 1, self.output_quantizer_of(self.num_layers - 1)
        y = x.new_zeros(*x.shape[:-1], n * self.hidden_size)
        y = tag_state(y, hidden_scale(last.output(), self.formulas.state_exp2), 8, y.to(torch.int8))
        states = [x.new_zeros(self.num_layers * n, 0, self.hidden_size) for _ in range(self.gates - 2)]
        return y, states[0] if self.gates == 3 else tuple(states)

    def _compute(
        self, x: Tensor, rows: InputRows, given: list[Tensor] | None, hx: Any
    ) -> tuple[Tensor, list[list[States]]]:
        tape = current_tape()
        origin = padded(x)
        operand = self._accept(x, origin)
        recording = None
        if tape is not None:
            recording = NodeWriter(tape, self, operand.value, rows, origin, state_parts(self, hx))
        states: list[list[States]] = []
        y = x
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout > 0.0:
                operand = drop_between_layers(operand, y, self.dropout)
            quantizer = self.output_quantizer_of(layer)
            note_use(quantizer)
            out, formulas = quantizer.output(), self.formulas
            scale = self._scale_of(layer, out, formulas.state_exp2)
            results = []
            for d in self.directions(layer):
                at = layer * (2 if self.bidirectional else 1) + d.reverse
                mine = (None,) * (self.gates - 2) if given is None else tuple(s[at] for s in given)
                walk = rows.walk(formulas, d.reverse)
                results.append(self.step(operand, self.weights(d), scale, out, walk, mine))
            self._observe(results, out, formulas.state_exp2, operand)
            out_rows = both_directions([r.out for r in results])
            y = emit(out_rows, quantizer)
            states += [[s for s in (r.h, r.c) if s is not None] for r in results]
            if recording is not None:
                recording.layer(layer, operand, out_rows)
            operand = out_rows._replace(value=y) if y.dtype == torch.float32 else out_rows
        if recording is not None:
            recording.finish(y)
            self.__dict__["_recording"] = recording
        return y, states

    def _scale_of(self, layer: int, out: ops.Output, cap: int) -> Tensor:
        """The scale of this pass; a recomputation in backward takes that of the pass it repeats, which has moved since."""
        known: dict[int, Tensor] = self.__dict__.setdefault("_scales", {})
        if in_recomputation() and layer in known:
            return known[layer]
        scale = hidden_scale(out, cap)
        if out.observe and not torch.compiler.is_compiling():
            known[layer] = scale.detach()  # of a threshold: a copied module holds no graph
        return scale

    def _accept(self, x: Tensor, origin: Padded | None) -> ops.Coded:
        fmt = info(x)
        if origin is None or (fmt is not None and fmt.exact):
            return accept(x, self.input_quantizer, 8)
        assert isinstance(origin.source, Tensor)  # what another layer hands on has a format
        accept(origin.source, self.input_quantizer, 8)  # the file quantizes the padded tensor: the same codes
        return self.input_quantizer.forward(x if x.dtype == torch.float32 else x.float())

    def _observe(self, results: list[Result], out: ops.Output, cap: int, x: ops.Coded) -> None:
        peak = results[0].peak if len(results) == 1 else torch.maximum(results[0].peak, results[1].peak)
        hidden_observe(peak, out, cap)
        if out.observe and results[0].saturated is not None:
            for r in results:
                self.get_buffer("_saturated").add_(cast(Tensor, r.saturated))
            self.get_buffer("_cells").add_(x.codes.numel() // x.codes.shape[-1] * self.hidden_size * len(results))

    def _results(self, y: Tensor, states: list[list[States]], rows: InputRows) -> Any:
        recording: NodeWriter | None = self.__dict__.pop("_recording", None)
        order = None if rows.packed is None else rows.packed.unsorted_indices

        def placed(t: Tensor) -> Tensor:
            t = t if order is None else t.index_select(1, order)
            return t.squeeze(1) if rows.unbatched else t

        last = []
        for i, parts in enumerate(zip(*states, strict=True)):
            bits = 8 if i == 0 else limits_of(self.quant.platform).cell_bits
            values = [placed(p.value) for p in parts]
            values = values if values[0].dtype == y.dtype or i else [v.to(y.dtype) for v in values]
            formats = [(p.scale, bits, None if in_float() else placed(p.codes)) for p in parts]
            value = values[0] if len(values) == 1 else torch.cat(values)
            if len(parts) == 1:
                value = tag_state(value, *formats[0])
            elif self.num_layers == 1 and (recording is None or i == 0):  # one scale
                codes = None if in_float() else torch.cat([cast(Tensor, f[2]) for f in formats])
                value = tag_state(value, parts[0].scale, bits, codes)
            else:
                made = [tag_state(v, *f) for v, f in zip(values, formats, strict=True)]
                value = mark_rows(value, made)
                if recording is not None:
                    recording.rows_of_state(i, made)
            if recording is not None:
                recording.state(i, value)
            last.append(value)
        state: Any = last[0] if self.gates == 3 else tuple(last)
        if rows.packed is not None:
            p = rows.packed
            return PackedSequence(y, p.batch_sizes, p.sorted_indices, p.unsorted_indices), state
        return y, state

    def _calibrate(self, x: Tensor, rows: InputRows, given: list[Tensor] | None) -> tuple[Tensor, list[list[States]]]:
        """Inside ``calibration()``: the float layers, each output observed."""
        calibrate_input(x, self.input_quantizer)
        states: list[list[States]] = []
        n = 2 if self.bidirectional else 1
        y = x
        cell = x.new_full((), 2.0 ** limits_of(self.quant.platform).cell_exp2)
        x_scale, cap = operand_scale(x, self.input_quantizer), self.formulas.state_exp2
        for layer in range(self.num_layers):
            quantizer = self.output_quantizer_of(layer)
            quantizer.bound_calibration(partial(hidden_scale, quantizer.output(), cap))
            tensors = []
            for d in self.directions(layer):
                w = self.weights(d)
                sides = ("weightih", w.w_ih, w.b_ih, x_scale), ("weighthh", w.w_hh, w.b_hh, quantizer.scale)
                for kind, matrix, bias, scale in sides:
                    mine = cast("Quantizer", getattr(self, d.quantizer(kind)))
                    mine.observe_calibration(matrix)
                    mine.bound_calibration(partial(weight_scale, mine, matrix, bias, scale))
                as_torch = RecurrentInt.weights(self, d)  # the chip's may be turned for its formula
                tensors += [t for t in as_torch[:4] if t is not None]
            starts = None if given is None else [s[layer * n : layer * n + n] for s in given]
            if layer and self.training and unobserved():  # ranges are those of evaluation
                y = F.dropout(y, self.dropout)
            how = FloatRows(rows.packed, self.batch_first and not rows.unbatched, rows.unbatched)
            y, last = run_float(self.gates, y, how, starts, tensors, self.bias, self.bidirectional)
            y, x_scale = emit_calibrated(y, quantizer), quantizer.scale
            for at in range(n):
                states.append([States(s[at : at + 1], s, f) for s, f in zip(last, (x_scale, cell), strict=False)])
        return y, states

    # ---- reports

    @property
    def place(self) -> str:
        """Where the layer is in the model, else its kind; for messages."""
        return self.__dict__.get("_linger_name", "") or type(self).__name__

    @property
    def saturated_share(self) -> float:
        """Share of this layer's cells, over all training steps so far, whose product c * f left the chip's 32 bits (+-2)."""
        n = int(self.get_buffer("_cells"))
        return float(self.get_buffer("_saturated")) / n if n else 0.0

    def train(self: _R, mode: bool = True) -> _R:
        """As torch; on the way to evaluation a notable share of saturated cells is reported."""
        super().train(mode)
        if not mode and self.saturated_share >= _NOTABLE:
            share, told = self.saturated_share, self.__dict__.get("_told", 0.0)
            if share >= 2.0 * told:  # once, and again when it has doubled
                self.__dict__["_told"] = share
                _log.warning(
                    "linger: '%s': %.1f %% of the cells reached +-2 while training, where the chip's product of cell and "
                    "forget gate saturates; gradients do not see it: lower the forget bias, or train longer",
                    self.place,
                    100.0 * share,
                )
        return self

    def extra_repr(self) -> str:
        """The torch part first, then the formats."""
        q = self.quant
        return (
            f"{super().extra_repr()}, data_bits:{q.input_bits}, o_bits:8, weight_bits:{q.weight_bits}, "
            f"bias_bits:32, mode:QuantMode.{q.rounding.name}, platform:{q.platform}"
        )


__all__ = ["RecurrentInt"]
