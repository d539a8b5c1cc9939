"""Every name of both older generations is there: it works, or says what to write instead."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import linger

NAMES = """
constrain init calibration config_save_to_yaml trace_layers normalize_layers normalize_module disable_normalize
disable_quant NormalizeConvBN2d SetIQTensorAdd SetIQTensorClamp SetIQTensorCat SetIQTensorSigmoid SetIQTensorTanh
SetIQTensorDiv SetIQTensorMul SetIQTensorSum SetFunctionBmmQuant SetBnMomentumUpdate __version__ version_info
quant_module const_module disable_quant_ops get_quant_ops_name register_calibrate_method QUANT_CONFIGS SparifyFFN
ConvBN1d ConvBN2d CConvBN1d QTensor from_tensor_to_qtensor from_qtensor_to_tensor PlatForm ActivationType QuantMode
QuantStrategy FakeQuantMethod QatMethod get_device quant dequant Singleton export QDOMAIN_NAME quant_module_by_type
quant_tensor DefaultQuantIntXOP DefaultNormalizeIntXModule EmptyBatchNorm FuseConvBNAheadRelu FuseBNIntoConv Dumper
parser_dequant fix_dequant onnx_quant wb_analyse config SetPlatFormQuant SetIQTensorSoftmax SetIQTensorLogSoftmax
SetIQTensorVar SetFunctionLinearQuant SetFunctionChannelShuffleQuant SetIQCat2AddZero PlatFormQuant QuantInfo
ClampInfo LayerFusion LayerQuantPredictor logger NormalizeConv1d NormalizeConv2d NormalizeLinear
NormalizeConvTranspose2d NormalizeConvBN1d NormalizeConvTransposeBN2d NormalizeBatchNorm2d NormalizeLayerNorm
NormalizeFastGRU NormalizeFastLSTM NormalizeEmbedding Conv2dInt LinearInt Conv1dInt ConvTranspose2dInt EmbeddingInt
BatchNormInt LayerNormInt GRUInt LSTMInt AvgPool2dInt ReLU6Int BmmInt ScaledRoundLayer iqAddLayer iqMulLayer
iqDivLayer iqSumLayer iqCatLayer iqClampLayer iqSigmoidLayer iqTanhLayer iqVarLayer softmaxIntLayer
logsoftmaxIntLayer IQTensor iqadd iqmul iqdiv iqsum QLinear QConv2d CLinear CConv2d LINGER_IGNORE_PAMAMTER
LINGER_ACTIVATION_TYPE register_qmodule register_qtensor_op register_cmodule
""".split()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    assert getattr(linger, name) is not None


@pytest.mark.parametrize("name", [n for n in NAMES if getattr(getattr(linger, n), "__qualname__", "") == n and
                                  "Not available" in (getattr(linger, n).__doc__ or "")])  # fmt: skip
def test_what_is_gone_says_what_to_write(name):
    with pytest.raises(linger.UnsupportedError, match=f"^{name}: .+"):
        getattr(linger, name)(1, keyword=2)


def test_both_names_of_a_class_answer_isinstance():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    linger.constrain(model)
    assert isinstance(model[0], linger.CConv2d) and isinstance(model[0], linger.NormalizeConv2d)
    linger.init(model)
    assert isinstance(model[0], linger.Conv2dInt) and isinstance(model[0], linger.QConv2d)
    assert isinstance(model[2], linger.LinearInt) and isinstance(model[2], linger.QLinear)


def test_enumerations_have_their_values():
    values = {
        "PlatForm": {"venus": 1, "mars": 2, "arcs": 3, "venusA": 4, "jupiter": 5},
        "ActivationType": {"none": 1, "Relu": 2, "LeakRelu": 3, "ReluX": 4, "Sigmoid": 5, "Tanh": 6},
        "QuantMode": {"floor": 0, "floor_add": 1, "round": 2, "ceil": 3, "QValue": 1},
        "QuantStrategy": {"MSE": 1, "RANGE_MEAN": 2, "NSTD": 3, "HIST": 4, "KLD": 5, "TQT": 6},
        "FakeQuantMethod": {"NATIVE": 1, "CUDA": 2, "COMPILE": 3, "TRITON": 4, "CUDA_GS": 5},
        "QatMethod": {"TQT": 1, "MOM": 2},
        "PlatFormQuant": {"luna_quant": 1},
    }
    for name, members in values.items():
        kind = getattr(linger, name)
        assert {n: kind[n].value for n in members} == members


def test_small_helpers():
    assert linger.get_device(nn.Linear(1, 1)) == torch.device("cpu") == linger.get_device(nn.ReLU())
    assert linger.QDOMAIN_NAME == "linger" and linger.logger.name == "linger"
    assert linger.version_info[:2] == tuple(int(p) for p in linger.__version__.split(".")[:2])

    class One(linger.Singleton):
        pass

    assert One() is One()
    assert linger.export is linger.onnx.export and linger.config is linger.QUANT_CONFIGS


UNTOUCHED = """
import torch, torch.nn.functional, torch.nn.utils.rnn, torch.onnx, torch._dynamo  # the last wraps manual_seed itself
from torch import nn
MODULES = {"torch": torch, "F": torch.nn.functional, "Tensor": torch.Tensor, "onnx": torch.onnx, "nn": nn}
MODULES["rnn"] = torch.nn.utils.rnn
before = {n: dict(vars(m)) for n, m in MODULES.items()}
import linger
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc, self.lstm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.LSTM(4, 4)
    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        y = torch.cat([y + 1, torch.sigmoid(y)], 1)[:, 2:6]
        return self.lstm(torch.tanh(self.fc(y)).clamp(-1, 1).unsqueeze(0))[0]
x = torch.randn(2, 1, 6, 6)
net = Net()
linger.SetIQTensorMul(False); linger.SetFunctionBmmQuant(True); linger.SetBnMomentumUpdate(True)
linger.trace_layers(net, net, x)
linger.disable_normalize(net.lstm); linger.normalize_module(net.fc)
linger.normalize_layers(net); net(x).sum().backward()
linger.quant_module(net.fc, parameter_bits=8); linger.disable_quant(net.lstm)
linger.init(net)
with linger.calibration(): net(x)
net(x).sum().backward()
with linger.Dumper(): net(x)
import io
with linger.compat.redirect_torch_onnx_export(): torch.onnx.export(net.eval(), x[:1], io.BytesIO())
for n, m in MODULES.items():
    after = dict(vars(m))
    changed = [k for k in before[n] if after.get(k) is not before[n][k]]
    assert not changed, (n, changed)
    new = [k for k in after if k not in before[n] and "linger" in getattr(after[k], "__module__", "") ]
    assert not new, (n, new)
print("same")
"""


def test_torch_is_what_it_was():
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same"
