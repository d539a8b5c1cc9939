"""How recurrent layers are written into a file: one node per layer and direction on ``(B, T, features)``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.chip import Violation, limits_of
from linger.nn.functional import common_attributes
from linger.runtime import ChipOutput, Operand, Tape, Value, info, remembered

from .packing import Padded, mark_padded
from .states import InputRows

if TYPE_CHECKING:
    from .layer import RecurrentInt

_ONNX = {8: 3, 16: 5, 32: 6}  # element types of integer graph inputs


class Direction(NamedTuple):
    """One direction of one layer, and the names that go with it."""

    layer: int
    reverse: bool

    def parameter(self, kind: str) -> str:
        """``weight_ih`` -> ``weight_ih_l0_reverse``, as torch names it."""
        return f"{kind}_l{self.layer}{'_reverse' if self.reverse else ''}"

    def quantizer(self, kind: str) -> str:
        """``weightih`` -> ``weightih_reverse_quantizer``; layers behind the first have their number in it."""
        layer = f"_l{self.layer}" if self.layer else ""
        return f"{kind}{layer}{'_reverse' if self.reverse else ''}_quantizer"


def _length_behind(tape: Tape, x: Tensor, steps: int) -> Value | None:
    """The length of the sequence that ``x`` goes on with, where that is a value of the file; None: all steps count.

    It is found behind the outputs of the recurrent layer that took it; from a last state nothing goes on.
    """
    if not tape.has(x):
        return None
    made = {name: (node, i) for node in tape.nodes for i, name in enumerate(node.outputs)}
    waiting, seen = [tape.name_of(x)], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in made:
            continue
        seen.add(name)
        node, which = made[name]
        if node.op_type not in ("LSTMInt", "GRUInt"):
            waiting.extend(node.inputs)
        elif which == 0 and len(node.inputs) > 5:
            if node.inputs[1] not in tape.initializers and tape.steps.get(name) == steps:
                return Value(node.inputs[1])
        elif which == 0:
            waiting.append(node.inputs[0])
    return None


class NodeWriter:
    """What one forward of a recurrent layer writes.

    Args:
        tape: The recorded forward.
        m: The layer.
        x: Quantized rows.
        rows: Their steps.
        origin: What packed rows are in the file.
        given: The caller's states as they came, or None: other tensors mean nothing to the tape.
    """

    def __init__(
        self,
        tape: Tape,
        m: RecurrentInt,
        x: Tensor,
        rows: InputRows,
        origin: Padded | None,
        given: list[Tensor] | None,
    ) -> None:
        self.tape, self.m, self.rows, self.given = tape, m, rows, given
        self.name = m.__dict__.get("_linger_name", "") or m.op_type.lower()
        self.length: Operand = _length_behind(tape, x, len(rows.counts)) if origin is None else origin.length
        self.x: Operand = self._by_batch(x, origin)
        self.last: list[list[Value]] = []  # h (and c) of every node
        self.scales: list[float] = []
        if rows.packed is not None and origin is None:
            tape.name_of(x)  # says why these rows have no form in a file

    def _by_batch(self, x: Tensor, origin: Padded | None) -> Operand:
        """The input as (B, T, D)."""
        if origin is not None:
            source = origin.source
            if isinstance(source, Tensor):
                known = source if info(source) is not None else remembered(source)
                assert known is not None
                source = known
            return source if origin.batch_first else self._node("Transpose", source, perm=[1, 0, 2])
        if self.rows.unbatched:
            return self._node("Unsqueeze", x, axes=[0])
        return x if self.m.batch_first else self._node("Transpose", x, perm=[1, 0, 2])

    def _node(self, op: str, x: Operand, *more: Operand, **attributes: Any) -> Value:
        y = self.tape.value(f"{self.name}.{op.lower()}")
        self.tape.node(op, [x, *more], [y], attributes, hint=self.name)
        return y

    def layer(self, layer: int, x: ops.Coded, out: ops.Coded) -> None:
        """The nodes of one layer; its result is the next one's input."""
        scale = float(out.scale)
        made = [self._direction(d, x, scale) for d in self.m.directions(layer)]
        self.x = made[0]
        if len(made) > 1:
            self.x = self.cat(made, 2, scale)

    def cat(self, parts: list[Value], dim: int, scale: float) -> Value:
        """Tensors of one scale side by side."""
        attributes = common_attributes(self.tape) | {"dim": dim, "o_bits": 8, "scale_o": scale}
        for i in range(len(parts)):
            attributes |= {f"x_{i}_bits": 8, f"scale_x_{i}": scale}
        y = self.tape.value(f"{self.name}.cat")
        self.tape.node("iqCat", parts, [y], attributes, domain="linger", hint=self.name)
        return y

    def _direction(self, d: Direction, x: ops.Coded, scale: float) -> Value:
        m, tape = self.m, self.tape
        w = m.weights(d)
        arrays, scales = [], []
        h_scale = torch.tensor(scale)
        sides = ((w.w_ih, w.b_ih, w.ih_out, x.scale), (w.w_hh, w.b_hh, w.hh_out, h_scale))
        for matrix, bias, out, operand_scale in sides:
            bias = None if bias is None else bias.detach().float()
            codes, w_scale, *_ = ops.quantize_weight(
                matrix.detach().float(), out._replace(observe=False), bias, operand_scale
            )
            arrays.append(codes.cpu().numpy())
            scales.append(w_scale)
            zeros = np.zeros(len(matrix), np.int32)
            given = None if bias is None else ops.quantize_bias(bias, operand_scale, w_scale).cpu().numpy()
            arrays.append(zeros if given is None else given)
        attributes = common_attributes(tape) | {
            "x_bits": 8,
            "w_bits": m.quant.weight_bits,
            "o_bits": 8,
            "input_size": int(w.w_ih.shape[1]),
            "hidden_size": m.hidden_size,
            "num_layers": 1,
            "batch_first": int(limits_of(tape.platform).recurrent_batch_first),
            "go_forward": int(not d.reverse),
            "scale_x": float(x.scale),
            "scale_iw": float(scales[0]),
            "scale_hw": float(scales[1]),
            "scale_h": scale,
            "scale_o": scale,
        }
        states = self._states(d, scale)
        length = self.length
        if states and length is None:
            length = np.array([len(self.rows.counts)], np.int32)
        given_inputs = [t for t in (length, *states) if t is not None]
        kinds = {"weight_ih": arrays[0], "weight_hh": arrays[2], "bias_ih": arrays[1], "bias_hh": arrays[3]}
        parameters = [Value(tape.constant(a, f"{self.name}.{d.parameter(kind)}")) for kind, a in kinds.items()]
        inputs = [self.x, *given_inputs, *parameters]
        outputs = [tape.value(f"{self.name}.{part}") for part in ("out", "h", "c")[: m.gates - 1]]
        tape.node(m.op_type, inputs, outputs, attributes, domain="linger", hint=self.name)
        tape.steps[outputs[0].name] = len(self.rows.counts)
        self.last.append(outputs[1:])
        self.scales.append(scale)
        return outputs[0]

    # ---- states

    def _states(self, d: Direction, scale: float) -> list[Operand]:
        if self.given is None:
            return []
        tape, n = self.tape, len(self.given[0])
        if not any(tape.has(s) for s in self.given) and not any(bool(s.detach().any()) for s in self.given):
            return []  # zeros, as without
        at = d.layer * (2 if self.m.bidirectional else 1) + d.reverse
        chip = limits_of(tape.platform)
        formats = [(scale, 8), (2.0**chip.cell_exp2, chip.cell_bits)]
        return [self._state(s, at, n, *how) for s, how in zip(self.given, formats, strict=False)]

    def _state(self, s: Tensor, at: int, n: int, scale: float, bits: int) -> Operand:
        """One part of a given state, (1, B, H), in codes at ``scale``."""
        tape = self.tape
        if not tape.has(s):
            top = 2.0 ** (bits - 1)
            codes = (s[at : at + 1].detach().double() * scale + 0.5).floor().clamp(-top, top - 1)
            codes = codes.unsqueeze(1) if self.rows.unbatched else codes
            return codes.to({8: torch.int8, 16: torch.int16, 32: torch.int32}[bits]).cpu().numpy()
        fmt = info(s)
        part: Operand = s
        if n > 1:
            cut = [np.array([v], np.int64) for v in (at, at + 1, 0)]
            part = self._node("Slice", s, *cut)
        if self.rows.unbatched:
            part = self._node("Unsqueeze", part, axes=[1])
        if fmt is not None and fmt.exact and float(fmt.scale) == scale and fmt.bits == bits:
            return part
        if fmt is not None and fmt.exact:
            attributes, given = common_attributes(tape) | {"data_bits": fmt.bits, "o_bits": bits}, float(fmt.scale)
            if bits > 8 and given > scale:  # wide results are shifted left only: to the right in 8 bits first
                narrow = attributes | {"o_bits": 8, "scale_x": given, "scale_o": scale}
                part, given = self._linger("Requant", part, narrow), scale
            return self._linger("Requant", part, attributes | {"scale_x": given, "scale_o": scale})
        name = tape.name_of(s)
        tape.states.add(name)
        if bits > 8 and name not in {o for node in tape.nodes for o in node.outputs}:  # a graph input
            tape.port_types[name] = _ONNX[bits]
            return part
        attributes = {"data_bits": bits, "scale_x": scale, "platform": tape.platform, "zero_point": 0}
        return self._linger("Quant", part, attributes)

    def _linger(self, op: str, x: Operand, attributes: dict[str, Any]) -> Value:
        y = self.tape.value(f"{self.name}.state")
        self.tape.node(op, [x], [y], attributes, domain="linger", hint=self.name)
        return y

    # ---- results

    def finish(self, y: Tensor) -> None:
        """The last layer's result in the caller's layout."""
        tape, x = self.tape, self.x
        assert isinstance(x, Value)
        if self.rows.packed is not None:
            mark_padded(tape, y, Padded(x, True, self.length))
        elif self.rows.unbatched:
            tape.node("Squeeze", [x], [y], {"axes": [0]}, hint=self.name)
        elif self.m.batch_first:
            tape.bind(y, x.name)
        else:
            tape.node("Transpose", [x], [y], {"perm": [1, 0, 2]}, hint=self.name)

    def rows_of_state(self, i: int, parts: Iterable[Tensor]) -> None:
        """The last states of every layer and direction on their own: what ``h_n[-1]`` takes."""
        for made, part in zip(self.last, parts, strict=True):
            if self.rows.unbatched:
                self.tape.node("Squeeze", [made[i]], [part], {"axes": [1]}, hint=self.name)
            else:
                self.tape.bind(part, made[i].name)

    def state(self, i: int, value: Tensor) -> None:
        """The last states as the caller gets them: hidden (0) or cell (1)."""
        tape, parts = self.tape, [made[i] for made in self.last]
        if len(parts) == 1:
            joined = parts[0]
        elif i == 0 and self.m.num_layers == 1:
            joined = self.cat(parts, 0, self.scales[0])
        else:  # several scales, or int32: side by side in float
            cell = 2.0 ** limits_of(tape.platform).cell_exp2
            scales = [cell] * len(parts) if i else self.scales
            floats = [self._linger("Dequant", p, {"scale_o": s}) for p, s in zip(parts, scales, strict=True)]
            joined = self.tape.value(f"{self.name}.states")
            tape.node("Concat", floats, [joined], {"axis": 0}, hint=self.name)
            tape.note(value, ChipOutput(value, lambda name: self._leaving(i, parts, joined, name)))
        if self.rows.unbatched:
            tape.node("Squeeze", [joined], [value], {"axes": [1]}, hint=self.name)
        else:
            tape.bind(value, joined.name)
        if i == 1 and len(parts) == 1:
            tape.wide[tape.name_of(value)] = _ONNX[limits_of(tape.platform).cell_bits]

    def _leaving(self, i: int, parts: list[Value], joined: Value, name: Value) -> None:
        """Last states of several layers as an output of the file: int8 codes of one scale side by side, else in float."""
        tape, exact = self.tape, i == 0 and len(set(self.scales)) == 1
        if exact:
            joined = self.cat(parts, 0, self.scales[0])
        if self.rows.unbatched:
            flat = tape.value(f"{self.name}.flat")
            tape.node("Squeeze", [joined], [flat], {"axes": [1]}, hint=self.name)
            joined = flat
        if exact:
            tape.node("Dequant", [joined], [name], {"scale_o": self.scales[0]}, domain="linger", hint=self.name)
            return
        tape.node("Identity", [joined], [name], {}, hint=self.name)
        cells, what = ("cell states", "c_n") if i else ("hidden states", "h_n")
        why = "cells are wider than the 8 bits that iqCat takes" if i else "the layers have different scales"
        limit = f"{why}: they are put side by side in float"
        remedy = (
            f"return {what}[0], {what}[1] ...: the states of each layer and direction are then outputs of their own"
        )
        tape.violations.append(
            Violation(self.name, cells, f"of {len(parts)} layers and directions", limit, remedy, "error", False)
        )


__all__ = ["Direction", "NodeWriter"]
