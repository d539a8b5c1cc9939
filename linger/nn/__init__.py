"""Layers that compute the chips' integers, layers of the constrained stage, and the operators between them.

A family is a file with its module, the spellings it handles and how it is written into a file; ``*_nodes.py`` beside it reads
the nodes back. A folder imports those above it only:

* ``base`` (what layers share), ``functional`` (what operators of user code share), ``nodes`` (what writers and readers share).
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

from .arithmetic import (  # noqa: F401
    add_nodes,
    bmm,
    bmm_nodes,
    div,
    div_nodes,
    mul,
    mul_nodes,
    sub,
    sub_nodes,
    sums,
)
from .arithmetic.add import AddInt
from .base import Converted, QuantLayer
from .constrained import (  # noqa: F401
    attention,
)
from .functions import (  # noqa: F401
    clamp,
    function_nodes,
    gelu,
    glu,
    hard_sigmoid,
    leaky_relu,
    relu,
    sigmoid,
    softmax,
)
from .functions.hard_sigmoid import Hardsigmoid, Hardswish
from .layers import (  # noqa: F401
    batch_norm_nodes,
    conv_nodes,
    layer_norm_nodes,
    linear_nodes,
)
from .layers.attention import MultiheadAttentionInt
from .layers.batch_norm import BatchNorm1dInt, BatchNorm2dInt
from .layers.conv import Conv1dInt, Conv2dInt
from .layers.conv_transpose import ConvTranspose1dInt, ConvTranspose2dInt
from .layers.embedding import EmbeddingInt
from .layers.layer_norm import LayerNormInt
from .layers.linear import LinearInt
from .moves import (  # noqa: F401
    cat,
    cat_nodes,
    copies,
    pieces,
    quant_nodes,
    shape,
    shape_nodes,
)
from .moves.requant import Requant, requant
from .pooling import (  # noqa: F401
    argmax,
    average,
    maximum,
    pool_nodes,
)
from .recurrent import (  # noqa: F401
    gru_nodes,
    lstm_nodes,
    packing,
)
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
