"""The operator x chip table says what files hold: native nodes, exact expressions, float islands."""

import copy
import io

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.chip import OPERATORS, PLATFORMS
from linger.onnx.float_findings import float_nodes


class Behind(nn.Module):
    """A function of one or two quantized tensors, with a layer on either side so that both ends are integers."""

    def __init__(self, function, shape, layer=None):
        super().__init__()
        self.function, self.layer = function, layer
        self.x, self.y = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
        self.table = nn.Parameter(torch.randn(1, 4))

    def forward(self, x):
        a = self.x(x)
        if self.layer is not None:
            made = self.layer(a)
            return made if isinstance(made, torch.Tensor) else made[0]
        result = self.function(a, self.y(x)) if self.function.__code__.co_argcount == 2 else self.function(a)
        return result if isinstance(result, torch.Tensor) else next(iter(result))


FLAT, MAP, ROWS = (1, 8), (1, 4, 6, 6), (1, 5, 8)
# row -> what a user writes, shape of the operand
WRITTEN = {
    "Requant": (lambda x: torch.tanh(x), FLAT),  # 16 bits in front of the function
    "Conv2dInt": (nn.Conv2d(4, 3, 3), MAP),
    "Conv1dInt": (nn.Conv1d(5, 3, 3), ROWS),
    "ConvTranspose2dInt": (nn.ConvTranspose2d(4, 3, 2), MAP),
    "ConvTranspose1dInt": (nn.ConvTranspose1d(5, 3, 2), ROWS),
    "LinearInt": (nn.Linear(8, 3), FLAT),
    "BatchNorm2dInt": (nn.BatchNorm2d(4), MAP),
    "BatchNorm1dInt": (nn.BatchNorm1d(5), ROWS),
    "LayerNormInt": (nn.LayerNorm(8), ROWS),
    "AvgPool2dInt": (lambda x: F.avg_pool2d(x, 2), MAP),
    "MaxPool": (lambda x: F.max_pool2d(x, 2), MAP),
    "Max": (lambda x, y: torch.maximum(x, y), FLAT),
    "Relu": (lambda x: F.relu(x + x), FLAT),
    "iqAdd": (lambda x, y: x + y, FLAT),
    "iqSub": (lambda x, y: x - y, FLAT),
    "iqMul": (lambda x, y: x * y, FLAT),
    "iqSum": (lambda x: x.sum(-1, keepdim=True), ROWS),
    "iqVar": (lambda x: x.var(-1, keepdim=True), ROWS),
    "Clip": (lambda x: F.relu6(x), MAP),
    "LeakyRelu": (nn.LeakyReLU(0.1), FLAT),
    "PRelu": (nn.PReLU(), FLAT),
    "HardSigmoid": (nn.Hardsigmoid(), FLAT),
    "HardSwish": (nn.Hardswish(), FLAT),
    "iqCat": (lambda x, y: torch.cat([x, y], 1), FLAT),
    "BmmInt": (lambda x, y: torch.bmm(x, y.transpose(1, 2)), ROWS),
    "Reshape": (lambda x: x.reshape(1, 2, 4) + 1, FLAT),
    "Flatten": (lambda x: x.flatten(1), MAP),
    "Transpose": (lambda x: x.permute(0, 2, 3, 1), MAP),
    "Squeeze": (lambda x: x.squeeze(0) + 1, (1, 5, 8)),
    "Unsqueeze": (lambda x: x.unsqueeze(1), FLAT),
    "Slice": (lambda x: x[:, 2:5], FLAT),
    "Split": (lambda x: x.split(4, 1), FLAT),
    "iqPad": (lambda x: F.pad(x, (1, 1, 1, 1)), MAP),
    "ShuffleChannel": (lambda x: F.channel_shuffle(x, 2), MAP),
    "Expand": (lambda x: x[:, :, :, :1].expand(1, 4, 6, 6), MAP),
    "Resize": (lambda x: F.interpolate(x, scale_factor=2), MAP),
    "iqSigmoid": (lambda x: torch.sigmoid(x), FLAT),
    "iqTanh": (lambda x: torch.tanh(x), FLAT),
    "QGelu": (lambda x: F.gelu(x), FLAT),
    "QSwish": (lambda x: F.silu(x), FLAT),
    "SoftmaxInt": (lambda x: torch.softmax(x, -1), FLAT),
    "LogSoftmaxInt": (lambda x: torch.log_softmax(x, -1), FLAT),
    "GluInt": (lambda x: F.glu(x, -1), FLAT),
    "ArgMax": (lambda x: x.argmax(-1), FLAT),
    "LSTMInt": (nn.LSTM(8, 4, batch_first=True), ROWS),
    "GRUInt": (nn.GRU(8, 4, batch_first=True), ROWS),
}  # fmt: skip
# a quotient that needs no shift is a product; borders, index inputs, whole models: seen by other tests
ELSEWHERE = {"iqDiv", "Quant", "Dequant", "Gather", "MultiheadAttention"}


def file_of(written, shape, platform, tmp_path):
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\n")
    layer = copy.deepcopy(written) if isinstance(written, nn.Module) else None
    x = torch.randn(shape)
    model = linger.init(Behind(None if layer is not None else written, shape, layer), str(tmp_path / "c.yaml"))
    model.eval()  # a BatchNorm of one element per channel
    with torch.no_grad(), linger.calibration():
        model(x)
    file = io.BytesIO()
    linger.onnx.export(model, x, file)
    return onnx.load_from_string(file.getvalue()).graph


@pytest.mark.parametrize("platform", [p for p in PLATFORMS if p != "mars"])
@pytest.mark.parametrize("name", WRITTEN)
def test_files_hold_what_the_table_says(name, platform, tmp_path):
    steps = file_of(*WRITTEN[name], platform, tmp_path).node
    nodes = [Recorded(n) for n in steps]
    floats = {n.op_type for n in float_nodes(nodes, ["input"])}
    kind = OPERATORS[name][platform].kind
    ops = {n.op_type for n in nodes}
    found = "island" if floats else "native" if name in ops else "rewrite"
    assert found == kind, f"{name} on {platform}: {sorted(ops)}, floats {sorted(floats)}"


class Recorded:
    """The three fields that the exporter's own steps have."""

    def __init__(self, node):
        self.op_type, self.inputs, self.outputs = node.op_type, list(node.input), list(node.output)


def test_every_row_is_tried():
    assert set(WRITTEN) | ELSEWHERE == set(OPERATORS)
