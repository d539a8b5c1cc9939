"""Float recurrent layers and attention as standard ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .write_call import Array, Call, Piece, Value, Writer, Written, add, ints, writes
from .write_layers import linear


class _Kind(NamedTuple):
    """An ONNX recurrent operator: torch's gate rows in ONNX's order, number of states, attributes of its own."""

    op_type: str
    gates: tuple[int, ...]
    n_states: int
    extra: dict[str, Any]
    activation: str = ""


_LSTM = _Kind("LSTM", (0, 3, 1, 2), 2, {})  # torch i f g o -> i o f c
_GRU = _Kind("GRU", (1, 0, 2), 1, {"linear_before_reset": 1})  # torch r z n -> z r h
_TANH = _Kind("RNN", (0,), 1, {}, "Tanh")
_RELU = _Kind("RNN", (0,), 1, {}, "Relu")


def _rows(kind: _Kind, t: Array) -> Array:
    parts = np.split(t, len(kind.gates))
    return np.concatenate([parts[g] for g in kind.gates])


def _weights(c: Call, kind: _Kind, params: Sequence[Tensor], n_dirs: int, biased: bool) -> list[Value | None]:
    """W, R and B of one layer; ``params`` holds torch's two or four tensors of each direction."""
    per, fixed = len(params) // n_dirs, [c.fixed(p) for p in params]
    known = [_rows(kind, f) for f in fixed if f is not None]
    if len(known) != len(params):
        c.refuse("weights that are computed from the graph's inputs")
    name = (params[0], params[1], params[2 if biased else 0])
    stacks = [np.stack([known[d * per + i] for d in range(n_dirs)]) for i in range(per)]
    arrays = [stacks[0], stacks[1], np.concatenate(stacks[2:], axis=1) if biased else None]
    return [None if a is None else c.constant(t, a, "onnx") for t, a in zip(name, arrays, strict=True)]


def _start(c: Call, state: Tensor, n_dirs: int, layer: int, n_layers: int) -> Piece | None:
    """Initial state of one layer, or None: zeros, which a file leaves out (it then takes any batch)."""
    fixed = c.fixed(state)
    if fixed is not None and not fixed.any():
        return None
    if n_layers == 1:
        return c.of(state)
    first = layer * n_dirs
    return c.node("Slice", c.of(state), ints(first), ints(first + n_dirs), ints(0))


def _layers(kind: _Kind) -> Writer:
    def write(c: Call) -> Written:
        if isinstance(c["has_biases"], (list, tuple)):  # a packed call has nine arguments too, shifted by one
            c.refuse("packed sequences")
        states = [c["hx"]] if kind.n_states == 1 else list(c["hx"])
        n_layers, n_dirs, biased = int(c["num_layers"]), 1 + bool(c["bidirectional"]), bool(c["has_biases"])
        per = n_dirs * (4 if biased else 2)
        params = list(c["params"])
        if len(params) != per * n_layers:
            c.refuse("projections (proj_size)")
        if c["train"] and c["dropout"] > 0:
            c.refuse("dropout is active")
        hidden = int(params[1].shape[1])
        attributes = {"hidden_size": hidden, "direction": "bidirectional" if n_dirs == 2 else "forward", **kind.extra}
        if kind.activation:
            attributes["activations"] = [kind.activation] * n_dirs
        y: Piece = c.node("Transpose", c(), perm=[1, 0, 2]) if c["batch_first"] else c()
        ends: list[list[Value]] = []
        for layer in range(n_layers):
            weights = _weights(c, kind, params[layer * per : (layer + 1) * per], n_dirs, biased)
            starts = [_start(c, s, n_dirs, layer, n_layers) for s in states]
            out, *last = c.nodes(kind.op_type, 1 + kind.n_states, y, *weights, None, *starts, **attributes)
            ends.append(last)
            if n_dirs == 1:
                y = c.node("Squeeze", out, axes=[1])
            else:
                y = c.node("Reshape", c.node("Transpose", out, perm=[0, 2, 1, 3]), ints(0, 0, -1))
        y = c.node("Transpose", y, perm=[1, 0, 2]) if c["batch_first"] else y
        per_state = [list(s) for s in zip(*ends, strict=True)]
        return [y, *(s[0] if n_layers == 1 else c.node("Concat", *s, axis=0) for s in per_state)]

    return write


_CALL = "input hx params has_biases num_layers dropout train bidirectional batch_first"
for _name, _kind in (("lstm", _LSTM), ("gru", _GRU), ("rnn_tanh", _TANH), ("rnn_relu", _RELU)):
    add(f"_VF.{_name} torch.{_name}", _CALL, _layers(_kind))


# ---- cells


def _product(c: Call, x: Piece, which: str) -> Value:
    bias = c[f"b_{which}"]
    return linear(c, x, 2, c[f"w_{which}"], bias)


@writes("_VF.lstm_cell torch.lstm_cell", "input hx w_ih w_hh b_ih=None b_hh=None")
def _lstm_cell(c: Call) -> Written:
    if c.rank != 2:
        return None
    h, cell = (c.of(s) for s in c["hx"])
    hidden = int(c["w_hh"].shape[1])
    total = c.node("Add", _product(c, c(), "ih"), _product(c, h, "hh"))
    i, f, g, o = c.nodes("Split", 4, total, axis=1, split=[hidden] * 4)
    kept = c.node("Mul", c.node("Sigmoid", f), cell)
    cell = c.node("Add", kept, c.node("Mul", c.node("Sigmoid", i), c.node("Tanh", g)))
    return [c.node("Mul", c.node("Sigmoid", o), c.node("Tanh", cell)), cell]


@writes("_VF.gru_cell torch.gru_cell", "input hx w_ih w_hh b_ih=None b_hh=None")
def _gru_cell(c: Call) -> Written:
    if c.rank != 2:
        return None
    hidden, h = int(c["w_hh"].shape[1]), c("hx")
    xr, xz, xn = c.nodes("Split", 3, _product(c, c(), "ih"), axis=1, split=[hidden] * 3)
    hr, hz, hn = c.nodes("Split", 3, _product(c, h, "hh"), axis=1, split=[hidden] * 3)
    reset, update = (c.node("Sigmoid", c.node("Add", a, b)) for a, b in ((xr, hr), (xz, hz)))
    new = c.node("Tanh", c.node("Add", xn, c.node("Mul", reset, hn)))
    return c.node("Add", c.node("Mul", c.node("Sub", 1.0, update), new), c.node("Mul", update, h))


def _plain_cell(op_type: str) -> Writer:
    def write(c: Call) -> Written:
        if c.rank != 2:
            return None
        return c.node(op_type, c.node("Add", _product(c, c(), "ih"), _product(c, c("hx"), "hh")))

    return write


for _name, _op in (("tanh", "Tanh"), ("relu", "Relu")):
    add(f"_VF.rnn_{_name}_cell torch.rnn_{_name}_cell", "input hx w_ih w_hh b_ih=None b_hh=None", _plain_cell(_op))


# ---- attention


def _mask(c: Call, mask: Tensor, blocked: bool) -> Piece:
    """What a mask adds to the scores; a bool mask says what is ``blocked``, or what is let through."""
    if mask.dtype != torch.bool:
        return c.of(mask, torch.float32)
    inner, outer = (-math.inf, 0.0) if blocked else (0.0, -math.inf)
    return c.node("Where", c.of(mask), c.of(inner, torch.float32), c.of(outer, torch.float32))


def _causal(length: int, sources: int) -> Array:
    return np.triu(np.full((length, sources), -math.inf, np.float32), 1)


def _weighted(
    c: Call, q: Piece, k_turned: Piece, v: Piece, scale: float, masks: Sequence[Piece], rank: int
) -> list[Value]:
    """softmax(q k * scale + masks) v, and the softmax."""
    scores = c.node("MatMul", c.node("Mul", q, scale), k_turned)
    for mask in masks:
        scores = c.node("Add", scores, mask)
    shares = c.node("Softmax", scores, axis=rank - 1)
    return [c.node("MatMul", shares, v), shares]


@writes(
    "F.scaled_dot_product_attention",
    "query key value attn_mask=None dropout_p=0.0 is_causal=False scale=None enable_gqa=False",
)
def _attention(c: Call) -> Written:
    q, k = c["query"], c["key"]
    if c["dropout_p"] or c["enable_gqa"] or not q.dim() == k.dim() == c["value"].dim():
        c.refuse("dropout, grouped queries or operands of different rank")
    masks: list[Piece] = [] if c["attn_mask"] is None else [_mask(c, c["attn_mask"], blocked=False)]
    if c["is_causal"]:
        masks.append(_causal(int(q.shape[-2]), int(k.shape[-2])))
    rank = q.dim()
    turned = c.node("Transpose", c("key"), perm=[*range(rank - 2), rank - 1, rank - 2])
    scale = 1.0 / math.sqrt(q.shape[-1]) if c["scale"] is None else float(c["scale"])
    return _weighted(c, c("query"), turned, c("value"), scale, masks, rank)[0]


_HEADS = """query key value embed_dim num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn dropout_p
    out_proj_weight out_proj_bias training=True key_padding_mask=None need_weights=True attn_mask=None
    use_separate_proj_weight=False q_proj_weight=None k_proj_weight=None v_proj_weight=None static_k=None static_v=None
    average_attn_weights=True is_causal=False"""
_UNUSUAL = ("bias_k", "bias_v", "static_k", "static_v", "add_zero_attn")


def _projected(c: Call, i: int, name: str) -> Piece:
    """One of query, key and value, (L, N, E) -> (N, heads, L, E / heads); keys come as (N, heads, E / heads, L)."""
    width, heads, turned = int(c["embed_dim"]), int(c["num_heads"]), name == "key"
    separate = c[f"{name[0]}_proj_weight"] if c["use_separate_proj_weight"] else None
    weight = c["in_proj_weight"] if separate is None else separate
    fixed, rows = c.fixed(weight), slice(i * width, (i + 1) * width)
    if fixed is None:
        c.refuse("weights that are computed from the graph's inputs")
    matrix = fixed if separate is not None else fixed[rows]
    y = c.node("MatMul", c(name), c.constant(weight, matrix.T, f"{name[0]}.T"))
    if c["in_proj_bias"] is not None:
        bias = c.fixed(c["in_proj_bias"])
        if bias is None:
            c.refuse("weights that are computed from the graph's inputs")
        y = c.node("Add", y, c.constant(c["in_proj_bias"], bias[rows], name[0]))
    split = c.node("Reshape", y, ints(0, 0, heads, width // heads))
    return c.node("Transpose", split, perm=[1, 2, 3, 0] if turned else [1, 2, 0, 3])


@writes("F.multi_head_attention_forward", _HEADS)
def _multi_head(c: Call) -> Written:
    """Self and cross attention over (L, N, E); the module turns batch-first operands round."""
    if any(c[name] is not None and c[name] is not False for name in _UNUSUAL) or c["query"].dim() != 3:
        c.refuse("extra key or value positions, or operands without a batch")
    if c["training"] and c["dropout_p"] > 0:
        c.refuse("dropout is active")
    width, heads = int(c["embed_dim"]), int(c["num_heads"])
    masks: list[Piece] = []
    if c["attn_mask"] is not None:
        mask = _mask(c, c["attn_mask"], blocked=True)
        sizes = [int(s) for s in c["attn_mask"].shape[-2:]]
        masks.append(mask if c["attn_mask"].dim() == 2 else c.node("Reshape", mask, ints(-1, heads, *sizes)))
    if c["key_padding_mask"] is not None:
        mask = _mask(c, c["key_padding_mask"], blocked=True)
        masks.append(c.node("Unsqueeze", mask, axes=[1, 2]))
    q, k, v = (_projected(c, i, name) for i, name in enumerate(("query", "key", "value")))
    out, shares = _weighted(c, q, k, v, 1.0 / math.sqrt(width // heads), masks, 4)
    joined = c.node("Reshape", c.node("Transpose", out, perm=[2, 0, 1, 3]), ints(0, 0, -1))
    y = linear(c, joined, 3, c["out_proj_weight"], c["out_proj_bias"])
    if not c["need_weights"]:
        return [y]
    return [y, c.node("ReduceMean", shares, axes=[1], keepdims=0) if c["average_attn_weights"] else shares]
