"""Older names of what the core has: ``Q*``, ``C*`` and ``iq*Layer`` classes, fused pairs, constants, and names without a use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from linger import nn as layers
from linger._C import __version__
from linger.errors import UnsupportedError
from linger.nn.constrained import fused
from linger.nn.constrained import layers as limited
from linger.nn.constrained.recurrent import NormalizeGRU, NormalizeLSTM
from linger.settings import QUANT_CONFIGS

from .operators import (
    AvgPool2dInt,
    BmmInt,
    ReLU6Int,
    iqAddLayer,
    iqCatLayer,
    iqMulLayer,
    iqSigmoidLayer,
    iqTanhLayer,
    softmaxIntLayer,
)

LINGER_IGNORE_PAMAMTER = "_linger_ignore_parameter"  # the 3.x spelling
LINGER_ACTIVATION_TYPE = "_linger_activation_type"
QDOMAIN_NAME = "linger"
logger = logging.getLogger("linger")
config = QUANT_CONFIGS
version_info = tuple(int(part) for part in __version__.split("."))

QLinear = layers.LinearInt
QConv1d, QConv2d = layers.Conv1dInt, layers.Conv2dInt
QConvTranspose1d, QConvTranspose2d = layers.ConvTranspose1dInt, layers.ConvTranspose2dInt
QBatchNorm1d, QBatchNorm2d = layers.BatchNorm1dInt, layers.BatchNorm2dInt
BatchNormInt = layers.BatchNorm2dInt
QLayerNorm, QEmbedding, QLSTM, QGRU = layers.LayerNormInt, layers.EmbeddingInt, layers.LSTMInt, layers.GRUInt
CLinear, CConv1d, CConv2d = limited.NormalizeLinear, limited.NormalizeConv1d, limited.NormalizeConv2d
CConvTranspose1d, CConvTranspose2d = limited.NormalizeConvTranspose1d, limited.NormalizeConvTranspose2d
CBatchNorm1d, CBatchNorm2d = limited.NormalizeBatchNorm1d, limited.NormalizeBatchNorm2d
CLayerNorm, CEmbedding, CLSTM = limited.NormalizeLayerNorm, limited.NormalizeEmbedding, NormalizeLSTM
NormalizeFastLSTM, NormalizeFastGRU = NormalizeLSTM, NormalizeGRU
ConvBN1d = CConvBN1d = fused.NormalizeConvBN1d
ConvBN2d = CConvBN2d = fused.NormalizeConvBN2d
ConvTransposeBN1d = CConvTransposeBN1d = fused.NormalizeConvTransposeBN1d
ConvTransposeBN2d = CConvTransposeBN2d = fused.NormalizeConvTransposeBN2d
QAdd, QMul, QCat, QBmm, QMatmul = iqAddLayer, iqMulLayer, iqCatLayer, BmmInt, BmmInt
QSigmoid, QTanh, QSoftmax = iqSigmoidLayer, iqTanhLayer, softmaxIntLayer
QAvgPool1d = QAvgPool2d = QAdaptiveAvgPool2d = AvgPool2dInt
# Modules of torch that stay as they are: the operator they call runs in integers.
QRelu, QRelu6 = nn.ReLU, ReLU6Int
QMaxPool1d, QMaxPool2d = nn.MaxPool1d, nn.MaxPool2d


def _gone(name: str, instead: str) -> Callable[..., Any]:
    """A name whose call says what to write instead."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(f"{name}: {instead}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Not available: {instead}.\n\nRaises:\n    UnsupportedError: Always."
    return refuse


FuseBNIntoConv = _gone(
    "FuseBNIntoConv", "deprecated: linger.init folds every BatchNorm, linger.trace_layers fuses it before"
)
FuseConvBNAheadRelu = _gone("FuseConvBNAheadRelu", "write linger.trace_layers(net, net, example_input, fuse_bn=True)")
SparifyFFN = _gone(
    "SparifyFFN", "no chip has its sparse form; write two nn.Linear layers, pruned with torch.nn.utils.prune"
)
QSparifyFFN = _gone("QSparifyFFN", "no chip has its sparse form; write two nn.Linear layers")
QuantInfo = _gone("QuantInfo", "write linger.settings.QuantInfo, or the mapping quant_info of a configuration file")
ClampInfo = _gone("ClampInfo", "write linger.settings.ClampInfo, or the mapping clamp_info of a configuration file")
LayerFusion = _gone("LayerFusion", "linger.trace_layers(model, *args) finds and fuses the layers")
LayerQuantPredictor = _gone(
    "LayerQuantPredictor", "linger.check(model, platform, example_inputs) says what the chip can do"
)
register_qmodule = _gone(
    "register_qmodule", "the layers are a table of the library; linger.get_quant_ops_name() lists them"
)
register_qtensor_op = _gone(
    "register_qtensor_op", "operators are a table of the library; linger.get_quant_ops_name() lists them"
)
register_cmodule = _gone("register_cmodule", "the constrained layers are a table of the library")


def get_device(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; cpu for a model without any."""
    first = next((t for t in (*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if first is None else first.device


class Singleton:
    """Base of classes that have one object.

    Example:
        >>> import linger
        >>> class Registry(linger.Singleton):
        ...     pass
        >>> Registry() is Registry()
        True
    """

    _instance: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """The one object of the class."""
        if cls.__dict__.get("_instance") is None:
            cls._instance = super().__new__(cls)
        return cls._instance
