"""Files with the operator names of linger 3.x, which the packer reads beside its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .translate import opened

if TYPE_CHECKING:
    from onnx import ModelProto

_NAMES = {
    "Conv2dInt": "QConv2d",
    "Conv1dInt": "QConv1d",
    "ConvTranspose2dInt": "QConvTranspose2d",
    "LinearInt": "QLinear",
    "BatchNorm2dInt": "QBatchNorm2d",
    "AvgPool2dInt": "QAvgPool2d",
    "BmmInt": "QBmm",
    "iqAdd": "QAdd",
    "iqMul": "QMul",
    "iqCat": "QCat",
    "iqSigmoid": "QSigmoid",
    "iqTanh": "QTanh",
    "SoftmaxInt": "QSoftmax",
    "LSTMInt": "QLSTM",
    "GRUInt": "QGRU",
    "LayerNormInt": "QLayerNorm2d",
}
_ATTRIBUTES = {"data_bits": "x_bits", "parameter_bits": "w_bits", "dim": "axis"}


def to_linger3(model: str | os.PathLike[str] | bytes | ModelProto) -> ModelProto:
    """The same file with the operator and attribute names of linger 3.x (``QConv2d``, ``x_bits``).

    The packer takes both vocabularies. Operators without a name there (Requant, GluInt ...) keep theirs.

    Args:
        model: A file of ``linger.onnx.export``: path, bytes, or ModelProto.

    Raises:
        ModelError: The file is refused, as ``OnnxRunner`` refuses it.

    Source: docs/onnx.md.
    """
    from onnx import ModelProto

    source, _ = opened(model)
    renamed = ModelProto()
    renamed.CopyFrom(source)
    for node in renamed.graph.node:
        if node.op_type not in _NAMES:
            continue
        node.op_type = _NAMES[node.op_type]
        for attribute in node.attribute:
            if attribute.name != "dim" or node.op_type == "QCat":
                attribute.name = _ATTRIBUTES.get(attribute.name, attribute.name)
    return renamed


__all__ = ["to_linger3"]
