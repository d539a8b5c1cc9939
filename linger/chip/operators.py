"""What each chip does with an operator: the one table that layers, files, ``linger.check`` and docs/operators.md read.

*native*: the chip has it. *rewrite*: an exact expression in operators the chip has; training, eval and file all use its
arithmetic. *island*: computed in float between a Dequant and a Quant. *refused*: an error that says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .platforms import LIMITS, limits_of

Kind = Literal["native", "rewrite", "island", "refused"]
PLATFORMS = tuple(LIMITS)


class Support(NamedTuple):
    """One cell of the table.

    Attributes:
        kind: native, rewrite, island or refused.
        note: What is special about it, in words for the documents; empty where nothing is.
        bits: Widths of the result.
    """

    kind: Kind
    note: str = ""
    bits: tuple[int, ...] = (8,)


@dataclass(frozen=True)
class Operator:
    """One row of the table; ``row[platform]`` is a cell.

    Args:
        torch: What a user writes.
        cells: Platform -> cell; a chip without one has that of its family.
    """

    torch: str
    cells: dict[str, Support]

    def __getitem__(self, platform: str) -> Support:
        return self.cells[platform if platform in self.cells else limits_of(platform).family]


def _row(torch: str, cell: Support, **others: Support) -> Operator:
    """A row in which ``cell`` holds where nothing else is said."""
    return Operator(torch, {row.family: others.get(row.family, cell) for row in LIMITS.values()})


def _native(note: str = "", *bits: int) -> Support:
    return Support("native", note, bits or (8,))


def _rewrite(note: str, *bits: int) -> Support:
    return Support("rewrite", note, bits or (8,))


def _island(note: str = "no chip has it") -> Support:
    return Support("island", note)


def _refused(note: str) -> Support:
    return Support("refused", note)


_BLOCKS = "larger kernels and other dilations in blocks, each over channels of its own"
_CONV1D = "dilated, depthwise and 4-bit ones as Conv2dInt of height 1"
_CONV_T = "a bias of zeros, and zeros for groups and dilation, are written; 4-bit codes are stored as 8-bit weights"
_SPREAD = (
    "iqCat with zeros between the elements, and Conv2dInt with the kernel turned; engine later: ConvTranspose2dInt"
)
_AVERAGE = "the scale stays; windows of other sizes at the border in pieces, another divisor as a factor behind"
_LSTM = "batch 1; directions and layers as chained nodes"
_MUL = (
    "one shape, a value per channel (batch 1, C <= H*W) or an int8 number; other operands are copied to one shape first"
)
_SUM = "one shape, others are copied to it; numbers and constants per channel as BatchNorm2dInt"
_DIV = "by a power of two; other numbers as iqMul by the reciprocal; the quotient of two tensors is an island"
_LEAKY = "relu(x) - slope * relu(-x) in iqMul, Relu and iqAdd"
_ONES = "LinearInt with weights of one; no packer takes iqSum, and sums over the batch are islands"
_BMM = "rank 2 or 3, higher ranks through Reshape; transposes are nodes of their own"
_SUB = (
    "the engines subtract from an uninitialised buffer: x + RSH(-y, 1) - RSH(y, 1) in iqMul and iqAdd, exact with -128"
)
_ATTENTION = (
    "LinearInt, BmmInt, SoftmaxInt, iqAdd of a constant mask; add_bias_kv and add_zero_attn leave the module in float"
)
_NORM = "eps is 1e-5 * 4**k; other ranks than 3 through Reshape; n * sum of squares wraps at 2**31 (n > 362 codes of full scale)"
_PAD = "slices and an iqCat of one scale"
_ONE_D = "of height 1"

OPERATORS: dict[str, Operator] = {
    # ---- borders and formats
    "Quant": _row("inputs of the graph, results of float operators", _native("", 8, 16, 32)),
    "Dequant": _row("outputs of the graph, operands of float operators", _native()),
    "Requant": _row(
        "another width between two layers", _native("left shifts of int8 results: at most 6 bits", 8, 16, 32)
    ),
    # ---- layers with weights
    "Conv2dInt": _row(
        "nn.Conv2d",
        _native(f"4-bit weights; with a bias, as 8-bit weights for engine 562ddc7; {_BLOCKS}"),
        venus=_native(f"4-bit codes are stored as 8-bit weights; {_BLOCKS}"),
    ),
    "Conv1dInt": _row(
        "nn.Conv1d",
        _native(_CONV1D, 8, 32),
        venusA=_rewrite("Conv2dInt of height 1"),
        venus=_native(_CONV1D, 8, 16, 32),
    ),
    "ConvTranspose2dInt": _row("nn.ConvTranspose2d", _native(_CONV_T), venus=_rewrite(_SPREAD)),
    "ConvTranspose1dInt": _row("nn.ConvTranspose1d", _rewrite(f"ConvTranspose2dInt {_ONE_D}")),
    "LinearInt": _row(
        "nn.Linear",
        _native("rank 2 and 3, others through Reshape", 8, 32),
        venusA=_native("several rows as Conv2dInt 1x1, with 8-bit results only; engine later: LinearInt", 8, 32),
        venus=_native("rank 2 and 3, others through Reshape", 8, 16, 32),
    ),
    "BatchNorm2dInt": _row("nn.BatchNorm2d alone", _native("folded into the layer in front where it can be")),
    "BatchNorm1dInt": _row("nn.BatchNorm1d alone", _rewrite("BatchNorm2dInt behind a Reshape")),
    "LayerNormInt": _row(
        "nn.LayerNorm", _native(_NORM), venus=_native(f"{_NORM}; gamma of 16 bits, rows of at least 4")
    ),
    "Gather": _row("nn.Embedding, index_select", _native("the table's codes, copied")),
    # ---- pooling
    "AvgPool2dInt": _row(
        "nn.AvgPool1d/2d, adaptive pooling, mean over axes",
        _native(_AVERAGE),
        venus=_native(f"{_AVERAGE}; windows of more than 127 elements as LinearInt, rounded there; engine later: all"),
    ),
    "MaxPool": _row(
        "nn.MaxPool1d/2d, adaptive pooling, amax, amin",
        _native("ceil mode pads at the end; larger kernels in a row, other windows behind a Gather; no places"),
    ),
    "Max": _row(
        "torch.maximum, torch.minimum, torch.max(x, y)",
        _rewrite("iqCat brings both to the scale of the result, where MaxPool compares exactly"),
    ),
    # ---- element-wise
    "Relu": _row("nn.ReLU", _native("fused into the layer in front")),
    "iqAdd": _row(
        "x + y, x + c, c - x",
        _native(f"{_SUM}; 8-bit operands of wider sums through Requant", 8, 16, 32),
        venus=_native(_SUM),
    ),
    "iqSub": _row("x - y", _rewrite(_SUB)),
    "iqMul": _row("x * y", _native(_MUL)),
    "iqDiv": _row(
        "x / c, x / y",
        _native("by a power of two; other numbers as iqMul by the reciprocal; tensors of 32 bits by each other", 8, 32),
        venusA=_native(_DIV),
        venus=_native(_DIV),
    ),
    "iqSum": _row("x.sum(dim)", _rewrite(_ONES, 8, 32), venus=_rewrite(_ONES, 8, 16, 32)),
    "iqVar": _row("x.var()", _island("venus reduces axis 1 only, the others return garbage")),
    "Clip": _row(
        "nn.ReLU6, torch.clamp, nn.Hardtanh",
        _rewrite("sums that saturate at the limit, in BatchNorm2dInt; 0 is a Relu"),
    ),
    "LeakyRelu": _row("nn.LeakyReLU, torch.abs", _rewrite(f"{_LEAKY}; slopes above 1 are islands")),
    "PRelu": _row("nn.PReLU", _rewrite(_LEAKY)),
    "HardSigmoid": _row("nn.Hardsigmoid", _rewrite("BatchNorm2dInt and Relu, one is 127/128")),
    "HardSwish": _row("nn.Hardswish", _rewrite("iqMul by the hardsigmoid")),
    # ---- several tensors
    "iqCat": _row(
        "torch.cat, stack, hstack, vstack, dstack, column_stack",
        _native("each input is shifted to the scale of the result; at most 6 bits to the left"),
        venusA=_native("shifts left only; an input of a larger scale passes a Requant first"),
    ),
    "BmmInt": _row(
        "torch.bmm, x @ y",
        _native(_BMM, 8, 32),
        venusA=_native(_BMM, 8, 16, 32),
        venus=_native(f"{_BMM}; K x N of the second matrix, aligned to 8 x 4, at most 32 KB"),
    ),
    # ---- moving codes
    "Reshape": _row("view, reshape, unflatten", _native()),
    "Flatten": _row("flatten", _native("to [N, rest]")),
    "Transpose": _row(
        "permute, transpose",
        _native("of rank 4: 0231, 0312, 0132, 0213; others one after the other"),
        venusA=_native("of rank 4: 0231, 0312, 0132; others one after the other"),
    ),
    "Squeeze": _row("squeeze", _native("at least two axes stay")),
    "Unsqueeze": _row("unsqueeze, x[:, None]", _native()),
    "Slice": _row("x[a:b], narrow, select", _native("one axis per node, step 1")),
    "Split": _row("split, chunk, unbind", _native()),
    "iqPad": _row("F.pad, padding_mode", _rewrite(_PAD), venus=_native(f"zeros; other values and modes: {_PAD}")),
    "ShuffleChannel": _row(
        "nn.ChannelShuffle", _rewrite("Reshape, Transpose, Reshape"), venus=_native("along the channels")
    ),
    "Expand": _row("expand, repeat, flip, roll, index_select", _rewrite("a Gather with constant indices per axis")),
    "Resize": _row("F.interpolate", _rewrite("nearest: a Gather with constant indices; other modes are islands")),
    # ---- chip functions
    "iqSigmoid": _row(
        "torch.sigmoid",
        _native("result at scale 128"),
        venusA=_native(
            "result at scale 128; engine 562ddc7 is right for inputs of scale 2**13 and above only, if at all"
        ),
        venus=_native("result at scale 128; int8 inputs pass through a Requant to 16 bits"),
    ),
    "iqTanh": _row(
        "torch.tanh",
        _native(
            "result at scale 128; int8 inputs pass through a Requant to 16 bits; engine 562ddc7 reads them as int32 and "
            "returns 0"
        ),
        venus=_native("result at scale 128; int8 inputs pass through a Requant to 16 bits"),
    ),
    "QGelu": _row(
        "F.gelu",
        _island("only venusA has the function"),
        venusA=_native("erf form; packer 562ddc7 has no operator for it", 8, 16, 32),
    ),
    "QSwish": _row(
        "F.silu",
        _rewrite("iqSigmoid, and iqMul by its operand"),
        venusA=_native("packer 562ddc7 has no operator for it", 8, 16, 32),
    ),
    "SoftmaxInt": _row(
        "softmax",
        _native("other axes are transposed to the end; at most 2048 elements"),
        venusA=_native(
            "other axes are transposed to the end; at most 2048 elements; as wide as its operand", 8, 16, 32
        ),
        venus=_island("a vendor's function that no simulator confirms"),
    ),
    "LogSoftmaxInt": _row(
        "log_softmax",
        _island("the engine takes the logarithm of the raw integers"),
        venusA=_native(
            "other axes are transposed to the end; at most 2048 elements; as wide as its operand", 8, 16, 32
        ),
        venus=_island("a vendor's function that no simulator confirms"),
    ),
    "GluInt": _row(
        "F.glu",
        _native("other axes are transposed to the end; engine 562ddc7 of arcs never applies the gate"),
        venusA=_native("other axes are transposed to the end", 8, 16, 32),
        venus=_rewrite("Slice, iqSigmoid and iqMul"),
    ),
    "ArgMax": _row(
        "torch.argmax, argmin, places of max and min",
        _native(
            "other axes are transposed to the end; an output of the graph, [2, ...] ([2, N, ...] of N samples): maxima, then "
            "places",
            32,
        ),
    ),
    # ---- recurrent
    "LSTMInt": _row(
        "nn.LSTM",
        _native(f"{_LSTM}; engine 562ddc7: pack with --dma_prefetch False"),
        venusA=_native(f"{_LSTM}; engine 562ddc7: pack with --dma_prefetch False, at most 32 hidden units"),
        venus=_native(f"{_LSTM}; engine 562ddc7: with zeros for features up to the steps, and for hidden units"),
    ),
    "GRUInt": _row("nn.GRU", _native("batch 1; later engine revisions only, engine 562ddc7 computes something else")),
    "MultiheadAttention": _row(
        "nn.MultiheadAttention, F.scaled_dot_product_attention",
        _rewrite(_ATTENTION),
        venus=_rewrite(f"{_ATTENTION}; softmax in float"),
    ),
}

__all__ = ["OPERATORS", "PLATFORMS", "Kind", "Operator", "Support"]
