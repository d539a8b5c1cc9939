"""Float islands: LSTM, GRU and plain RNN, run by torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from linger.onnx.values import ReadNode

_REFUSED = ("activation_alpha", "activation_beta", "clip")
# direction -> which weights torch's forward and backward halves take; reverse is the backward half of such a pair
_TURNS = {"forward": (0,), "reverse": (0, 0), "bidirectional": (0, 1)}


def _check(node: ReadNode, i: int, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape or 0 in shape:
        raise node.error(f"input {i} must have shape {shape}, got {tuple(tensor.shape)}")
    return tensor


def _lengths(node: ReadNode, steps: int, batch: int) -> Tensor:
    lengths = node.data(4).reshape(-1).long()
    if lengths.numel() != batch or int(lengths.min()) < 1 or int(lengths.max()) > steps:
        raise node.error(f"lengths {lengths.tolist()[:8]} must be {batch} values in 1..{steps}")
    return lengths


def _recurrent(gates: tuple[int, ...], run: Callable[..., Any], n_states: int) -> Callable[[ReadNode], None]:
    """A layer of which ``gates`` reorders ONNX's rows into torch's; ``run`` is torch's function with ``n_states`` states."""

    def rows(t: Tensor) -> Tensor:
        return torch.cat([t.chunk(len(gates))[g] for g in gates])

    def layer(node: ReadNode) -> None:
        x, w, r = node.floats(0), node.floats(1), node.floats(2)
        b = node.floats(3) if node.has_input(3) else None
        direction = node.text("direction", "forward")
        if x.dim() != 3 or r.dim() != 3 or direction not in _TURNS:
            raise node.error(f"direction {direction!r}, input {tuple(x.shape)} and weights do not fit together")
        refused = _REFUSED if node.op_type == "RNN" else ("activations", *_REFUSED)
        if any(node.has(a) for a in refused) or any(node.integer(a, 0) for a in ("layout", "input_forget")):
            raise node.error(f"attributes {', '.join(refused)}, layout and input_forget are not supported")
        if node.has_input(5 + n_states) or (node.op_type == "GRU" and not node.integer("linear_before_reset", 0)):
            raise node.error("peepholes and linear_before_reset = 0 are not supported")
        (steps, batch, size), hidden, turns = x.shape, r.shape[2], _TURNS[direction]
        n_dirs, n_rows = len(set(turns)), len(gates) * hidden
        if node.integer("hidden_size", hidden) != hidden or 0 in x.shape:
            raise node.error(f"hidden_size and input {tuple(x.shape)} do not fit {hidden} units")
        _check(node, 1, w, (n_dirs, n_rows, size))
        _check(node, 2, r, (n_dirs, n_rows, hidden))
        node.room((steps, 2, batch, hidden), 2 * len(gates) * (hidden + size))
        params: list[Tensor] = []
        for d in turns:
            halves = () if b is None else _check(node, 3, b, (n_dirs, 2 * n_rows))[d].chunk(2)
            params += [rows(w[d]), rows(r[d]), *(rows(half) for half in halves)]
        states = []
        for i in range(5, 5 + n_states):
            start = node.floats(i) if node.has_input(i) else x.new_zeros(n_dirs, batch, hidden)
            states.append(torch.stack([_check(node, i, start, (n_dirs, batch, hidden))[d] for d in turns]))
        lengths = _lengths(node, steps, batch) if node.has_input(4) else None
        y, ends = _sequence(run, x, states, params, b is not None, lengths)
        first = 1 if direction == "reverse" else 0
        node.put_float(0, y.reshape(steps, batch, len(turns), hidden).transpose(1, 2)[:, first:].contiguous())
        for k, end in enumerate(ends[: node.n_outputs - 1]):
            node.put_float(1 + k, end[first:])

    return layer


def _sequence(
    run: Callable[..., Any], x: Tensor, states: list[Tensor], params: list[Tensor], biased: bool, lengths: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Output ``[T, B, halves * H]`` (zeros behind each length) and last states ``[halves, B, H]``."""
    both = states[0].shape[0] == 2
    if lengths is None:
        hx: Any = tuple(states) if len(states) == 2 else states[0]
        out = run(x, hx, params, biased, 1, 0.0, False, both, False)
        return out[0], list(out[1:])
    order = torch.argsort(lengths, descending=True)
    back = torch.argsort(order)
    packed = pack_padded_sequence(x.index_select(1, order), lengths[order])
    hx = tuple(state.index_select(1, order) for state in states)
    out = run(packed.data, packed.batch_sizes, hx if len(hx) == 2 else hx[0], params, biased, 1, 0.0, False, both)
    y, _ = pad_packed_sequence(packed._replace(data=out[0]), total_length=x.shape[0])
    return y.index_select(1, back), [end.index_select(1, back) for end in out[1:]]


def _plain(node: ReadNode) -> None:
    chosen = node.texts("activations", ("Tanh",))
    run = {frozenset(["Tanh"]): torch.rnn_tanh, frozenset(["Relu"]): torch.rnn_relu}.get(frozenset(chosen))
    if run is None:
        raise node.error(f"attribute 'activations' must be Tanh or Relu, got {chosen}")
    _recurrent((0,), run, 1)(node)


RECURRENT: dict[str, Callable[[ReadNode], None]] = {
    "LSTM": _recurrent((0, 2, 3, 1), torch.lstm, 2),
    "GRU": _recurrent((1, 0, 2), torch.gru, 1),
    "RNN": _plain,
}
