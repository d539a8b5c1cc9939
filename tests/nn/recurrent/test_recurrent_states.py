"""Last states of several layers and directions: every row keeps its format, in the model and in the file."""

import copy
import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of

PLATFORMS = ("arcs", "mars", "venusA", "venus")
KINDS = ("LSTM", "GRU")
D, H, T = 6, 8, 5
pytestmark = pytest.mark.filterwarnings("ignore:.*exported with a batch")


class Scores(nn.Module):
    """Linear layers on what ``take`` picks from the last hidden states."""

    def __init__(self, kind, take, width, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(D, H, batch_first=True, num_layers=2, **options)
        self.fc = nn.Linear(width, 3)
        self.take = take

    def forward(self, x):
        _, state = self.rnn(x)
        return self.fc(self.take(state[0] if isinstance(state, tuple) else state))


class States(nn.Module):
    """All last states, each as an output of its own (``apart``) or as torch has them."""

    def __init__(self, kind, apart, **options):
        super().__init__()
        self.rnn, self.apart = getattr(nn, kind)(D, H, batch_first=True, **options), apart

    def forward(self, x):
        y, state = self.rnn(x)
        states = state if isinstance(state, tuple) else (state,)
        return (y, *(s[i] for s in states for i in range(len(s)))) if self.apart else (y, *states)


TAKES = {
    "last": (lambda h: h[-1], H, {}),
    "last with an ellipsis": (lambda h: h[-1, ..., 2:6], 4, {}),
    "select": (lambda h: h.select(0, 1), H, {}),
    "both ways": (lambda h: torch.cat((h[-2], h[-1]), 1), 2 * H, {"bidirectional": True}),
    "unbind": (lambda h: torch.cat(h.unbind(0), 1), 2 * H, {}),
    "sum": (lambda h: h[0] + h[1], H, {}),
}


def trained(model, tmp_path, platform, method="MOM"):
    """Scales of the layers differ: their statistics saw other ranges."""
    torch.manual_seed(0)
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    model = linger.init(model, str(config))
    with torch.no_grad():
        for name, p in model.rnn.named_parameters():
            p.mul_(2.0 if "l1" in name or "weight_ih_l0" in name else 0.3)
    x = torch.randn(1, T, D)
    with linger.calibration():
        model(x)
    return model, x


def integers(t):
    return (t * info(t).scale).detach().numpy()


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_picked_state_stays_in_integers(platform, method, kind, take, tmp_path):
    function, width, options = TAKES[take]
    model, x = trained(Scores(kind, function, width, **options), tmp_path, platform, method)
    linger.freeze_statistics(model)
    trains = model.train()(x)
    model.eval()
    assert not islands_of(model)
    y = model(x)
    assert torch.equal(y, trains)
    file = str(tmp_path / "model.onnx")
    linger.onnx.export(model, (x,), file)
    assert not {"Concat", "Quant"} & {n.op_type for n in onnx.load(file).graph.node[1:]}
    found = OnnxRunner(file).run({"input": x.numpy()}, integers=True)
    assert np.array_equal(next(iter(found.values())), integers(y))


@pytest.mark.parametrize(
    "options", [{"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_states_apart_leave_as_integers(platform, kind, options, tmp_path):
    model, x = trained(States(kind, True, **options), tmp_path, platform)
    model.eval()
    want = model(x)
    file = str(tmp_path / "model.onnx")
    linger.onnx.export(model, (x,), file)
    assert "Concat" not in {n.op_type for n in onnx.load(file).graph.node}
    found = list(OnnxRunner(file).run({"input": x.numpy()}).values())
    assert len(found) == len(want)
    assert all(np.array_equal(a, b.detach().numpy()) for a, b in zip(found, want, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_states_together_are_codes_where_the_scales_are_one(platform, kind, tmp_path, caplog):
    model, x = trained(States(kind, False, num_layers=2), tmp_path, platform)
    first, second = model.rnn.output_quantizer, model.rnn.output_l1_quantizer
    first.set_range(4.0 * second.running_data)
    assert first.scale != second.scale
    for same in (False, True):
        if same:
            first.set_range(second.running_data)
        model.eval()
        want = model(x)
        file = str(tmp_path / "model.onnx")
        caplog.clear()
        linger.onnx.export(model, (x,), file)
        graph = onnx.load(file).graph
        makers = {o: n.op_type for n in graph.node for o in n.output}
        sources = {n.output[0]: makers[n.input[0]] for n in graph.node if n.op_type in ("Dequant", "Identity")}
        assert sources[graph.output[1].name] == ("iqCat" if same else "Concat")
        assert ("return h_n[0], h_n[1] ..." in caplog.text) != same
        told = "cells are wider than the 8 bits that iqCat takes" in caplog.text
        assert told == (kind == "LSTM" and not same), "said once per model"
        found = list(OnnxRunner(file).run({"input": x.numpy()}).values())
        assert all(np.array_equal(a, b.detach().numpy()) for a, b in zip(found, want, strict=True))


def test_rows_are_forgotten_when_the_states_are_written(tmp_path):
    def take(h):
        h = h.clone()
        return h[-1]

    def overwrite(h):
        h.mul_(2.0)
        return h[-1]

    for function in (take, overwrite):
        model, x = trained(Scores("GRU", function, H), tmp_path, "arcs")
        model.eval()
        seen = []
        hook = model.fc.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(info(args[0])))
        with torch.no_grad():
            model(x)
        hook.remove()
        assert seen == [None]


def test_states_are_copied_and_stored_without_formats(tmp_path):
    model, x = trained(States("LSTM", False, num_layers=2), tmp_path, "arcs")
    with torch.no_grad():
        _, h, _ = model.eval()(x)
    assert torch.equal(copy.deepcopy(h), h)
    file = io.BytesIO()
    torch.save(h, file)
    file.seek(0)
    assert torch.equal(torch.load(file), h)


def test_gradients_reach_both_layers_through_picked_states(tmp_path):
    model, x = trained(Scores("LSTM", lambda h: h[0] - h[1], H), tmp_path, "venusA")
    model.train()(x).sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for name, p in model.rnn.named_parameters() if "weight" in name)


class Bridge(nn.Module):
    """Encoder, a linear layer on both of its states, decoder."""

    def __init__(self, deep):
        super().__init__()
        self.encoder = nn.LSTM(D, H, batch_first=True, num_layers=2 if deep else 1)
        self.h, self.c = nn.Linear(H, H), nn.Linear(H, H)
        self.decoder, self.fc = nn.LSTM(D, H, batch_first=True), nn.Linear(H, 3)

    def forward(self, x):
        _, (h, c) = self.encoder(x)
        y, _ = self.decoder(x, (self.h(h[-1]).unsqueeze(0), self.c(c[-1]).unsqueeze(0)))
        return self.fc(y)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_cell_state_enters_a_layer_as_a_float_tensor(platform, method, calibrated, deep, tmp_path):
    torch.manual_seed(0)
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    model, x = linger.init(Bridge(deep), str(config)), torch.randn(1, T, D)
    if calibrated:
        with linger.calibration():
            model(x)
        assert model.c.input_quantizer.ready and not model.h.input_quantizer.ready
    else:
        model(x).square().sum().backward()
        assert float(model.encoder.weight_hh_l0.grad.abs().sum()) > 0
    y = model.eval()(x)
    file = str(tmp_path / "model.onnx")
    linger.onnx.export(model, (x,), file)
    found = OnnxRunner(file).run({"input": x.numpy()}, integers=True)
    assert np.array_equal(next(iter(found.values())), integers(y))
