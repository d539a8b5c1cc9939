"""QAT of the same models by packages from PyPI, each optional: a row appears where its package is installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _torch_ao(make: Callable[..., nn.Module], x: Tensor) -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    return prepare_qat_fx(make().train(), get_default_qat_qconfig_mapping("x86"), (x,))


def _torchao(make: Callable[..., nn.Module], x: Tensor) -> nn.Module:
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    graph = torch.export.export(make().train(), (x,)).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    return allow_exported_model_train_eval(prepare_qat_pt2e(graph, quantizer))


def _brevitas(make: Callable[..., nn.Module], x: Tensor) -> nn.Module:
    import brevitas.nn as qnn
    from brevitas.quant import fixed_point as fp

    def swap(m: nn.Module) -> nn.Module:
        if isinstance(m, nn.Conv2d):
            shape = (m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)
            return qnn.QuantConv2d(
                *shape, groups=m.groups, bias=m.bias is not None, weight_quant=fp.Int8WeightPerTensorFixedPoint
            )
        if isinstance(m, nn.Linear):
            return qnn.QuantLinear(
                m.in_features, m.out_features, bias=True, weight_quant=fp.Int8WeightPerTensorFixedPoint
            )
        if isinstance(m, nn.ReLU):
            return qnn.QuantReLU(act_quant=fp.Uint8ActPerTensorFixedPoint, collect_stats_steps=1)
        for name, child in m.named_children():
            setattr(m, name, swap(child))
        return m

    return swap(make())


PEERS: dict[str, Callable[[Callable[..., nn.Module], Tensor], nn.Module]] = {
    "torch.ao FX": _torch_ao,
    "torchao PT2E": _torchao,
    "brevitas power of two": _brevitas,
}
