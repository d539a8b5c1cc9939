"""Rules of the recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .engines import SHIPPED
from .facts import NodeFacts, rule
from .nearest import nearest
from .rules_conv import NO_PREFETCH
from .violation import Violation

_SCRATCH = "the packer reserves less scratch than the engine writes: what lies behind it may be overwritten"
_PLACE = "compare the packed model with linger.onnx.OnnxRunner; reserve more scratch when packing"
_SAFE_STATE = 32  # hidden size up to which the state buffer of venusA was seen to be large enough


def _layout(n: NodeFacts, shape: Sequence[int]) -> Iterator[Violation]:
    """The layouts that run the right number of steps."""
    first = int(n.get("batch_first", 0))
    if len(shape) != 3:
        yield n.error("rank", len(shape), "3", "give it (batch, time, features)")
    elif shape[0] != 1:
        yield n.error(
            "batch",
            shape[0],
            "the chips compute [1, T, D] only",
            "export with a batch of 1 and batch_first=True, or call the layer once per sequence (x.split(1))",
            refused=False,
        )
    elif n.op_type == "LSTMInt" and n.chip.recurrent_batch_first:
        if not first:
            yield n.error("batch_first", first, "1", "export the model again")
        if n.revision.lacks("lstm rows") and shape[2] < shape[1]:
            remedy = "export the model again: features of zero are added; or pieces of at most D steps"
            yield n.error("time steps", shape[1], f"at most the input size, {shape[2]}", remedy, refused=False)
    elif n.op_type == "LSTMInt" and first:
        yield n.error("batch_first", first, "0 with a tensor of [1, T, D]", "export the model again")


def _gates(n: NodeFacts, hidden: str) -> Iterator[Violation]:
    """The sums are brought to the format of the gates by a 32-bit multiplier."""
    least = n.chip.lstm_sum_exp2
    for a, b in (("scale_x", "scale_iw"), (hidden, "scale_hw")):
        q_a, q_b = n.exp2(a), n.exp2(b)
        if q_a is not None and q_b is not None and q_a + q_b < least:
            limit = f"at least 2**{least}"
            yield n.error(f"{a} * {b}", f"2**{q_a + q_b}", limit, "finer scales: smaller weights or inputs")


@rule("LSTMInt")
def lstm(n: NodeFacts) -> Iterator[Violation]:
    """One direction, one layer, batch 1."""
    shape, size = n.shape(0), int(n.get("hidden_size", 0))
    if len(n.inputs) not in (5, 6, 8):
        yield n.error("inputs", len(n.inputs), "5, 6 or 8: states come with a length", "export the model again")
    if shape is not None:
        yield from _layout(n, shape)
    q_h, q_o = n.exp2("scale_h"), n.exp2("scale_o")
    if q_h is not None and q_o is not None and q_h != q_o:
        yield n.error("scale_h", f"2**{q_h}", f"scale_o, 2**{q_o}: output and state share it", "export the model again")
    yield from _gates(n, "scale_o")
    row = n.revision
    option = row.packing.get("LSTMInt", "")
    if option:
        yield n.note("LSTM", "", "the weight prefetch crashes the engine", option)
    elif row.lacks("lstm rows") and (4 * size * int(n.get("input_size", 0)) % 16 or 4 * size * size % 16):
        limit = "the weight prefetch is right for multiples of 16 bytes only"
        yield n.note("weight", f"{4 * size * size} bytes", limit, NO_PREFETCH)
    if row.lacks("h_n") and size > _SAFE_STATE:
        limit = f"at most {_SAFE_STATE}: the engine writes {4 * size} bytes into the {size} bytes of the last state"
        yield n.error("hidden size", size, limit, "a smaller hidden size, or another chip", refused=False)
    elif n.engine not in (None, SHIPPED) and (n.platform == "venus" or n.platform == "venusA" and size > _SAFE_STATE):
        yield n.warning("hidden size", size, _SCRATCH, _PLACE)
    if row.lacks("cast lengths") and len(n.inputs) > 5 and n.tensor(1).producer == "Cast":
        limit = "a graph input or a constant: the packer stops at the Cast"
        yield n.error("length", "behind a Cast", limit, "export the model again", refused=False)


@rule("GRUInt")
def gru(n: NodeFacts) -> Iterator[Violation]:
    """No chip has PyTorch's GRU; the engine revisions differ."""
    shape, q_o = n.shape(0), n.exp2("scale_o")
    if shape is not None:
        yield from _layout(n, shape)
    for a, b in (("scale_x", "scale_iw"), ("scale_o", "scale_hw")):
        q_a, q_b = n.exp2(a), n.exp2(b)
        least = n.chip.gru_sum_exp2
        if least > 0 and q_a is not None and q_b is not None and q_a + q_b < least:
            limit = f"at least 2**{least}: the chip shifts sums of a GRU right only"
            yield n.error(f"{a} * {b}", f"2**{q_a + q_b}", limit, "finer scales: smaller weights or inputs")
    if n.revision.lacks("gru"):
        if n.platform == "venus":
            limit = "engine 562ddc7 halves the state in every step; later revisions use 16-bit gates"
            value = "GRUInt" if q_o in (None, 8) else f"GRUInt with scale_o 2**{q_o}"
            otherwise = "a later engine" + ("" if q_o == 8 else "; on this one scale_o must be 2**8")
        else:
            limit = "engine 562ddc7 reads transposed weights and gates of another format: its output stays near 0"
            value, otherwise = "GRUInt", "a later engine"
        yield n.error("engine revision of", value, limit, nearest("gru", otherwise), refused=False)
    else:
        yield n.warning("GRU", "", _SCRATCH, _PLACE)
