"""Float calls as standard ONNX: every form is exported, read back by the runner and by onnx's own evaluator, and compared.

Both execute other float32 code than torch did (composites, other orders of summation, numpy), so a tolerance of 1e-5 relative
to the largest value is what one can ask for; integers and bools are compared exactly.
"""

import copy
import io
import math

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from float_calls import FUNCTIONS, LAYERS, X
from onnx.reference import ReferenceEvaluator
from torch import nn

import linger
from linger.onnx import ExportError, OnnxRunner
from linger.onnx.write_call import TABLE

pytestmark = pytest.mark.filterwarnings("ignore:.*exported with a batch of")  # a limit of the chips, not of islands


class Body(nn.Module):
    """``f(self, *inputs)`` in a model that has a constant, as files must."""

    def __init__(self, f, **children):
        super().__init__()
        self.f = f
        self.one = nn.Parameter(torch.ones(1))
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x, *more):
        return self.f(self, x * self.one, *more)


def written(f, *inputs, **children):
    """Model and the file it is exported to; every child stays in float."""
    model = Body(f, **copy.deepcopy(children)).eval()
    linger.init(model, disable_submodel=tuple(children) or None)
    file = io.BytesIO()
    linger.onnx.export(model, inputs, file)
    return model, file.getvalue()


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value if v is not None for t in leaves(v)]


def close(got, want):
    got, want = np.asarray(got), want.numpy()
    assert got.shape == want.shape
    if want.dtype.kind == "f":
        finite = want[np.isfinite(want)]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(finite).max(initial=0)))
    else:
        assert np.array_equal(got.astype(want.dtype), want)


def check(f, *inputs, reference=True, **children):
    """Export, then compare runner and reference with torch; returns the operators of the file."""
    model, data = written(f, *inputs, **children)
    with torch.no_grad():
        wanted = leaves(model(*(t.clone() for t in inputs)))
    runner = OnnxRunner(data)
    names = runner.inputs
    fed = {n: t.numpy() for n, t in zip(names, inputs, strict=True)}
    for got, want in zip(runner.run(fed).values(), wanted, strict=True):
        close(got, want)
    if reference:
        with np.errstate(
            invalid="ignore"
        ):  # numpy's flag also tells of what BLAS computes in padding; the results are compared
            results = ReferenceEvaluator(onnx.load_from_string(data)).run(None, fed)
        for got, want in zip(results, wanted, strict=True):
            close(got, want)
    return [n.op_type for n in onnx.load_from_string(data).graph.node]


# onnx's evaluator (1.23) is wrong here: BatchNormalization-9 mixes in the batch, ConvTranspose has no groups, Pad does not crop
_NO_REFERENCE = {"batch norm", "batch norm 1d", "bare batch norm", "instance norm running", "transposed 1d", "pad crop"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_written_and_means_the_same(name):
    check(FUNCTIONS[name], X, reference=name not in _NO_REFERENCE)


def test_pixel_shuffle():
    assert "DepthToSpace" in check(lambda m, x: F.pixel_shuffle(x, 2), torch.randn(1, 8, 2, 3))


def test_products():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    check(lambda m, x, y: (x @ y, torch.bmm(x, y), x.matmul(y), x[0].mm(y[0]), torch.mv(x[0], y[0, :, 0])), a, b)
    check(lambda m, x, y: torch.baddbmm(torch.ones(5), x, y, beta=0.5, alpha=2), a, b)
    check(lambda m, x, y: torch.addmm(torch.ones(5), x, y, beta=0.5, alpha=2), a[0], b[0])


def test_embedding_and_a_computed_index():
    table = nn.Embedding(9, 5)
    check(
        lambda m, x, i: m.table(i) * x + m.table(x.argmax(1)), torch.randn(3, 5), torch.tensor([1, 8, 0]), table=table
    )


def called(m, x, *more):
    return m.layer(x, *more)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_written_and_means_the_same(name):
    layer, x = LAYERS[name]
    for buffer in layer.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    for p in layer.parameters():
        p.data.uniform_(-1, 1)
    check(called, x, layer=layer, reference=name not in _NO_REFERENCE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind, both, bias):
    layer = kind(6, 5, 2, bias=bias, batch_first=both, bidirectional=both)
    operators = check(called, X[0], layer=layer, reference=False)  # onnx's evaluator runs one direction only
    assert operators.count(kind.__name__) == 2
    if not both:
        check(called, X[0], layer=kind(6, 5, bias=bias))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layer_with_given_states(kind):
    state, layer = torch.randn(2, 4, 5), kind(6, 5, 2)
    if kind is nn.LSTM:
        check(lambda m, x, h: m.layer(x, (h, h * 2)), X[0], state, layer=layer, reference=False)
    else:
        check(called, X[0], state, layer=layer, reference=False)
    check(lambda m, x: m.layer(x)[0], X[0, 0], layer=kind(6, 5))  # without a batch


def test_plain_recurrent_layer_with_relu():
    check(called, X[0], layer=nn.RNN(6, 5, nonlinearity="relu", bidirectional=True), reference=False)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_cells(kind):
    check(lambda m, x: m.layer(x, m.layer(x)), X[0, 0], layer=kind(6, 5))


@pytest.mark.parametrize("first", [True, False])
def test_attention(first):
    x, memory, layer = torch.randn(5, 2, 8), torch.randn(5, 7, 8), nn.MultiheadAttention(8, 2, batch_first=first)
    for p in layer.parameters():
        p.data.uniform_(-1, 1)
    check(lambda m, x: m.layer(x, x, x), x, layer=layer)
    check(lambda m, x: m.layer(x, x, x, need_weights=False)[0], x, layer=layer)
    mask = torch.ones(2, 2, dtype=torch.bool).triu(1) if first else torch.randn(5, 5)
    check(lambda m, x: m.layer(x, x, x, attn_mask=mask, average_attn_weights=False), x, layer=layer)
    if first:
        padding = torch.arange(7)[None] >= torch.tensor([7, 6, 3, 1, 2])[:, None]
        check(lambda m, x, y: m.layer(x, y, y, key_padding_mask=padding), x, memory, layer=layer)
        narrow = nn.MultiheadAttention(8, 2, kdim=8, vdim=4, bias=False, batch_first=True)
        check(lambda m, x, y: m.layer(x, y, y[..., :4]), x, memory, layer=narrow)


def test_transformer_layer_and_scaled_dot_product():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
    check(called, torch.randn(3, 5, 8), layer=layer)
    q, k = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 7, 4)
    check(lambda m, x, y: F.scaled_dot_product_attention(x, y, y), q, k)
    check(lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3), q)
    mask = torch.rand(5, 7) > 0.3
    check(lambda m, x, y: F.scaled_dot_product_attention(x, y, y, attn_mask=mask), q, k)


# ---- borders to codes, open batches, refusals


class Border(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        y = self.conv(x)
        y = torch.exp(-y.abs()) + F.hardsigmoid(y)  # two consumers of one quantized tensor
        return self.linear(y.mean((2, 3)).view(y.size(0), -1))


def exported(model, *inputs, **options):
    file = io.BytesIO()
    linger.onnx.export(model, inputs, file, **options)
    return file.getvalue()


def test_island_between_quantized_layers_has_one_dequant_and_one_quant():
    model = linger.init(Border())
    for seed in range(3):
        model(torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed)))
    data = exported(model.eval(), X)
    with torch.no_grad():
        close(OnnxRunner(data).run(X)["output"], model(X))
    operators = [n.op_type for n in onnx.load_from_string(data).graph.node]
    layers = {"Conv2dInt": "layer", "LinearInt": "layer"}
    ends = [layers.get(o, o) for o in operators if o in ("Quant", "Dequant", *layers)]
    assert ends == ["Quant", "layer", "Dequant", "Quant", "layer", "Dequant"]


@pytest.mark.parametrize("opset", [11, 12])
def test_operators_exist_in_both_versions(opset):
    everything = {n: f for n, f in FUNCTIONS.items() if n not in ("pow",)}  # the checker runs inside export
    model = linger.init(Body(lambda m, x: [f(m, x) for f in everything.values()]))
    data = exported(model, X, opset_version=opset)
    assert onnx.load_from_string(data).opset_import[0].version == opset


def test_file_with_an_open_batch_takes_other_sizes():
    layers = {"conv": nn.Conv2d(3, 4, 3), "lstm": nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)}

    def body(m, x):
        y = F.interpolate(F.group_norm(m.conv(x), 2), scale_factor=2)
        y = F.softmax(y.flatten(2).transpose(1, 2), 1)
        return m.lstm(y)[0][:, -1] + y.mean((1, 2), keepdim=True).expand(-1, -1, 10)[:, 0]

    model = linger.init(Body(body, **layers), disable_submodel=tuple(layers))
    data = exported(model.eval(), X, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    wide = torch.randn(5, 3, 4, 6)
    with torch.no_grad():
        close(OnnxRunner(data).run(wide)["y"], model(wide))


def test_open_axes_that_do_not_exist_are_told(caplog):
    model = linger.init(nn.Sequential(nn.Conv2d(3, 4, 3)))
    model(X)
    exported(model, X, input_names=["x"], dynamic_axes={"z": {0: "n"}})
    assert "dynamic_axes: 'z' is no input or output; there are 'x', 'output'" in caplog.text
    with pytest.raises(linger.errors.ExportError, match="axis 4 of 'x', which has 4 axes"):
        exported(model, X, input_names=["x"], dynamic_axes={"x": {4: "n"}})


REFUSED = {
    "sort": (lambda m, x: x.sort(1)[0], "`sort`"),
    "adaptive": (lambda m, x: F.adaptive_avg_pool2d(x, (3, 5)), "4 x 6 is no multiple of 3 x 5"),
    "circular": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="circular"), "circular"),
    "nearest-exact": (lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), "nearest-exact"),
    "half": (lambda m, x: x.half(), "float16"),
    "boolean index": (lambda m, x: x[:, torch.tensor([True, False, True])], "mask"),
    "two tensors": (lambda m, x: x[[0, 1], [1, 2]], "only one axis"),
    "rounding": (lambda m, x: torch.div(x, 3, rounding_mode="floor"), "rounding_mode"),
    "floor division": (lambda m, x: x // 2, "`__floordiv__`|`floor_divide`"),
    "matrix norm": (lambda m, x: torch.linalg.norm(x, "nuc", (2, 3)), "matrix norms"),
    "batch statistics": (lambda m, x: F.batch_norm(x, None, None, training=True), "statistics of the batch"),
    "dropout": (lambda m, x: F.dropout(x), "dropout is active"),
    "indices": (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d"),
    "einsum": (lambda m, x: torch.einsum("nchw,nchw->nc", x, x), "`einsum`"),
    "bits": (lambda m, x: x.view(torch.int32), "bits"),
    "copy into a constant": (lambda m, x: torch.zeros_like(x).copy_(x), "`copy_`"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_reason_file_and_line(name):
    f, reason = REFUSED[name]
    with pytest.raises(ExportError, match=rf"({reason})(.|\n)*test_write_float.py:\d+"):
        written(lambda m, x: f(m, x), X)


def test_operator_without_a_form_is_no_error_where_nothing_needs_it():
    check(lambda m, x: (x.sort(1), x + 1)[1], X)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projections_and_packed_sequences_are_refused():
    with pytest.raises(ExportError, match="proj_size"):
        written(called, X[0], layer=nn.LSTM(6, 5, proj_size=3))
    with pytest.raises(ExportError, match="ack"):
        lengths = torch.tensor([4, 2, 1])
        pack = nn.utils.rnn.pack_padded_sequence
        written(lambda m, x: m.layer(pack(x.transpose(0, 1), lengths))[0].data, X[0], layer=nn.LSTM(6, 5))


def test_in_place_write_in_inference_mode_is_seen():
    model = linger.init(Body(lambda m, x: F.relu(x, inplace=True) + x))
    with torch.inference_mode():
        data = exported(model, X.clone())
    close(OnnxRunner(data).run(X)["output"], 2 * X.relu())


def test_other_floats_are_float32_in_the_file():
    check(lambda m, x: torch.exp((x.double() + 1) * 2).float() + x.to(torch.float64).softmax(1).float(), X)
    check(lambda m, x: (x > 0.1).double().sum(1).float(), X)


def test_table_holds_functions_of_this_torch():
    assert len(TABLE) > 300
    assert all(callable(f) for f in TABLE)


def test_constant_input_of_a_plain_onnx_checker():
    data = written(lambda m, x: (x + 1).relu(), X)[1]
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)


def test_results_that_are_not_numbers_keep_their_meaning():
    x = torch.tensor([[math.nan, math.inf, -math.inf, 0.0, 1.0]])
    check(lambda m, x: (x >= 0, x <= 0, x != x, torch.isnan(x), x.clamp(-1, 1)[:, 1:]), x)
