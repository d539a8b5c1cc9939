"""GRUInt nodes of the later engine revision: one exported layer in one direction."""

from __future__ import annotations

import torch

from linger.nn.nodes.operands import limits
from linger.ops.gru import gru_codes
from linger.runtime.graph import NodeReader, reads

from .lstm_nodes import (
    read_checked,
    read_exponents,
    read_parameters,
    read_sequence,
    read_state,
    read_walk,
)


@reads("GRUInt", "QGRU")
def read_gru(node: NodeReader) -> None:
    """5 inputs; 6 with a length; 7 with length and state: the later engine revision."""
    x, x_exp2, steps = read_sequence(node, (5, 6, 7))
    w = read_parameters(node, node.n_inputs - 4, 3)
    hidden, chip = node.integer("hidden_size"), limits(node)
    exp2 = read_exponents(node, x_exp2)
    read_checked(node, exp2, chip.gru_sum_exp2, chip.gru_state_exp2)
    batch, inputs = int(x.shape[0]), int(x.shape[2])
    node.room((batch, steps, hidden), 3 * (inputs + hidden))
    h0 = read_state(node, 2, batch, hidden, exp2[3], torch.int8) if node.n_inputs == 7 else None
    rows, order = read_walk(node, x, steps, 3)
    y, h = gru_codes(rows, w[0], w[1], w[2], w[3], exp2, order, h0)
    node.put(0, y, exp2[3])
    if node.n_outputs > 1:
        node.put(1, h, exp2[3])
