"""What a caller gives a recurrent layer: padded and packed sequences, states; refused where they do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .states import InputRows

if TYPE_CHECKING:
    from .layer import RecurrentInt


def input_rows(layer: RecurrentInt, given: Any) -> tuple[Tensor, InputRows]:
    """The tensor that holds the rows, and its steps; ``(T, D)`` counts as a batch of one."""
    if isinstance(given, PackedSequence):
        sizes = given.batch_sizes
        counts = sizes.to(torch.int32)
        if not torch.compiler.is_compiling() and int(sizes.sum()) != given.data.shape[0]:
            raise ValueError(
                f"'{layer.place}': the lengths ask for {int(sizes.sum())} rows, the packed data has {given.data.shape[0]}: "
                "a length was above the number of steps when the sequence was packed"
            )
        offsets = torch.cumsum(sizes, 0) - sizes
        offsets, counts = (t.to(given.data.device, non_blocking=True) for t in (offsets, counts))
        return given.data, InputRows(offsets, counts, int(sizes[0]), 1, given, False)
    if not isinstance(given, Tensor) or given.dim() not in (2, 3) or given.shape[-1] != layer.input_size:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            f"'{layer.place}': expected (T, B, {layer.input_size}), (B, T, {layer.input_size}) with batch_first, "
            f"(T, {layer.input_size}) or a PackedSequence, got {shape}"
        )
    batched = given.dim() == 3
    steps, batch = (given.shape[0], 1) if not batched else given.shape[:2]
    if batched and layer.batch_first:
        steps, batch = batch, steps
    if steps == 0:
        raise ValueError(f"'{layer.place}': expected at least one step, got {tuple(given.shape)}")
    stride = steps if batched and layer.batch_first else 1
    device = given.device
    key = (steps, batch, stride, device)
    known = layer.__dict__.get("_steps")
    if known is None or known[0] != key or torch.compiler.is_compiling():
        rows = torch.arange(steps, dtype=torch.int64, device=device) * (1 if stride > 1 or batch == 1 else batch)
        known = key, rows, torch.full((steps,), batch, dtype=torch.int32, device=device)
        if not torch.compiler.is_compiling():
            layer.__dict__["_steps"] = known
    return given, InputRows(known[1], known[2], batch, stride, None, not batched)


def state_parts(layer: RecurrentInt, hx: Any) -> list[Tensor] | None:
    """Given states as a list, in the caller's shapes.

    Raises:
        TypeError: Another number of tensors than the layer has states.
    """
    parts = [] if hx is None else [hx] if layer.gates == 3 else hx
    pair = layer.gates == 3 or isinstance(hx, (tuple, list)) and len(hx) == 2
    if hx is not None and not (pair and all(isinstance(t, Tensor) for t in parts)):
        wanted, got = "a tensor" if layer.gates == 3 else "a pair of tensors (h_0, c_0)", type(hx).__name__
        raise TypeError(f"'{layer.place}': hx must be {wanted}, got {got}")
    return None if hx is None else list(parts)


def given_states(layer: RecurrentInt, hx: Any, rows: InputRows) -> list[Tensor] | None:
    """Given states as ``(layers * directions, B, H)``, entries in the order of the rows."""
    states = state_parts(layer, hx)
    if states is None:
        return None
    n = layer.num_layers * (2 if layer.bidirectional else 1)
    names = ("hx",) if layer.gates == 3 else ("h_0", "c_0")
    found = []
    for name, state in zip(names, states, strict=True):
        wanted = (n, layer.hidden_size) if rows.unbatched else (n, rows.batch, layer.hidden_size)
        if tuple(state.shape) != wanted:
            raise ValueError(f"'{layer.place}': {name} must have shape {wanted}, got {tuple(state.shape)}")
        state = state.unsqueeze(1) if rows.unbatched else state
        if rows.packed is not None and rows.packed.sorted_indices is not None:
            state = state.index_select(1, rows.packed.sorted_indices)
        found.append(state)
    return found


__all__ = ["given_states", "input_rows", "state_parts"]
