"""Layers that compute the chips' integers, layers of the constrained stage, and the operators between them."""

from __future__ import annotations

from torch import nn

from . import activation as _activation  # registers its spellings
from . import add_nodes as _add_nodes  # registers its readers, as the modules below do
from . import cat_nodes as _cat_nodes
from . import conv_nodes as _conv_nodes
from . import linear_nodes as _linear_nodes
from . import norm_nodes as _norm_nodes
from . import pool as _pool
from . import pool_nodes as _pool_nodes
from . import quant_nodes as _quant_nodes
from . import shape as _shape
from . import shape_nodes as _shape_nodes
from .add import AddInt
from .base import QuantLayer
from .conv import Conv1dInt, Conv2dInt
from .linear import LinearInt

# Float (or constrained) class -> the layer that replaces it. Subclasses that keep torch's forward follow their base.
swaps: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Conv1d: Conv1dInt,
    nn.Conv2d: Conv2dInt,
    nn.Linear: LinearInt,
}

__all__ = ["AddInt", "Conv1dInt", "Conv2dInt", "LinearInt", "QuantLayer", "swaps"]
