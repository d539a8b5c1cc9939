"""Older names of what the core has: ``Q*``, ``C*`` and ``iq*Layer`` classes, fused pairs, constants, and names without a use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from linger import nn as layers
from linger._C import __version__
from linger.errors import UnsupportedError
from linger.nn.constrained.fused import (
    EmptyBatchNorm,
    NormalizeConvBN1d,
    NormalizeConvBN2d,
    NormalizeConvTransposeBN1d,
    NormalizeConvTransposeBN2d,
)
from linger.nn.constrained.layers import (
    NormalizeBatchNorm1d,
    NormalizeBatchNorm2d,
    NormalizeConv1d,
    NormalizeConv2d,
    NormalizeConvTranspose1d,
    NormalizeConvTranspose2d,
    NormalizeEmbedding,
    NormalizeLayerNorm,
    NormalizeLinear,
)
from linger.nn.constrained.recurrent import NormalizeGRU, NormalizeLSTM
from linger.runtime import FACTORIES
from linger.settings import QUANT_CONFIGS, defaults

_T = TypeVar("_T")
_quant = defaults().layer("")


def _operator(name: str) -> type[nn.Module]:
    """The class of an operator of user code, as its call sites make it."""
    return type(FACTORIES[name](1, _quant))


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
CLinear, CConv1d, CConv2d = NormalizeLinear, NormalizeConv1d, NormalizeConv2d
CConvTranspose1d, CConvTranspose2d = NormalizeConvTranspose1d, NormalizeConvTranspose2d
CBatchNorm1d, CBatchNorm2d = NormalizeBatchNorm1d, NormalizeBatchNorm2d
CLayerNorm, CEmbedding, CLSTM = NormalizeLayerNorm, NormalizeEmbedding, NormalizeLSTM
NormalizeFastLSTM, NormalizeFastGRU = NormalizeLSTM, NormalizeGRU
ConvBN1d = CConvBN1d = NormalizeConvBN1d
ConvBN2d = CConvBN2d = NormalizeConvBN2d
ConvTransposeBN1d = CConvTransposeBN1d = NormalizeConvTransposeBN1d
ConvTransposeBN2d = CConvTransposeBN2d = NormalizeConvTransposeBN2d

# Operators of user code: their modules are made by the calls.
iqAddLayer, iqMulLayer, iqDivLayer = _operator("add"), _operator("mul"), _operator("div")
iqSumLayer, iqCatLayer = _operator("sum"), _operator("cat")
iqSigmoidLayer, iqTanhLayer = _operator("sigmoid"), _operator("tanh")
softmaxIntLayer, logsoftmaxIntLayer = _operator("softmax"), _operator("logsoftmax")
BmmInt, AvgPool2dInt = _operator("bmm"), _operator("avg_pool")
QAdd, QMul, QCat, QBmm, QMatmul = iqAddLayer, iqMulLayer, iqCatLayer, BmmInt, BmmInt
QSigmoid, QTanh, QSoftmax = iqSigmoidLayer, iqTanhLayer, softmaxIntLayer
QGelu, QSwish, QGLU = _operator("gelu"), _operator("swish"), _operator("glu")
QAvgPool1d = QAvgPool2d = QAdaptiveAvgPool2d = AvgPool2dInt
# Modules of torch that stay as they are: the operator they call runs in integers.
QRelu, QRelu6, ReLU6Int = nn.ReLU, nn.ReLU6, nn.ReLU6
QMaxPool1d, QMaxPool2d = nn.MaxPool1d, nn.MaxPool2d


def _gone(name: str, instead: str) -> Callable[..., Any]:
    """A name whose call says what to write instead."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(f"{name}: {instead}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Not available: {instead}.\n\nRaises:\n    UnsupportedError: Always."
    return refuse


iqVarLayer = _gone("iqVarLayer", "no chip computes a variance; x.var() stays in float and is reported")
iqClampLayer = _gone("iqClampLayer", "clamp has no state of its own: write torch.clamp(x, low, high) in the forward")
ScaledRoundLayer = _gone(
    "ScaledRoundLayer", "write linger.quant_tensor(self, x) in the forward, or linger.nn.Requant()"
)
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


__all__ = [
    "CLSTM",
    "LINGER_ACTIVATION_TYPE",
    "LINGER_IGNORE_PAMAMTER",
    "QDOMAIN_NAME",
    "QGLU",
    "QGRU",
    "QLSTM",
    "AvgPool2dInt",
    "BatchNormInt",
    "BmmInt",
    "CBatchNorm1d",
    "CBatchNorm2d",
    "CConv1d",
    "CConv2d",
    "CConvBN1d",
    "CConvBN2d",
    "CConvTranspose1d",
    "CConvTranspose2d",
    "CConvTransposeBN1d",
    "CConvTransposeBN2d",
    "CEmbedding",
    "CLayerNorm",
    "CLinear",
    "ClampInfo",
    "ConvBN1d",
    "ConvBN2d",
    "ConvTransposeBN1d",
    "ConvTransposeBN2d",
    "EmptyBatchNorm",
    "FuseBNIntoConv",
    "FuseConvBNAheadRelu",
    "LayerFusion",
    "LayerQuantPredictor",
    "NormalizeBatchNorm1d",
    "NormalizeBatchNorm2d",
    "NormalizeConv1d",
    "NormalizeConv2d",
    "NormalizeConvBN1d",
    "NormalizeConvBN2d",
    "NormalizeConvTranspose1d",
    "NormalizeConvTranspose2d",
    "NormalizeConvTransposeBN1d",
    "NormalizeConvTransposeBN2d",
    "NormalizeEmbedding",
    "NormalizeFastGRU",
    "NormalizeFastLSTM",
    "NormalizeGRU",
    "NormalizeLSTM",
    "NormalizeLayerNorm",
    "NormalizeLinear",
    "QAdaptiveAvgPool2d",
    "QAdd",
    "QAvgPool1d",
    "QAvgPool2d",
    "QBatchNorm1d",
    "QBatchNorm2d",
    "QBmm",
    "QCat",
    "QConv1d",
    "QConv2d",
    "QConvTranspose1d",
    "QConvTranspose2d",
    "QEmbedding",
    "QGelu",
    "QLayerNorm",
    "QLinear",
    "QMatmul",
    "QMaxPool1d",
    "QMaxPool2d",
    "QMul",
    "QRelu",
    "QRelu6",
    "QSigmoid",
    "QSoftmax",
    "QSparifyFFN",
    "QSwish",
    "QTanh",
    "QuantInfo",
    "ReLU6Int",
    "ScaledRoundLayer",
    "Singleton",
    "SparifyFFN",
    "config",
    "get_device",
    "iqAddLayer",
    "iqCatLayer",
    "iqClampLayer",
    "iqDivLayer",
    "iqMulLayer",
    "iqSigmoidLayer",
    "iqSumLayer",
    "iqTanhLayer",
    "iqVarLayer",
    "logger",
    "logsoftmaxIntLayer",
    "register_cmodule",
    "register_qmodule",
    "register_qtensor_op",
    "softmaxIntLayer",
    "version_info",
]
