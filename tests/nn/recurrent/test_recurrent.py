"""LSTM and GRU layers: one forward in training, evaluation and file; packed input, states, streams, checkpoints, reports."""

import copy
import io
import itertools
import logging

import numpy as np
import onnx
import pytest
import torch
import torch.utils.checkpoint
from golden.cases import CASES
from torch import nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger
from linger.convert.prepare import record_of
from linger.errors import ExportError, UnsupportedError
from linger.nn import GRUInt, LSTMInt
from linger.nn.constrained.recurrent import NormalizeGRU, NormalizeLSTM
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
PLATFORMS = ("arcs", "mars", "venus", "venusA")
D, H, T = 6, 8, 5
each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore:.*exported with a batch")


class Net(nn.Module):
    """One recurrent layer and a linear one; returns scores and the last states."""

    def __init__(self, kind, packed=False, **options):
        super().__init__()
        self.packed, self.batch_first = packed, options.get("batch_first", False)
        self.rnn = KINDS[kind](D, H, **options)
        self.fc = nn.Linear(H * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x, *given):
        if self.packed:
            x = pack_padded_sequence(x, given[0], batch_first=self.batch_first, enforce_sorted=False)
            y, state = self.rnn(x)
            y, _ = pad_packed_sequence(y, batch_first=self.batch_first)
        else:
            states = given[0] if len(given) == 1 else given or None
            y, state = self.rnn(x, states)
        return (self.fc(y), *(state if isinstance(state, tuple) else (state,)))


def initialised(model, tmp_path, platform="arcs", method="MOM", example=None):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    return linger.init(model, str(config), example_inputs=example)


FORMS = {
    "batch first": {"batch_first": True},
    "time major": {},
    "both ways": {"bidirectional": True, "batch_first": True},
    "deep": {"num_layers": 2, "bias": False, "dropout": 0.3},
    "deep both ways": {"num_layers": 2, "bidirectional": True},
    "packed": {"packed": True, "batch_first": True},
    "packed, deep both ways": {"packed": True, "num_layers": 2, "bidirectional": True},
    "states": {"batch_first": True},
    "deep states": {"num_layers": 2, "bidirectional": True},
    "unbatched": {"bidirectional": True},
}


def inputs_of(kind, form, generator):
    options = FORMS[form]
    x = torch.randn(T, 1, D, generator=generator)
    x = x.transpose(0, 1) if options.get("batch_first") else x
    if "packed" in form:
        return x, [T]
    if form == "unbatched":
        return (x.squeeze(1),)
    if "states" in form:
        n = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        return (x, *(torch.rand(n, 1, H, generator=generator) - 0.5 for _ in range(2 if kind == "LSTM" else 1)))
    return (x,)


@each_kind
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("platform", "method"), [*itertools.product(PLATFORMS, ["MOM"]), ("arcs", "TQT")])
def test_training_evaluation_and_file_agree(kind, form, platform, method, tmp_path):
    g = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = Net(kind, **FORMS[form])
    model = initialised(model, tmp_path, platform, method, inputs_of(kind, form, g)).train()
    for _ in range(3):
        model.zero_grad()
        sum(y.pow(2).mean() for y in model(*inputs_of(kind, form, g))).backward()
        used = [p for n, p in model.named_parameters() if "quantizer" not in n]
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in used)
    assert islands_of(model) == []
    inputs = inputs_of(kind, form, g)
    with torch.no_grad():
        want = model.eval()(*inputs)
        linger.freeze_statistics(model)
        model.rnn.dropout = 0.0
        trained = model.train()(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(trained, want, strict=True))
    linger.onnx.export(model.eval(), inputs, tmp_path / "m.onnx")
    runner = OnnxRunner(tmp_path / "m.onnx")
    cell = 2.0**7 if platform == "venus" else 2.0**15
    tensors = [t for t in inputs if isinstance(t, torch.Tensor)]
    if kind == "LSTM" and "states" in form:
        tensors[2] = (tensors[2] * cell + 0.5).floor().to(torch.int32)
    for i, (got, real) in enumerate(zip(runner.run(tensors).values(), want, strict=True)):
        got = got / cell if got.dtype != np.float32 else got  # one cell state leaves in integers
        assert np.array_equal(got, real.numpy()), i
    (codes, *_) = runner.run(tensors, integers=True).values()
    assert np.array_equal(codes, (want[0] * info(want[0]).scale).numpy())


@each_kind
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_stream_in_chunks_is_the_whole_sequence(kind, platform, tmp_path):
    torch.manual_seed(0)
    model = initialised(Net(kind, num_layers=2), tmp_path, platform)
    model(torch.randn(9, 3, D))
    x = torch.randn(9, 3, D)
    with torch.no_grad():
        want, *last = model.eval()(x)
        parts, state = [], ()
        for chunk in x.split([2, 1, 4, 2]):
            y, *state = model(chunk, *state)
            parts.append(y)
    assert torch.equal(torch.cat(parts), want)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


@each_kind
def test_every_way_of_packing_gives_the_integers_of_single_sequences(kind, tmp_path):
    torch.manual_seed(0)
    model = initialised(Net(kind, packed=True, bidirectional=True), tmp_path)
    x, lengths = torch.randn(7, 4, D), [3, 7, 5, 1]
    model(x, lengths)
    model.eval()
    with torch.no_grad():
        want = model(x, lengths)
        for spelled in (tuple(lengths), np.array(lengths), torch.tensor(lengths), torch.tensor(lengths).int()):
            assert all(torch.equal(a, b) for a, b in zip(model(x, spelled), want, strict=True))
        for i, n in enumerate(lengths):
            alone = model(x[:n, i : i + 1], [n])
            assert torch.equal(alone[0][:, 0], want[0][:n, i])
            assert all(torch.equal(a[:, 0], b[:, i]) for a, b in zip(alone[1:], want[1:], strict=True))
        order = [1, 2, 0, 3]
        layer = model.rnn
        plain, _ = pad_packed_sequence(layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])
        for pack, pad in (
            (pack_padded_sequence, pad_packed_sequence),
            (rnn.pack_padded_sequence, rnn.pad_packed_sequence),
        ):
            y, _ = pad(layer(pack(x[:, order], [lengths[i] for i in order]))[0])
            assert torch.equal(y[:, [2, 0, 1, 3]], plain)


@pytest.mark.parametrize("spelled", [list, tuple, np.array])
def test_files_do_not_depend_on_how_lengths_are_given(spelled, tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.lengths = nn.LSTM(D, H), [T]

        def forward(self, x):
            return pad_packed_sequence(self.rnn(pack_padded_sequence(x, self.lengths))[0])[0]

    torch.manual_seed(0)
    model = initialised(Fixed(), tmp_path)
    x = torch.randn(T, 1, D)
    model(x)
    files = []
    for lengths in (torch.tensor([T]), spelled([T])):
        model.lengths = lengths
        buffer = io.BytesIO()
        linger.onnx.export(model, x, buffer)
        files.append(buffer.getvalue())
    assert files[0] == files[1]
    (node,) = (n for n in onnx.load_from_string(files[0]).graph.node if n.op_type == "LSTMInt")
    assert len(node.input) == 6  # with a length


def test_a_length_may_be_an_input_of_the_file(tmp_path):
    torch.manual_seed(0)
    model = initialised(Net("LSTM", packed=True, batch_first=True), tmp_path)
    x = torch.randn(1, T, D)
    model(x, torch.tensor([T]))
    model.eval()
    linger.onnx.export(model, (x, torch.tensor([T])), tmp_path / "m.onnx", dynamic_axes={"output": {1: "steps"}})
    runner = OnnxRunner(tmp_path / "m.onnx")
    for n in (T, 3, 1):
        with torch.no_grad():
            want, h, _ = model(x, torch.tensor([n]))
        got = runner.run([x, torch.tensor([n])])
        assert np.array_equal(got["output"], want)
        assert np.array_equal(got["output1"], h)
    with pytest.raises(linger.onnx.ModelError, match=r"the number of valid steps, must be in \[1, 5\], got 0"):
        runner.run([x, torch.tensor([0])])


@each_kind
@pytest.mark.parametrize("form", ["unbatched", "deep both ways", "packed"])
def test_given_states_are_inputs_of_the_file(kind, form, tmp_path):
    torch.manual_seed(0)
    options = {"num_layers": 2, "bidirectional": True} if form == "deep both ways" else {}

    class Streamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = KINDS[kind](D, H, **options)

        def forward(self, x, *given):
            x = x if form != "packed" else pack_padded_sequence(x, [T], enforce_sorted=False)
            y, state = self.rnn(x, given if kind == "LSTM" else given[0])
            y = y if form != "packed" else pad_packed_sequence(y)[0]
            return y, *(state if kind == "LSTM" else (state,))

    def inputs():
        size = (T, 1, D) if form == "packed" else (T, D)
        sizes = (4 if options else 1, *size[1:-1], H)
        return torch.randn(size), *(torch.rand(sizes) - 0.5 for _ in range(2 if kind == "LSTM" else 1))

    model = initialised(Streamed(), tmp_path).train()
    model(*inputs())
    linger.onnx.export(model.eval(), inputs(), tmp_path / "m.onnx")
    x, *states = inputs()
    with torch.no_grad():
        want = model(x, *states)
    codes = [(s * 2.0**15 + 0.5).floor().to(torch.int32) for s in states[1:]]
    got = OnnxRunner(tmp_path / "m.onnx").run([x, states[0], *codes]).values()
    for y, real in zip(got, want, strict=True):
        assert np.array_equal(y / 2.0**15 if y.dtype != np.float32 else y, real.numpy())


def test_packed_batches_and_their_rows_have_no_form_in_a_file(tmp_path):
    torch.manual_seed(0)
    model = initialised(Net("LSTM", packed=True), tmp_path)
    model(torch.randn(T, 2, D), [T, 3])
    with pytest.raises(ExportError, match="a packed batch of 2 sequences; export with one"):
        linger.onnx.export(model, (torch.randn(T, 2, D), [T, 3]), tmp_path / "m.onnx")
    lengths = torch.tensor([T, 3])  # an input of the file
    with pytest.raises(ExportError, match="export with one"):
        linger.onnx.export(model, (torch.randn(T, 2, D), lengths), tmp_path / "m.onnx")


@each_kind
def test_states_from_another_layer_train_it(kind, tmp_path):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder, self.start = KINDS[kind](D, H), KINDS[kind](D, H), nn.Linear(H, H)

        def forward(self, x):
            _, state = self.encoder(x)
            state = (self.start(state[0]), state[1]) if kind == "LSTM" else self.start(state)
            return self.decoder(x, state)[0]

    torch.manual_seed(0)
    model = initialised(Pair(), tmp_path, example=torch.randn(T, 1, D))
    for _ in range(2):
        model.zero_grad()
        model(torch.randn(T, 3, D)).sum().backward()
    assert all(bool(p.grad.any()) for p in (*model.encoder._flat_weights, model.start.weight))
    x = torch.randn(T, 1, D)
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert np.array_equal(OnnxRunner(tmp_path / "m.onnx").run(x)["output"], want)


@each_kind
def test_checkpoints(kind, tmp_path):
    torch.manual_seed(0)
    plain = Net(kind, bidirectional=True, num_layers=2)
    names = set(plain.state_dict())
    model = initialised(copy.deepcopy(plain), tmp_path)
    model(torch.randn(T, 2, D))
    state = model.state_dict()
    assert names <= set(state)
    kinds = ["input", "output", "hidden", "weightih", "weighthh", "biasih", "biashh"] + ["cell"] * (kind == "LSTM")
    for name, key in itertools.product(kinds, ("running_data", "is_init", "scale")):
        assert f"rnn.{name}_quantizer.{key}" in state
        assert f"rnn.{name}_reverse_quantizer.{key}" in state
    other = initialised(Net(kind, bidirectional=True, num_layers=2), tmp_path)
    assert other.load_state_dict(plain.state_dict()) is not None
    other.load_state_dict(state)
    x = torch.randn(T, 2, D)
    with torch.no_grad():
        want = model.eval()(x)
        copied = copy.deepcopy(model)
        for again in (other.eval(), copied):
            assert all(torch.equal(a, b) for a, b in zip(again(x), want, strict=True))


@each_kind
def test_a_model_with_learned_thresholds_is_copied_while_it_trains(kind, tmp_path):
    torch.manual_seed(0)
    model = initialised(Net(kind), tmp_path, method="TQT").train()
    x = torch.randn(T, 2, D)
    model(x)[0].sum().backward()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(copied.eval()(x), model.eval()(x), strict=True))


def test_the_scale_of_a_pass_is_known_before_it(tmp_path):
    torch.manual_seed(0)
    model = initialised(Net("LSTM"), tmp_path)
    x = torch.randn(T, 2, D)
    y, _ = model.rnn(x)
    assert float(info(y).scale) == 2.0**7  # nothing seen so far
    moved = float(model.rnn.output_quantizer.scale)
    assert moved > 2.0**7  # states of a fresh layer are small
    y, _ = model.rnn(x)
    assert float(info(y).scale) == moved


@each_kind
def test_recomputation_repeats_the_scale_of_its_pass(kind, tmp_path):
    class Checkpointed(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.rnn, self.again = KINDS[kind](D, H), again

        def forward(self, x):
            if not self.again:
                return self.rnn(x)[0]
            return torch.utils.checkpoint.checkpoint(lambda t: self.rnn(t)[0], x, use_reentrant=False)

    x, grads = torch.randn(T, 2, D), []
    for again in (False, True):
        torch.manual_seed(0)
        model = initialised(Checkpointed(again), tmp_path)
        for _ in range(3):
            model.zero_grad()
            model(x).pow(2).sum().backward()
            grads.append([p.grad.clone() for p in model.rnn._flat_weights])
    for plain, checkpointed in zip(grads[:3], grads[3:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))


@each_kind
@pytest.mark.parametrize("platform", ["venus", "venusA"])
def test_calibration_is_a_float_pass(kind, platform, tmp_path):
    torch.manual_seed(0)
    plain = Net(kind, num_layers=2, bidirectional=True)
    model = initialised(copy.deepcopy(plain), tmp_path, platform)
    x, lengths = torch.randn(7, 3, D), [7, 4, 2]
    with linger.calibration():
        y, *_ = model(x)
        model.rnn(pack_padded_sequence(x, lengths))
    assert torch.allclose(y, plain(x)[0], atol=1e-6)
    unseen = [n for n, q in model.rnn.named_children() if q.role != "bias" and not q.ready]
    assert unseen == []
    with torch.no_grad():
        error = float((model.eval()(x)[0] - plain(x)[0]).abs().max())
    assert error < 0.1  # 8-bit codes of values around one, through two layers


@pytest.mark.parametrize("platform", PLATFORMS)
def test_update_gates_of_a_float_gru_are_bridged(platform, tmp_path):
    """venus gives z to the candidate: negated rows make it PyTorch's formula. arcs differs and says so."""
    torch.manual_seed(0)
    plain = nn.GRU(D, H)
    model = initialised(copy.deepcopy(plain), tmp_path, platform)
    note = {row.name: row.note for row in record_of(model).report.rows}[""]
    assert ("applies the reset gate before the recurrent product" in note) == (platform in ("arcs", "mars"))
    if platform in ("arcs", "mars"):
        return
    x = torch.randn(20, 4, D).clamp(-3, 3)
    with linger.calibration():
        model(x)
    limits = {"input": 4.0, "output": 1.0, "weightih": 0.5, "weighthh": 0.5}  # wide enough: nothing saturates
    for name, limit in limits.items():
        getattr(model, f"{name}_quantizer").set_range(torch.tensor(limit))
    with torch.no_grad():
        assert float((model.eval()(x)[0] - plain(x)[0]).abs().max()) < 0.05  # 8 bits: 1/32 in x, 1/128 in h


def test_saturated_cells_are_reported_by_name(tmp_path, caplog):
    torch.manual_seed(0)
    model = initialised(Net("LSTM"), tmp_path)
    for p in (model.rnn.bias_ih_l0, model.rnn.bias_hh_l0):
        nn.init.constant_(p, 3.0)
    model(torch.randn(30, 2, D))
    assert model.rnn.saturated_share > 0.1
    with caplog.at_level(logging.WARNING, "linger"):
        model.eval()
    assert "'rnn': " in caplog.text
    assert "of the cells reached +-2" in caplog.text


@each_kind
def test_constrained_layers_are_torchs_with_clamped_matrices(kind, tmp_path):
    torch.manual_seed(0)
    plain = Net(kind, packed=True, num_layers=2, bidirectional=True)
    reference = copy.deepcopy(plain)
    config = tmp_path / "config.yaml"
    config.write_text("clamp_info:\n  clamp_weight_value: 0.1\n  clamp_activation_value: 0.05\n")
    model = linger.constrain(plain, str(config))
    assert type(model.rnn) is {"LSTM": NormalizeLSTM, "GRU": NormalizeGRU}[kind]
    with torch.no_grad():
        for name, p in reference.rnn.named_parameters():
            if "weight" in name:
                p.clamp_(-0.1, 0.1)
    x, lengths = torch.randn(7, 4, D), [3, 7, 5, 1]
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    for hx in (None, torch.rand(4, 4, H)):
        hx = (hx, hx) if kind == "LSTM" and hx is not None else hx
        y, state = model.rnn(packed, hx)
        want, states = reference.rnn(packed, hx)
        assert torch.equal(y.data, want.data.clamp(-0.05, 0.05))
        assert all(torch.equal(a, b) for a, b in zip(state, states, strict=True))
    flat, _ = model.rnn(x[:, 0])
    assert torch.equal(flat, reference.rnn(x[:, 0])[0].clamp(-0.05, 0.05))
    model = linger.init(model, str(config))
    assert type(model.rnn) is {"LSTM": LSTMInt, "GRU": GRUInt}[kind]
    assert float(model.rnn.weight_ih_l0.detach().abs().max()) <= 0.1001


def test_what_no_chip_has_stays_float_and_says_why(tmp_path):
    model = initialised(nn.Sequential(nn.LSTM(D, H, proj_size=4)), tmp_path)
    assert type(model[0]) is nn.LSTM
    assert "proj_size=4: no chip projects the state" in str(record_of(model).report)
    with pytest.raises(UnsupportedError, match="LSTM with proj_size=4"):
        LSTMInt.from_float(nn.LSTM(D, H, proj_size=4), linger.settings.defaults().layer("x"))


def test_shapes_that_do_not_fit_are_refused_by_name(tmp_path):
    model = initialised(Net("LSTM"), tmp_path)
    with pytest.raises(ValueError, match=r"'rnn': expected \(T, B, 6\).* got \(5, 2, 7\)"):
        model(torch.randn(5, 2, 7))
    with pytest.raises(ValueError, match=r"'rnn': h_0 must have shape \(1, 2, 8\), got \(1, 3, 8\)"):
        model(torch.randn(5, 2, D), torch.zeros(1, 3, H), torch.zeros(1, 2, H))
    with pytest.raises(ValueError, match="at least one step"):
        model(torch.randn(0, 2, D))
    layer = model.rnn
    too_long = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, D), [7, 3])  # torch packs without a word
    with pytest.raises(ValueError, match="'rnn': the lengths ask for 10 rows, the packed data has 8"):
        layer(too_long)


def test_printed_form(tmp_path):
    model = initialised(Net("LSTM", batch_first=True, num_layers=2), tmp_path, "venus")
    assert repr(model.rnn) == (
        "LSTMInt(6, 8, num_layers=2, batch_first=True, data_bits:8, o_bits:8, weight_bits:8, bias_bits:32, "
        "mode:QuantMode.floor_add, platform:venus)"
    )


def _layer_of(recorded, w):
    """The recorded layer as a module: its parameters as floats, its scales in the quantizers."""
    q, hidden = recorded.about["params"], w[1].shape[1]
    settings = linger.settings.loads(f"platform: {recorded.platform}\n").layer("rnn")
    layer = LSTMInt(w[0].shape[1], hidden, batch_first=True, quant=settings)
    scales = {"input": q["q_x"], "weightih": q["q_iw"], "weighthh": q["q_hw"], "output": q["q_h"]}
    at = {
        "weight_ih": q["q_iw"],
        "weight_hh": q["q_hw"],
        "bias_ih": q["q_x"] + q["q_iw"],
        "bias_hh": q["q_h"] + q["q_hw"],
    }
    with torch.no_grad():
        for (name, exp2), codes in zip(at.items(), w, strict=True):
            getattr(layer, f"{name}_l0").copy_(codes.double() / 2.0**exp2)
    for name, exp2 in scales.items():
        quantizer = getattr(layer, f"{name}_quantizer")
        quantizer.scale.fill_(2.0**exp2)
        quantizer.is_init.fill_(True)
    return layer.eval()


def _recorded():
    """Forward cases whose biases a float32 parameter can hold."""
    for case in CASES:
        if case.op == "LSTMInt" and case.about["params"].get("go_forward"):
            w = [torch.from_numpy(case.arrays[f"w_{i}"].copy()) for i in range(4)]
            if all(int(b.long().abs().max()) < 2**24 for b in w[2:]):
                yield pytest.param(case, w, id=case.id)


@pytest.mark.parametrize(("case", "w"), list(_recorded()))
def test_recorded_layers_as_modules(case, w):
    layer, a, q = _layer_of(case, w), case.arrays, case.about["params"]
    x = torch.from_numpy(a["in_0"]).float() / 2.0 ** q["q_x"]
    cell = 2.0 ** (7 if case.platform == "venus" else 15)
    states = None
    if "in_2" in a:
        states = torch.from_numpy(a["in_2"]) / 2.0 ** q["q_h"], torch.from_numpy(a["in_3"]).to(torch.int32) / cell
    with torch.no_grad():
        y, (h, c) = layer(x[:, : q["valid_steps"]], states)
    assert np.array_equal(y * 2.0 ** q["q_h"], a["out_0"])
    assert np.array_equal(h.flatten() * 2.0 ** q["q_h"], a["out_1"])
    assert np.array_equal(c.flatten() * cell, a["out_2"])


def test_venus_gru_with_thresholds_needs_no_calibration(tmp_path):
    """TQT's first threshold is too wide for sums that venus shifts right only: matrices start at their own range."""
    torch.manual_seed(2)
    model = initialised(Net("GRU", num_layers=2, bidirectional=True), tmp_path, "venus", "TQT")
    example = torch.randn(T, 1, D)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    ranges = {d: getattr(model.rnn, d.parameter("weight_hh")).detach().abs().max() for d in model.rnn.directions()}
    model(example)[0].square().sum().backward()
    for d, largest in ranges.items():
        threshold = getattr(model.rnn, d.quantizer("weighthh")).learning_data
        assert threshold.item() == pytest.approx(largest.log2().item()) and threshold.grad is not None
    optimizer.step()
    file = str(tmp_path / "gru.onnx")
    linger.onnx.export(model, (example,), file)
    scores = model.eval()(example)[0]
    found = OnnxRunner(file).run({"input": example.numpy()}, integers=True)
    assert np.array_equal(next(iter(found.values())), (scores * info(scores).scale).detach().numpy())


@pytest.mark.parametrize("batch_first", [False, True])
@each_kind
def test_a_batch_without_entries(kind, batch_first, tmp_path):
    options = {"batch_first": batch_first, "num_layers": 2, "bidirectional": True}
    model = initialised(Net(kind, **options), tmp_path)
    x = torch.randn(*((0, T) if batch_first else (T, 0)), D)
    want = KINDS[kind](D, H, **options)(x)[0]
    y, *states = model(x)
    assert y.shape == (*want.shape[:-1], 3) and all(s.shape == (4, 0, H) for s in states)
    assert not model.rnn.output_quantizer.ready
    with linger.calibration(model):
        model(x)


@pytest.mark.parametrize(
    ("kind", "hx", "message"),
    [
        ("GRU", "a", "hx must be a tensor, got str"),
        ("GRU", (torch.zeros(1, 1, H),), "hx must be a tensor, got tuple"),
        ("LSTM", torch.zeros(1, 1, H), r"hx must be a pair of tensors \(h_0, c_0\), got Tensor"),
        ("LSTM", (torch.zeros(1, 1, H), None), r"hx must be a pair of tensors \(h_0, c_0\), got tuple"),
    ],
)
def test_given_states_of_another_kind(kind, hx, message, tmp_path):
    model = initialised(Net(kind), tmp_path)
    with pytest.raises(TypeError, match=f"'rnn': {message}"):
        model.rnn(torch.randn(T, 1, D), hx)
