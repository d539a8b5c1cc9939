"""Attention, module and function: quantized projections, products and softmax; the same integers in train, eval and file."""

import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.nn import LinearInt, MultiheadAttentionInt
from linger.onnx import OnnxRunner
from linger.runtime import info, is_quantized, islands_of
from tests.nn.same import PLATFORMS

pytestmark = pytest.mark.filterwarnings("ignore:linger. exported with a batch")  # sequence first is no batch


def same_everywhere(model, batches, tmp_path, platform, method="MOM"):
    """Train on `batches`, then frozen training, eval and file must agree; softmax alone may be an island, on venus."""
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    model = linger.init(model, str(config), example_inputs=batches[0]).train()
    for inputs in batches:
        model(*inputs).square().mean().backward()
    islands = {"softmax"} if platform == "venus" else set()
    assert {i.operator for i in islands_of(model)} == islands
    inputs = batches[-1]
    with torch.no_grad():
        want = model.eval()(*inputs)
        linger.freeze_statistics(model)
        assert torch.equal(model.train()(*inputs), want)
    model.eval()
    assert torch.equal(model(*inputs), want)  # with gradients
    linger.onnx.export(model, inputs, tmp_path / "m.onnx")
    (codes,) = OnnxRunner(tmp_path / "m.onnx").run(inputs, integers=True).values()
    assert np.array_equal(codes, (want * info(want).scale).round().to(torch.int64).numpy())
    return [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]


class Attention(nn.Module):
    def __init__(self, mask=None, padding=None, cross=False, **settings):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, **settings)
        self.context = nn.Linear(8, settings.get("kdim") or 8)
        self.other = nn.Linear(8, settings.get("vdim") or 8)
        self.cross, self.masks = cross, {"attn_mask": mask, "key_padding_mask": padding}
        self.weights = None

    def forward(self, x):
        x = self.a(x)
        k, v = (self.context(x), self.other(x)) if self.cross else (x, x)
        y, self.weights = self.attention(x, k, v, **self.masks)
        return self.norm(x + y)


def triangle(n):
    return torch.ones(n, n, dtype=torch.bool).triu(1)


PADDING = torch.arange(6)[None] > 3


def lowered(blocked):
    return torch.zeros(blocked.shape).masked_fill_(blocked, -math.inf)


FORMS = {
    "self": ({}, (6, 1, 8)),
    "batch first": ({"batch_first": True}, (1, 6, 8)),
    "no batch": ({}, (6, 8)),
    "cross": ({"cross": True}, (6, 1, 8)),
    "other widths": ({"cross": True, "kdim": 5, "vdim": 6, "batch_first": True}, (1, 6, 8)),
    "no bias": ({"bias": False}, (6, 1, 8)),
    "causal": ({"mask": triangle(6), "batch_first": True}, (1, 6, 8)),
    "additive": ({"mask": torch.randn(6, 6, generator=torch.Generator().manual_seed(0))}, (6, 1, 8)),
    "padding": ({"padding": PADDING}, (6, 1, 8)),
    "both": ({"mask": lowered(triangle(6)), "padding": lowered(PADDING)}, (6, 1, 8)),
}  # fmt: skip


def _products(nodes) -> int:
    """Linear layers of a file; those of several rows are 1x1 convolutions where the chip's engine scrambles rows."""
    return nodes.count("LinearInt") + nodes.count("Conv2dInt")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("form", FORMS)
def test_modules(form, platform, tmp_path):
    settings, shape = FORMS[form]
    torch.manual_seed(1)
    nodes = same_everywhere(Attention(**settings), [(torch.randn(shape),) for _ in range(4)], tmp_path, platform)
    assert nodes.count("BmmInt") == 2
    assert _products(nodes) == (7 if settings.get("cross") else 5)
    assert "ReduceMean" not in nodes  # nobody uses the weights


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_integers_are_near_the_float_module(method, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: venusA\nquant_info:\n  qat_method: {method}\n  a_calibrate_name: abs_max\n")
    for form, (settings, shape) in FORMS.items():
        torch.manual_seed(2)
        net = Attention(**settings)
        x = torch.randn(shape)
        want = net(x)
        net = linger.init(net, str(config))
        with linger.calibration(), torch.no_grad():
            net(x)
        got = net.eval()(x)
        assert (got - want).square().mean() < 0.05 * want.square().mean(), form
        assert net.weights.shape == (1, 6, 6)[len(shape) == 2 :]
        masked = settings.get("mask")
        if masked is not None and masked.dtype == torch.bool:
            assert net.weights[0][masked].abs().max() < 0.01


def test_parameters_train_and_keep_their_names():
    net = Attention(batch_first=True)
    names = set(net.state_dict())
    weight = net.attention.in_proj_weight
    net = linger.init(net, example_inputs=torch.randn(1, 6, 8))
    assert net.attention.in_proj_weight is weight
    assert isinstance(net.attention, MultiheadAttentionInt)
    assert isinstance(net.attention.out_proj, LinearInt)
    assert names <= set(net.state_dict())
    assert {n for n, _ in net.named_parameters()} == names
    net(torch.randn(2, 6, 8)).square().sum().backward()
    used = {n: p for n, p in net.named_parameters() if not n.startswith(("context", "other"))}
    assert all(p.grad.abs().sum() > 0 for p in used.values())
    again = linger.init(Attention(batch_first=True))
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 6, 8)
    assert torch.equal(again.eval()(x), net.eval()(x))


def test_weights_per_head(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x, average):
            return self.attention(x, x, x, average_attn_weights=average)[1]

    net = linger.init(Net())
    x = torch.randn(2, 6, 8)
    heads, mean = net(x, False), net(x, True)
    assert heads.shape == (2, 2, 6, 6)
    assert is_quantized(heads)
    assert mean.shape == (2, 6, 6)
    assert not is_quantized(mean)
    assert torch.equal(net.eval()(x, True), net(x, False).mean(1))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("form", ["plain", "causal", "bool", "scale", "heads"])
def test_the_function(form, platform, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
            self.register_buffer("keep", triangle(5).logical_not())

        def forward(self, x):
            q, k, v = self.q(x), self.k(x), self.v(x)
            if form == "heads":
                q, k, v = (t.view(1, 5, 2, 4).transpose(1, 2) for t in (q, k, v))
                return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 5, 8))
            settings = {
                "plain": {},
                "causal": {"is_causal": True},
                "bool": {"attn_mask": self.keep},
                "scale": {"scale": 1.0},
            }[form]
            return self.out(F.scaled_dot_product_attention(q, k, v, **settings))

    torch.manual_seed(3)
    nodes = same_everywhere(Net(), [(torch.randn(1, 5, 8),) for _ in range(4)], tmp_path, platform)
    assert nodes.count("BmmInt") == 2
    assert nodes.count("iqMul") == (0 if form == "scale" else 1)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_layers_stay_in_integers_in_eval(norm_first, platform, tmp_path):
    """torch's fused inference path of the encoder layer would bypass every operator."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first))
    nodes = same_everywhere(net, [(torch.randn(1, 5, 8),) for _ in range(4)], tmp_path, platform)
    assert _products(nodes) == 6
    assert nodes.count("LayerNormInt") == 2
    assert nodes.count("iqAdd") == 2
    with torch.inference_mode():
        assert info(net.eval()(torch.randn(2, 5, 8))) is not None


def test_encoder_and_decoder(tmp_path):
    torch.manual_seed(5)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def forward(self, x):
            causal = nn.Transformer.generate_square_subsequent_mask(5)
            return self.decoder(x, self.encoder(x), tgt_mask=causal)

    nodes = same_everywhere(Net(), [(torch.randn(1, 5, 8),) for _ in range(3)], tmp_path, "venusA")
    assert nodes.count("SoftmaxInt") == 4


def test_what_cannot_be_is_said(tmp_path, caplog):
    net = linger.init(nn.Sequential(nn.MultiheadAttention(8, 2, add_zero_attn=True)))
    assert "add_zero_attn append keys" in caplog.text
    assert type(net[0]).__name__ == "MultiheadAttention"

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x, padding):
            return self.attention(x, x, x, key_padding_mask=padding)[0]

    net = linger.init(Masked())
    inputs = torch.randn(1, 6, 8), PADDING
    net(*inputs)
    with pytest.raises(
        linger.onnx.ExportError, match="key_padding_mask computed from the inputs, the chip takes a constant"
    ):
        linger.onnx.export(net, inputs, tmp_path / "m.onnx")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo's own
def test_dropout_and_compile():
    torch.manual_seed(6)
    net = linger.init(Attention(dropout=0.5, batch_first=True), example_inputs=torch.randn(1, 6, 8))
    x = torch.randn(3, 6, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    want = net(x)
    assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(x), want)
