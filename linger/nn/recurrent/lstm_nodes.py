"""LSTMInt nodes: one exported layer in one direction; and what GRUInt nodes share with them."""

from __future__ import annotations

import torch
from torch import Tensor

from linger.nn.nodes.operands import limits, operand, require_8_bits, weight_bits, weights
from linger.ops.lstm import lstm_codes
from linger.ops.recurrent import Walk
from linger.runtime.graph import NodeReader, reads

from .states import formulas_of


def _bias(node: NodeReader, i: int, n: int) -> Tensor:
    value = node.constant(i)
    if value.dtype != torch.int32 or tuple(value.shape) != (n,):
        raise node.error(f"input {i} must be an int32 initializer of shape ({n},)")
    return value


def read_parameters(node: NodeReader, first: int, gates: int) -> list[Tensor]:
    """w_ih, w_hh, b_ih, b_hh from input ``first`` on."""
    bits = weight_bits(node)
    w_ih, w_hh = weights(node, first, 2, bits), weights(node, first + 1, 2, bits)
    hidden, inputs = node.integer("hidden_size"), node.integer("input_size")
    if tuple(w_ih.shape) != (gates * hidden, inputs) or tuple(w_hh.shape) != (gates * hidden, hidden):
        raise node.error(
            f"weights {tuple(w_ih.shape)} and {tuple(w_hh.shape)} do not fit input_size {inputs} and hidden_size {hidden}"
        )
    return [w_ih, w_hh, *(_bias(node, first + i, gates * hidden) for i in (2, 3))]


def _lengths(node: NodeReader, present: bool, steps: int) -> int:
    """Steps that are run."""
    if not present:
        return steps
    length = node.data(1)
    if length.dtype not in (torch.int32, torch.int64) or length.numel() != 1:
        raise node.error(f"input 1 must be one int32, the number of valid steps, got {tuple(length.shape)}")
    if not 1 <= int(length) <= steps:
        raise node.error(f"input 1, the number of valid steps, must be in [1, {steps}], got {int(length)}")
    return int(length)


def read_sequence(node: NodeReader, counts: tuple[int, ...]) -> tuple[Tensor, int, int]:
    """Input codes (B, T, D), their exponent, and the valid steps."""
    require_8_bits(node, "x_bits", "o_bits")
    if node.n_inputs not in counts:
        wanted = ", ".join(map(str, counts[:-1])) + f" or {counts[-1]}"
        raise node.error(f"needs {wanted} inputs (states come with a length), got {node.n_inputs}")
    if node.integer("num_layers", 1) != 1:
        raise node.error(f"attribute 'num_layers' must be 1, got {node.integer('num_layers')}")
    if node.integer("batch_first") not in (0, 1) or node.integer("go_forward", 1) not in (0, 1):
        raise node.error("attributes 'batch_first' and 'go_forward' must be 0 or 1")
    x, x_exp2 = operand(node, 0, "scale_x", rank=3)
    if 0 in x.shape or x.shape[2] != node.integer("input_size"):
        raise node.error(f"input {tuple(x.shape)} does not fit input_size {node.integer('input_size')}")
    return x, x_exp2, _lengths(node, node.n_inputs > 5, int(x.shape[1]))


def read_state(node: NodeReader, i: int, batch: int, hidden: int, exp2: int, dtype: torch.dtype) -> Tensor:
    """Given codes of a state, (B, H)."""
    given = node.codes(i)
    if given.codes.dtype != dtype or given.codes.numel() != batch * hidden:
        kind = str(dtype).removeprefix("torch.")
        raise node.error(f"input {i} must be {kind} of shape (1, {batch}, {hidden}), got {tuple(given.codes.shape)}")
    node.match(i, exp2)
    return given.codes.reshape(batch, hidden)


def read_walk(node: NodeReader, x: Tensor, steps: int, gates: int) -> tuple[Tensor, Walk]:
    """The valid rows (B, L, D), and their order."""
    batch = int(x.shape[0])
    rows = x[:, :steps].contiguous()
    counts = torch.full((steps,), batch, dtype=torch.int32)
    reverse = node.integer("go_forward", 1) == 0
    return rows, Walk(
        torch.arange(steps, dtype=torch.int64), counts, batch, steps, formulas_of(node.platform, gates), reverse
    )


def read_exponents(node: NodeReader, x_exp2: int) -> tuple[int, int, int, int]:
    """Of x, of both matrices, and of the state, which is that of the output."""
    node.scale("scale_h")
    return x_exp2, node.scale("scale_iw"), node.scale("scale_hw"), node.scale("scale_o")


def read_checked(node: NodeReader, exp2: tuple[int, int, int, int], least: int, top: int) -> None:
    """Refuse scales that the chip does not shift."""
    for q, what in ((exp2[0] + exp2[1], "scale_x * scale_iw"), (exp2[3] + exp2[2], "scale_o * scale_hw")):
        if not least <= q <= 252:
            raise node.error(f"{what} is 2**{q}, the chip takes at least 2**{least}")
    if not 0 <= exp2[3] <= top:
        raise node.error(f"attribute 'scale_o' must be 1..2**{top}, got 2**{exp2[3]}")


@reads("LSTMInt", "QLSTM")
def read_lstm(node: NodeReader) -> None:
    """5 inputs; 6 with a length; 8 with length and states. Rows behind the length are left out of the result."""
    x, x_exp2, steps = read_sequence(node, (5, 6, 8))
    w = read_parameters(node, node.n_inputs - 4, 4)
    hidden, chip = node.integer("hidden_size"), limits(node)
    exp2, cell = read_exponents(node, x_exp2), chip.cell_exp2
    read_checked(node, exp2, chip.lstm_sum_exp2, chip.lstm_state_exp2)
    batch, inputs = int(x.shape[0]), int(x.shape[2])
    node.room((batch, steps, hidden), 4 * (inputs + hidden))
    wide = torch.int16 if chip.cell_bits == 16 else torch.int32
    h0 = c0 = None
    if node.n_inputs == 8:
        h0 = read_state(node, 2, batch, hidden, exp2[3], torch.int8)
        c0 = read_state(node, 3, batch, hidden, cell, wide).to(torch.int32)
    rows, order = read_walk(node, x, steps, 4)
    y, h, c = lstm_codes(rows, w[0], w[1], w[2], w[3], exp2, order, h0, c0)
    node.put(0, y, exp2[3])
    if node.n_outputs > 1:
        node.put(1, h, exp2[3])
    if node.n_outputs > 2:
        node.put(2, c.to(wide), cell)
