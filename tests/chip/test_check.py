"""``linger.check``: everything at once, on float, constrained and initialised models, with nothing changed."""

import html
import random

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from golden.cases import CASES
from torch import nn

import linger
from linger.onnx import ExportError


class Net(nn.Module):
    """Breaks a limit of every kind on some chip."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 7, padding=3, stride=3)
        self.bn = nn.BatchNorm2d(16)
        self.thin = nn.Conv2d(16, 16, 3, stride=3, groups=16)
        self.fat = nn.Conv2d(16, 600, 3, padding=1)
        self.deep = nn.Conv2d(600, 8, 3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.wide(x)))
        x = self.deep(self.fat(self.thin(x)))
        x = self.drop(torch.erf(F.max_pool2d(x, 2)).mean((2, 3)))
        return self.head(x)


X = torch.randn(2, 3, 96, 96)


def configured(tmp_path, platform):
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\n")
    return str(tmp_path / "c.yaml")


def found(report):
    return {(v.layer, v.what) for v in report if not v.layer.startswith("'")}


ARCS = {
    ("wide", "kernel"), ("wide", "stride"), ("thin", "stride"), ("deep", "input rows"), ("deep", "weight per output channel"),
    *((layer, "batch") for layer in ("wide", "thin", "fat", "deep")),
}  # fmt: skip
EXPECTED = {
    "arcs": ARCS,
    "mars": ARCS,
    "venusA": {f for f in ARCS if f[0] != "deep" or f[1] == "batch"},
    "venus": {("wide", "kernel"), ("wide", "stride"), ("thin", "stride")},
}


@pytest.mark.parametrize("platform", EXPECTED)
def test_everything_at_once_and_the_same_at_every_stage(platform, tmp_path):
    torch.manual_seed(0)
    of_float = linger.check(Net(), platform, X)
    assert found(of_float) == EXPECTED[platform] and not of_float.ok and of_float.platform == platform
    floats = [v for v in of_float if v.what == "float operator"]
    assert "erf" in {v.value for v in floats} and all(f"{__file__}:" in v.layer for v in floats)
    assert found(linger.check(linger.constrain(Net(), example_inputs=X), platform, X)) == EXPECTED[platform]
    model = linger.init(Net(), configured(tmp_path, platform), example_inputs=X)
    assert found(linger.check(model, platform, X)) == found(linger.check(model, example_inputs=X)) == EXPECTED[platform]


def test_another_chip_than_the_models(tmp_path):
    model = linger.init(Net(), configured(tmp_path, "arcs"), example_inputs=X)
    model(X)
    assert found(linger.check(model, "venus", X)) == EXPECTED["venus"]
    assert linger.check(model, example_inputs=X).platform == "arcs"
    said = [v.limit for v in linger.check(model, "mars", X) if v.what == "batch"]
    assert said and set(said) == {"mars computes only the first sample"}


@pytest.mark.parametrize("stage", ["float", "initialised"])
def test_nothing_changes(stage, tmp_path):
    model = Net().train()
    if stage == "initialised":
        linger.init(model, configured(tmp_path, "arcs"), example_inputs=X)
        model(X)
    model.bn.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags, names = [m.training for m in model.modules()], [n for n, _ in model.named_modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    settings = linger.settings.current()
    linger.check(model, "venusA", X)
    linger.check(model, "venusA")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert flags == [m.training for m in model.modules()] and names == [n for n, _ in model.named_modules()]
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert np.array_equal(states[2][1], np.random.get_state()[1])
    assert linger.settings.current() == settings and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("platform", EXPECTED)
def test_export_refuses_by_the_same_rules(platform, tmp_path):
    model = linger.init(Net(), configured(tmp_path, platform), example_inputs=X)
    model(X)
    refused = [str(v) for v in linger.check(model, platform, X) if v.refused]
    with pytest.raises(ExportError, match=rf"{platform} cannot run {len(refused)} layer\(s\)") as error:
        linger.onnx.export(model, X, tmp_path / "m.onnx")
    assert refused and all(text in str(error.value) for text in refused)


def test_init_tells_what_the_layers_break(tmp_path, caplog):
    model = linger.init(nn.Sequential(nn.Conv2d(1, 2, 7, 3), nn.Conv2d(2, 2, 7, 3)), configured(tmp_path, "venus"))
    notes = linger.convert.report_of(model).notes
    assert any(note.startswith("0, 1: kernel 7, the chip takes 1..5 (") for note in notes)
    assert "kernel 7, the chip takes 1..5" in caplog.text


def test_without_inputs_the_layers_are_looked_at():
    report = linger.check(Net(), "arcs")
    assert found(report) == {(layer, what) for layer, what in ARCS if what not in ("batch", "input rows")}
    assert "example_inputs" in report.notes[0]


def test_a_net_that_fits(tmp_path):
    net, x = (
        nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 4)),
        X[:1, :1, :8, :8],
    )
    report = linger.check(net, "arcs", x)
    assert report.ok and len(report) == 0 and str(report) == "linger.check, arcs: 0 error(s), 0 warning(s)"
    model = linger.init(net, configured(tmp_path, "arcs"), example_inputs=x)
    model(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert (
        linger.check(tmp_path / "m.onnx", "mars").ok
        and linger.check((tmp_path / "m.onnx").read_bytes()).platform == "arcs"
    )


def test_the_report_prints_and_converts():
    report = linger.check(Net(), "arcs", X)
    text, page, plain = str(report), report._repr_html_(), report.to_dict()
    assert "weight per output channel" in text and f"{len(report.errors)} error(s)" in text
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    for v in report:  # by layer, each once
        assert flat.count(v.sentence()) == 1 and page.count(html.escape(v.sentence())) == 1
    assert text.splitlines().count("wide") == 1
    assert plain["ok"] is False and plain["platform"] == "arcs" and len(plain["findings"]) == len(list(report))
    assert {"layer", "what", "value", "limit", "remedy", "severity"} <= set(plain["findings"][0])
    assert [v.severity for v in report] == sorted(v.severity for v in report)
    assert all(v.remedy for v in report)


def test_what_has_no_form_is_a_finding_too():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 9, 3), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return self.b(torch.linalg.svdvals(y[:, :, 0]) + y.mean((2, 3)))

    report = linger.check(Odd(), "arcs", X)
    assert not report.ok and {("a", "kernel"), ("(model)", "no form in a file")} <= found(report)


def test_float_operators_are_the_users_calls_with_their_cause(tmp_path):
    class Islands(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.GroupNorm(1, 3), nn.Linear(3, 3)
            self.register_buffer("fixed", torch.randn(3, 3))

        def forward(self, x):
            y = torch.sigmoid(F.gelu(self.norm(x)))
            return self.layer(torch.round(F.linear(y, self.fixed).add_(1)).mean((2,)))

    x = torch.randn(1, 3, 3)
    report = linger.check(Islands(), "arcs", x)
    why = {v.value: v.limit.split(": ")[0] for v in report if v.what == "float operator"}
    assert why == {
        "group_norm": "no chip computes it",
        "gelu": "its operand is float",
        "sigmoid": "its operand is float",
        "linear": "it is called as a function, or its layer was left in float",
        "add": "its operand is float",
        "round": "no chip computes it",
        "mean": "its operand is float",
    }
    assert len({(v.layer, v.value) for v in report}) == len(report), "one row for a call, whatever it is written as"
    model = linger.init(Islands(), configured(tmp_path, "arcs"), example_inputs=x)
    model(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert {"group_norm.Mul", "gelu.Erf"} <= {v.layer for v in linger.check(tmp_path / "m.onnx")}


def test_an_operator_that_this_chip_lacks_is_told_from_one_with_a_float_operand():
    net, x = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Sigmoid()), torch.randn(1, 2)
    rows = [(v.value, v.limit.split(": ")[0]) for v in linger.check(net, "venus", x)]
    assert rows == [("gelu", "venus does not compute this form"), ("sigmoid", "its operand is float")]


def test_keyword_inputs_and_a_bare_layer():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 6, 3)

        def forward(self, x, *, gain):
            return self.a(x) * gain

    inputs = {"x": X[:1], "gain": torch.ones(1, 4, 31, 31)}
    assert ("a", "kernel") in found(linger.check(Two(), "arcs", inputs))
    assert [v.what for v in linger.check(nn.Conv2d(1, 1, 6, 3), "venus", X[:1, :1])] == ["kernel", "stride"]


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="platform must be one of arcs, mars, venus, venusA, got 'jupiter'"):
        linger.check(Net(), "jupiter", X)
    with pytest.raises(ValueError, match="example_inputs: the model does not run on them"):
        linger.check(Net(), "arcs", X[:, :2])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module or a file, got int"):
        linger.check(3)
    model = linger.init(nn.Linear(2, 2), configured(tmp_path, "arcs"))
    with pytest.raises(ValueError, match="check: the model does not run on example_inputs"):
        linger.check(model, "arcs", X)
    with pytest.raises(RuntimeError, match="check: the part '1' is initialised"):
        linger.check(nn.Sequential(nn.Linear(2, 2), model), "arcs")
    model(torch.randn(1, 2))
    linger.onnx.export(model, torch.randn(1, 2), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="the file is written for arcs, not for venus"):
        linger.check(tmp_path / "m.onnx", "venus")


def test_sums_are_written_so_that_the_order_of_operands_is_no_hazard():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return x + self.a(x) * 0.001

    torch.manual_seed(0)
    assert "scale_y" not in {v.what for v in linger.check(Residual(), "arcs", torch.randn(1, 2, 4, 4))}


@pytest.mark.parametrize(
    ("layer", "shape", "platform"),
    [
        (lambda: nn.Conv2d(2, 3, 3, padding=8, dilation=4), (1, 2, 9, 9), "arcs"),
        (lambda: nn.Conv2d(2, 3, 3, padding=(0, 8), dilation=8), (1, 2, 20, 9), "venusA"),
        (lambda: nn.Conv1d(2, 3, 3, padding=8, dilation=8), (1, 2, 9), "arcs"),
        (lambda: nn.Conv1d(2, 3, 3, padding=5), (1, 2, 9), "venus"),
        (lambda: nn.Conv1d(2, 3, 3, padding=2, dilation=2), (1, 2, 9), "venus"),
        (lambda: nn.Conv2d(2, 3, (3, 2), dilation=(2, 3), stride=(2, 1)), (1, 2, 9, 9), "venus"),
        (lambda: nn.Conv2d(2, 3, (2, 3), dilation=(3, 1)), (1, 2, 9, 9), "venusA"),
        (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), (1, 4, 6, 6), "venus"),
        (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), (4, 6, 6), "venus"),
    ],
)
def test_what_the_layers_node_cannot_do_is_written_otherwise(layer, shape, platform, tmp_path):
    x = torch.randn(shape)
    assert linger.check(layer(), platform, x).ok
    model = linger.init(nn.Sequential(layer()), configured(tmp_path, platform), example_inputs=x)
    model.train()(x)
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, want.numpy()) and linger.check(tmp_path / "m.onnx").ok


def test_export_warns_of_what_depends_on_the_application(tmp_path, caplog):
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 300)), X[:, :1, :28, :28]
    model = linger.init(net, configured(tmp_path, "arcs"))
    model(x)
    with pytest.warns(
        UserWarning, match=r"exported with a batch of 2: 0: batch 2: arcs computes only the first sample \("
    ):
        linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert "2: parameter 405600 bytes: the shared memory has 393216 bytes" in caplog.text


def test_the_parameters_of_a_model_together():
    net = nn.Sequential(*[nn.Linear(1200, 1200, bias=False) for _ in range(6)])
    (found,) = (v for v in linger.check(net, "venus", torch.randn(1, 1200)) if v.what == "parameters")
    assert (found.value, found.severity, found.refused) == (f"{6 * 1200 * 1200} bytes", "error", False)
    tied = nn.Sequential(*[net[0]] * 6)
    for engine, found in (("later", False), ("562ddc7", True)):  # the shipped engine needs a copy for every use
        what = {v.what for v in linger.check(tied, "venus", torch.randn(1, 1200), engine)}
        assert ("parameters" in what) == found


WRONG = [b"text", [], [-1], [0, 0, 0, 0, 0, 0, 0, 0, 0], 2**40, -1, 0.5, float("nan")]


@pytest.mark.parametrize(
    "name", ["Conv2dInt/k3_pad1_bias", "AvgPool2dInt/k2_s2", "iqCat/same_scale", "LSTMInt/forward_t6"]
)
def test_a_file_of_nonsense_gives_a_report(name):
    case = next(c for c in CASES if c.id == f"arcs/{name}")
    for at in range(30):
        for value in WRONG:
            model = onnx.load_from_string(case.model)
            places = [(n, a) for n in model.graph.node for a in n.attribute]
            if at >= len(places):
                return
            node, attribute = places[at]
            key = attribute.name
            node.attribute.remove(attribute)
            node.attribute.append(onnx.helper.make_attribute(key, value, attr_type=None if value != [] else 7))
            try:
                report = linger.check(model.SerializeToString())
            except linger.onnx.ModelError:
                continue
            assert isinstance(str(report), str)


def test_chips_by_enum_member_and_arguments_in_another_order():
    model, x = nn.Conv2d(1, 2, 7), torch.randn(1, 1, 9, 9)
    assert linger.check(model, linger.settings.PlatForm.venus).platform == "venus"
    with pytest.raises(ValueError, match=r"platform must be one of .*, got 'jupiter'"):
        linger.check(model, linger.settings.PlatForm.jupiter)
    for args in (("venus", model, x), (model, x), (model, x, "venus")):
        with pytest.raises(
            TypeError, match=r"platform must be a chip's name, got \w+; the order is check\(model, platf"
        ):
            linger.check(*args)


def test_a_float_model_is_looked_at_by_its_ranges_whatever_trains_it():
    from linger import settings

    net, x = nn.GRU(6, 8, batch_first=True), torch.randn(1, 5, 6)
    reports = []
    for method in ("MOM", "TQT"):
        settings.use(settings.loads(f"platform: venus\nquant_info: {{qat_method: {method}}}\n"))
        reports.append(linger.check(net, "venus", x).findings)
    assert reports[0] == reports[1] and reports[0]
