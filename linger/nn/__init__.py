"""Layers that compute the chips' integers, layers of the constrained stage, and the operators between them.

A family is a file with its module, the spellings it handles and how it is written into a file; ``*_nodes.py`` beside it reads
the nodes back. A folder imports those above it only:

* ``masks`` (pruned weights), ``constructor`` (arguments beyond torch's), ``base`` (what layers share), ``functional`` (what
  operators of user code share), ``nodes`` (what writers and readers share).
* ``constrained``: float layers of the first stage.
* ``moves``: what moves codes and changes none (shapes, pieces, copies, padding, cat), and ``Requant``.
* ``arithmetic``: sums, differences, products, quotients, matrix products, with tensors and with numbers.
* ``functions``: sigmoid, softmax, GELU, GLU as the chips have them; ReLU, LeakyReLU, clamps, Hardswish from what they have.
* ``pooling``: averages and maxima over windows and axes.
* ``layers``: convolutions, linear layers, norms, embeddings, attention; ``batch_norm_folding`` keeps a BatchNorm trainable.
* ``recurrent``: LSTM, GRU and packed sequences.
"""

from __future__ import annotations

from torch import nn

from . import constrained, pooling  # noqa: F401  they register spellings, writers and readers, as the folders below do
from .arithmetic.add import AddInt
from .base import Converted, QuantLayer
from .functions.hard_sigmoid import Hardsigmoid, Hardswish
from .layers.attention import MultiheadAttentionInt
from .layers.batch_norm import BatchNorm1dInt, BatchNorm2dInt
from .layers.conv import Conv1dInt, Conv2dInt
from .layers.conv_transpose import ConvTranspose1dInt, ConvTranspose2dInt
from .layers.embedding import EmbeddingInt
from .layers.layer_norm import LayerNormInt
from .layers.linear import LinearInt
from .moves.requant import Requant, requant
from .recurrent.gru import GRUInt
from .recurrent.layer import RecurrentInt
from .recurrent.lstm import LSTMInt

# Float (or constrained) class -> the layer that replaces it. Subclasses that keep torch's forward follow their base.
swaps: dict[type[nn.Module], type[Converted] | type[RecurrentInt]] = {
    nn.Conv1d: Conv1dInt,
    nn.Conv2d: Conv2dInt,
    nn.ConvTranspose1d: ConvTranspose1dInt,
    nn.ConvTranspose2d: ConvTranspose2dInt,
    nn.Linear: LinearInt,
    nn.Embedding: EmbeddingInt,
    nn.BatchNorm1d: BatchNorm1dInt,
    nn.BatchNorm2d: BatchNorm2dInt,
    nn.LayerNorm: LayerNormInt,
    nn.MultiheadAttention: MultiheadAttentionInt,
    nn.LSTM: LSTMInt,
    nn.GRU: GRUInt,
}

# Float class -> the same module for compiled models, whose functions dynamo does not show.
visible: dict[type[nn.Module], type[nn.Module]] = {nn.Hardsigmoid: Hardsigmoid, nn.Hardswish: Hardswish}

__all__ = [
    "AddInt",
    "BatchNorm1dInt",
    "BatchNorm2dInt",
    "Conv1dInt",
    "Conv2dInt",
    "ConvTranspose1dInt",
    "ConvTranspose2dInt",
    "EmbeddingInt",
    "GRUInt",
    "LSTMInt",
    "LayerNormInt",
    "LinearInt",
    "MultiheadAttentionInt",
    "QuantLayer",
    "RecurrentInt",
    "Requant",
    "requant",
    "swaps",
    "visible",
]
