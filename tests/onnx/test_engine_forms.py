"""Each fault of engine 562ddc7 as a sweep around its edge: the form that is written; eval, runner and check agree."""

import math
import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger import settings
from linger.onnx import OnnxRunner

CHIPS = ("arcs", "venusA", "venus")
NO_PREFETCH = "--dma_prefetch False"


class Call(nn.Module):
    """A function as a module, behind an optional layer."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x):
        return self.function(x if self.layer is None else self.layer(x))


def flat():
    """A Reshape at the end: files need a constant."""
    return Call(lambda t: t.reshape(t.shape[0], -1, 1))


@pytest.fixture(autouse=True)
def _settings():
    before = settings.current()
    yield
    settings.use(before)


class File:
    """A trained model of one chip and engine, and its file: eval and runner agree, and the file is judged as the model is."""

    def __init__(self, net, x, platform, path, engine=None, steps=2, **options):
        torch.manual_seed(1)
        settings.use(replace(settings.defaults(), platform=platform))
        given = x if isinstance(x, tuple) else (x,)
        self.model = linger.init(net, example_inputs=x, engine=engine)
        for _ in range(steps):
            self.model.train()(*given)
        self.model.eval()
        with torch.no_grad():
            want = self.model(*given)
        self.path = path / "m.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            linger.onnx.export(self.model, x, self.path, **options)
        self.file = onnx.load(self.path)
        got = OnnxRunner(self.path).run([t.numpy() for t in given]).values()
        wanted = want if isinstance(want, tuple) else (want,)
        for a, b in zip(got, wanted, strict=True):
            codes = a if a.dtype == np.float32 else a / np.float32(2**7 if platform == "venus" else 2**15)  # cells
            assert np.array_equal(codes, b.numpy())
        self.report = linger.check(self.model, example_inputs=x)
        self.errors = {v.what for v in self.report.errors}
        assert {v.what for v in linger.check(self.path).errors} == self.errors, str(linger.check(self.path))

    @property
    def operators(self):
        return [n.op_type for n in self.file.graph.node]

    def nodes(self, op_type):
        """Attributes of the nodes of an operator."""
        return [
            {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
            for n in self.file.graph.node
            if n.op_type == op_type
        ]

    def initializer(self, name):
        return onnx.numpy_helper.to_array(next(i for i in self.file.graph.initializer if i.name == name))


# ---- A: average pooling

# C, H, W of whole maps: those of the laws, and their neighbours
MAPS = [
    (8, 9, 9), (8, 12, 10), (32, 25, 20), (16, 32, 24), (24, 4, 4), (16, 1, 49), (64, 1, 101), (16, 5, 5), (64, 25, 20),
    (64, 24, 24), (32, 16, 16), (1, 10, 10), (3, 1, 1), (2, 2, 1), (1, 32, 33), (5, 11, 11), (5, 11, 12), (5, 127, 1),
    (4, 43, 3), (8, 16, 17), (2, 64, 64), (1, 64, 63), (1, 72, 72), (1, 96, 96),
]  # fmt: skip


def allowed(platform, node, shape):
    """The laws, from the page of measurements, for one AvgPool2dInt on (C, H, W)."""
    (kh, kw), (sh, sw), pads = node["kernel_shape"], node["strides"], node["pads"]
    (c, h, w), n = shape, kh * kw
    power = n & (n - 1) == 0
    whole = (h + pads[0] + pads[2], w + pads[1] + pads[3]) == (kh, kw)
    if whole:
        return False
    if platform == "venus":
        return n <= (256 if power else 127)
    rows = -(-c // 8) * 8 * math.ceil(w / (8 << (sw >> 1))) * (8 << (sw >> 1)) * kh
    size = ((h + pads[0] + pads[2] - kh) // sh + 1) * ((w + pads[1] + pads[3] - kw) // sw + 1)
    return {sh, sw} <= {1, 2, 4} and rows <= (16384 if platform == "arcs" else 32768) and (power or n <= 7 * c * size)


def pools(file):
    """(node, shape of its input) of every average pooling of a file."""
    from linger.convert.findings import walk
    from linger.onnx.graph_facts import graph_facts
    from linger.onnx.loader import load

    graph = graph_facts(load(file.path))
    return [(dict(n.attributes), n.shape(0)[1:]) for _, n in walk(*graph) if n.op_type == "AvgPool2dInt"]


def coarse(platform, kh, kw):
    n = kh * kw
    if n & (n - 1) == 0:
        return False
    return n > 127 if platform == "venus" else math.ceil(kw / 8) * 8 * kh > (2048 if platform == "arcs" else 4096)


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("shape", MAPS, ids=lambda s: "x".join(map(str, s)))
def test_averages_over_the_whole_map(shape, platform, tmp_path):
    x = torch.randn(1, *shape)
    file = File(nn.Sequential(nn.AvgPool2d(shape[1:]), flat()), x, platform, tmp_path)
    assert file.report.ok, str(file.report)
    assert all(allowed(platform, *pool) for pool in pools(file))
    n = shape[1] * shape[2]
    as_product = coarse(platform, *shape[1:]) or n & (n - 1) == 0 and n > 256 and platform == "venus"
    assert ("LinearInt" in file.operators) >= as_product
    if coarse(platform, *shape[1:]):
        s = int(np.ceil(np.log2(63.5 * n)))
        m = int(np.floor(2.0**s / n + 0.5))
        (linear,) = file.nodes("LinearInt")
        weight = next(i for i in file.file.graph.initializer if i.data_type == 3 and n in i.dims)
        assert linear["scale_w"] == 2.0**s and set(onnx.numpy_helper.to_array(weight).flatten()) == {m}


WINDOWS = [
    # C, H, W, kernel, stride, padding: powers of two, wide strides, other sizes, overlaps, nearly the whole map
    (8, 16, 32, (4, 16), (4, 16), 0), (8, 4, 64, (1, 32), (1, 32), 0), (8, 24, 32, (12, 16), (12, 16), 0),
    (8, 26, 32, (13, 13), (13, 13), 0), (8, 40, 40, (16, 16), (16, 16), 0), (8, 20, 20, (10, 10), (10, 10), 0),
    (8, 18, 18, (9, 9), (9, 9), 0), (8, 14, 14, (7, 7), (7, 7), 0), (8, 12, 12, (6, 6), (6, 6), 0),
    (8, 17, 18, (5, 6), (5, 6), 0), (3, 9, 9, (3, 3), (3, 3), 1), (3, 9, 9, (3, 3), (2, 3), 1), (1, 11, 10, (10, 10), (1, 1), 0),
    (1, 20, 12, (19, 11), (1, 1), 0), (2, 32, 64, (16, 32), (16, 32), 0), (2, 24, 24, (12, 12), (12, 12), 0),
    (2, 13, 14, (12, 12), (1, 1), 0), (96, 16, 16, (8, 8), (8, 8), 0), (64, 64, 64, (2, 2), (2, 2), 0),
    (8, 60, 70, (50, 60), (5, 10), 0), (3, 30, 30, (12, 12), (6, 6), 3),
]  # fmt: skip


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_averages_of_several_windows(window, platform, tmp_path):
    c, h, w, kernel, stride, padding = window
    x = torch.randn(1, c, h, w)
    file = File(nn.Sequential(nn.AvgPool2d(kernel, stride, padding), flat()), x, platform, tmp_path)
    assert file.report.ok, str(file.report)
    assert all(allowed(platform, *pool) for pool in pools(file))
    assert coarse(platform, *kernel) <= ("LinearInt" in file.operators)


@pytest.mark.parametrize("n", [129, 144, 169, 500, 1000, 3000])
def test_the_product_is_one_rounding_of_the_sum(n, tmp_path):
    x = torch.randn(1, 40, 1, n)
    file = File(nn.Sequential(nn.AvgPool2d((1, n)), flat()), x, "venus", tmp_path)
    codes = OnnxRunner(file.path).run(x.numpy(), integers=True)["output"].reshape(-1).astype(np.int64)
    scale = file.nodes("Quant")[0]["scale_x"]
    total = (
        np.clip(np.floor(x.numpy() * np.float32(scale) + np.float32(0.5)), -128, 127).astype(np.int64).sum((0, 2, 3))
    )
    s = int(file.nodes("LinearInt")[0]["scale_w"]).bit_length() - 1
    m = (2 * 2**s + n) // (2 * n)
    assert 64 <= m <= 127 and np.array_equal(codes, (m * total + 2 ** (s - 1)) >> s)
    (now,) = (
        OnnxRunner(File(nn.Sequential(nn.AvgPool2d((1, n)), flat()), x, "venus", tmp_path, "later").path)
        .run(x)
        .values()
    )
    assert np.abs(now.reshape(-1) * scale - codes).max() <= 1


def test_training_and_its_gradient_are_those_of_the_file(tmp_path):
    x = torch.randn(4, 8, 12, 12, requires_grad=True)
    settings.use(replace(settings.defaults(), platform="venus"))
    model = linger.init(nn.Sequential(nn.AvgPool2d(12), flat()), example_inputs=x)
    y = model.train()(x)
    y.sum().backward()
    with torch.no_grad():
        assert torch.equal(model.eval()(x), y)
    assert set(x.grad.unique().tolist()) <= {0.0, torch.tensor(1 / 144).item()}


def test_another_engine_is_refused_where_averages_differ(tmp_path):
    x = torch.randn(1, 8, 12, 12)
    file = File(nn.Sequential(nn.AvgPool2d(12), flat()), x, "venus", tmp_path)
    with pytest.raises(
        linger.onnx.ExportError, match=r"averages of 12x12 elements .* rounded otherwise for engine later"
    ):
        linger.onnx.export(file.model, x, tmp_path / "m.onnx", engine="later")
    file = File(nn.Sequential(nn.AvgPool2d(11), flat()), x, "venus", tmp_path)
    linger.onnx.export(file.model, x, tmp_path / "m.onnx", engine="later")
    assert linger.check(tmp_path / "m.onnx").platform == "venus"
    with pytest.raises(ValueError, match="engine must be one of 562ddc7, later, got 'newest'"):
        linger.onnx.export(file.model, x, tmp_path / "m.onnx", engine="newest")


# ---- B: exchanged height and width


def between(name):
    return {
        "nothing": lambda t: t,
        "relu": torch.relu,
        "add": lambda t: t + t,
        "shuffle": lambda t: F.channel_shuffle(t, 2),
        "pool": lambda t: F.max_pool2d(t, 2, 1),
        "gather": lambda t: t[:, [1, 0, 3, 2]],
    }[name]


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("kernel", [1, (3, 1), (1, 3), 2, 3, 5])
@pytest.mark.parametrize("what", ["nothing", "relu", "add", "shuffle", "pool", "gather"])
def test_a_kernel_behind_exchanged_axes(what, kernel, platform, tmp_path):
    net = nn.Sequential(Call(lambda t: between(what)(t.transpose(2, 3)), nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 5, kernel))
    file = File(net, torch.randn(1, 3, 8, 9), platform, tmp_path)
    assert file.report.ok, str(file.report)
    exchanged = [n["perm"] for n in file.nodes("Transpose") if n["perm"] == [0, 1, 3, 2]]
    assert bool(exchanged) == (platform != "venus" or kernel == 1)


# ---- C: shared parameters


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(4, 4, 1), lambda: nn.Linear(6, 6)], ids=["conv", "linear"])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_every_use_of_a_layer_has_its_own_parameters(make, scale, platform, tmp_path):
    layer = make()
    net = Call(lambda t: layer(layer(t) * scale))
    net.layer_in_use = layer
    file = File(net, torch.randn(1, 4, 5, 6), platform, tmp_path)
    uses = [list(n.input)[1:] for n in file.file.graph.node if n.op_type in ("Conv2dInt", "LinearInt")]
    assert len(uses) == 2 and not set(uses[0]) & set(uses[1])
    assert np.array_equal(file.initializer(uses[0][0]).ravel(), file.initializer(uses[1][0]).ravel())
    assert file.report.ok, str(file.report)


# ---- D: sizes


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("size", [(6, 6), (6, 5), (8, 8), (1, 1)])
@pytest.mark.parametrize("c", [2, 4, 8, 12])
def test_a_shuffle_by_hand_says_its_sizes(c, size, platform, tmp_path):
    def shuffle(t):
        n, channels, h, w = t.shape
        return t.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, channels, h, w) + 1

    file = File(Call(shuffle, nn.Conv2d(3, c, 1)), torch.randn(1, 3, *size), platform, tmp_path)
    assert file.report.ok, str(file.report)
    for node in file.file.graph.node:
        if node.op_type == "Reshape":
            assert min(file.initializer(node.input[1])) > 0
    settings.use(replace(settings.defaults(), platform=platform))
    linger.onnx.export(
        file.model, torch.randn(1, 3, *size), tmp_path / "open.onnx", input_names=["x"], dynamic_axes={"x": [0]}
    )
    x = torch.randn(3, 3, *size)
    with torch.no_grad():
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "open.onnx").run(x).values())), file.model(x).numpy())


# ---- E, F, G3: LSTMs

LSTMS = [
    (20, 10, 16),
    (10, 10, 10),
    (16, 12, 8),
    (7, 13, 9),
    (32, 8, 24),
    (5, 9, 7),
    (12, 30, 11),
    (40, 13, 32),
    (1, 8, 4),
]


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("sizes", LSTMS, ids=str)
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, True)])
def test_lstms(layers, both, sizes, platform, tmp_path):
    t, d, h = sizes
    net = nn.LSTM(d, h, layers, batch_first=True, bidirectional=both)
    file = File(Call(lambda r: r[0], net), torch.randn(1, t, d), platform, tmp_path)
    assert file.report.ok, str(file.report)
    nodes = file.nodes("LSTMInt")
    assert len(nodes) == layers * (1 + both)
    if platform != "venus":
        assert file.report.options == [NO_PREFETCH] and NO_PREFETCH in (tmp_path / "m.pack.txt").read_text()
        return
    assert file.report.options == [] and not (tmp_path / "m.pack.txt").exists()
    for node in nodes:
        units, wide = node["hidden_size"], node["input_size"]
        assert wide >= t and units * units % 4 == units * wide % 4 == 0 and units >= h
    cut = [n for n in file.file.graph.node if n.op_type == "Slice"]
    axes = [(int(file.initializer(n.input[3])[0]), int(file.initializer(n.input[2])[0])) for n in cut]
    assert axes.count((1, t)) == sum(node["input_size"] > t for node in nodes)


@pytest.mark.parametrize(("steps", "what"), [(5, "features beyond the steps"), (8, None), (9, "time steps")])
def test_an_open_batch_leaves_an_lstm_of_venus_as_it_is(steps, what, tmp_path):
    x = torch.randn(1, steps, 8)
    file = File(Call(lambda r: r[0], nn.LSTM(8, 4, batch_first=True)), x, "venus", tmp_path)
    linger.onnx.export(file.model, x, tmp_path / "open.onnx", input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    graph = onnx.load(tmp_path / "open.onnx").graph
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # as the packer takes it
    onnx.save(onnx.helper.make_model(graph), tmp_path / "one.onnx")
    assert {v.what for v in linger.check(tmp_path / "one.onnx").errors} == ({what} if what else set())
    said = (tmp_path / "open.pack.txt").read_text()
    assert (what is None or what in said) and "--dynamic_shape batch=1:1:1" in said


@pytest.mark.parametrize("platform", CHIPS)
def test_states_of_an_lstm_that_is_given_them(platform, tmp_path):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(10, 7, batch_first=True)

        def forward(self, x):
            y, (h, c) = self.lstm(x)
            return y, h, c

    file = File(Stateful(), torch.randn(1, 13, 10), platform, tmp_path)
    assert file.report.ok, str(file.report)
    assert file.report.options == [NO_PREFETCH], "cells have 16 bits on venus: hidden units of zero cannot be cut off"


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_lengths_enter_as_they_are(dtype, platform, tmp_path):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 8, batch_first=True)

        def forward(self, x, lengths):
            rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(rows)[0], batch_first=True)[0]

    x = torch.randn(1, 9, 6)
    file = File(Packed(), (x, torch.tensor([9], dtype=dtype)), platform, tmp_path, input_names=["x", "lengths"])
    assert file.report.ok and "Cast" not in file.operators
    port = next(i for i in file.file.graph.input if i.name == "lengths")
    assert port.type.tensor_type.elem_type == {torch.int32: 6, torch.int64: 7}[dtype]
    with torch.no_grad():
        want = file.model(x, torch.tensor([5]))
    for kind in (np.int32, np.int64):
        (got,) = OnnxRunner(file.path).run({"x": x.numpy(), "lengths": np.array([5], kind)}).values()
        assert np.array_equal(got, want.numpy())


# ---- G1: scratch memory

SIZES = [(1, 8), (1, 64), (2, 16), (4, 8), (3, 40), (16, 64), (1, 13), (7, 33), (2, 256), (30, 20), (12, 48), (50, 128)]
NEED = {"arcs": (27, 8), "venusA": (27, 8), "venus": (8, 8)}


def reserved(file, platform):
    """What the poolings of a file make the packer reserve."""
    each = 2 if platform == "venus" else 4
    found = []
    for node, (c, h, w) in pools(file):
        (kh, kw), pads = node["kernel_shape"], node["pads"]
        found.append(each * c * (h + pads[0] + pads[2] - kh + 1) * (w + pads[1] + pads[3] - kw + 1))
    return max(found, default=0)


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_layer_norms_have_their_scratch_memory(size, platform, tmp_path):
    t, d = size
    file = File(nn.Sequential(nn.LayerNorm(d)), torch.randn(1, t, d), platform, tmp_path)
    each, more = NEED[platform]
    assert file.report.ok, str(file.report)
    assert reserved(file, platform) >= each * d + more and all(allowed(platform, *pool) for pool in pools(file))


@pytest.mark.parametrize("size", [(1, 8), (3, 7), (7, 40), (16, 64), (3, 100), (64, 64), (1, 3)], ids=str)
def test_softmax_has_its_scratch_memory(size, tmp_path):
    file = File(nn.Sequential(nn.Linear(size[1], size[1]), nn.Softmax(-1)), torch.randn(1, *size), "venusA", tmp_path)
    assert file.report.ok, str(file.report)
    assert reserved(file, "venusA") >= 22 * size[0] * size[1]
    file = File(nn.Sequential(nn.Linear(size[1], size[1]), nn.Softmax(-1)), torch.randn(1, *size), "arcs", tmp_path)
    assert file.report.ok and "AvgPool2dInt" not in file.operators


def test_a_file_that_reserves_enough_stays_as_it_is(tmp_path):
    net = nn.Sequential(nn.AvgPool2d(2, 1), nn.Flatten(2), nn.LayerNorm(9))
    file = File(net, torch.randn(1, 64, 4, 4), "arcs", tmp_path)
    assert len(file.nodes("AvgPool2dInt")) == 1 and file.report.ok


# ---- G2: rows of linear layers


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize(("k", "o"), [(8, 8), (13, 5), (40, 33), (8, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_linear_layers(k, o, bias, rows, platform, tmp_path):
    net = nn.Sequential(nn.Linear(k, o, bias=bias), nn.ReLU(), nn.Linear(o, o, bias=bias))
    file = File(net, torch.randn(1, rows, k), platform, tmp_path)
    assert file.report.ok, str(file.report)
    rewritten = platform == "venusA" and rows > 1 and o > 1
    assert file.operators.count("Conv2dInt") == 2 * rewritten
    x = torch.randn(3, rows, k)
    linger.onnx.export(file.model, x[:1], tmp_path / "open.onnx", input_names=["x"], dynamic_axes={"x": [0]})
    with torch.no_grad():
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "open.onnx").run(x).values())), file.model(x).numpy())


def test_wide_rows_have_no_form(tmp_path):
    text = "platform: venusA\nhead:\n  name: ['0']\n  quant_info: {output_bits: 32}\n"
    (tmp_path / "c.yaml").write_text(text)
    x = torch.randn(1, 3, 8)
    model = linger.init(nn.Sequential(nn.Linear(8, 4)), str(tmp_path / "c.yaml"), example_inputs=x)
    model(x)
    assert [v.what for v in linger.check(model, example_inputs=x).errors] == ["rows"]
    with pytest.raises(linger.onnx.ExportError, match="rows 3: 1: the engine transposes"):
        linger.onnx.export(model, x, tmp_path / "m.onnx", strict=True)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert "transposes a result of several rows" in (tmp_path / "m.pack.txt").read_text()
    said = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert said["linger.engine"] == "562ddc7" and "rows 3" in said["linger.errors"]


# ---- G4, J: transposed convolutions and thin maps

UP = [
    (2, 2, 0, 0),
    (3, 2, 1, 1),
    (3, 2, 0, 0),
    (4, 2, 1, 0),
    (5, 4, 0, 1),
    (5, 4, 2, 1),
    (1, 1, 0, 0),
    (3, 1, 1, 0),
    (5, 1, 0, 0),
]


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("form", UP, ids=str)
@pytest.mark.parametrize("size", [(1, 6, 6), (5, 3, 7)])
def test_transposed_convolutions(size, form, platform, tmp_path):
    (c, h, w), (kernel, stride, padding, extra) = size, form
    layer = nn.ConvTranspose2d(c, 4, kernel, stride, padding, extra)
    file = File(nn.Sequential(nn.Conv2d(c, c, 1), layer, nn.ReLU()), torch.randn(1, c, h, w), platform, tmp_path)
    assert file.report.ok and file.report.options == [], str(file.report)
    assert ("ConvTranspose2dInt" in file.operators) == (platform != "venus")


def test_an_open_batch_keeps_the_node_and_its_option(tmp_path):
    x = torch.randn(1, 2, 4, 4)
    file = File(nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 2)), x, "venus", tmp_path)
    linger.onnx.export(file.model, x, tmp_path / "m.onnx", input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    text = (tmp_path / "m.pack.txt").read_text()
    assert "--memory params:share-mem" in text and "--dynamic_shape batch=1:1:1" in text
    more = torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "m.onnx").run(more).values())), file.model(more).numpy())


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize(("c", "h"), [(2, 8), (5, 8), (8, 4), (8, 5), (1, 3)])
def test_padding_of_thin_maps(c, h, platform, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, c, 1), nn.Conv2d(c, 4, 5, padding=2))
    file = File(net, torch.randn(1, 3, h, 9), platform, tmp_path)
    assert file.report.ok, str(file.report)
    thin = platform == "venus" and (c < 5 or h < 5)
    assert (file.nodes("Conv2dInt")[1]["pads"] == [0, 0, 0, 0]) == thin and ("iqCat" in file.operators) == thin
