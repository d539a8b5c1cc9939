"""Classic checkpoints: keys of quantizers and operators; half loads and files that are none are errors."""

import collections
import io
import zipfile

import pytest
import torch
from torch import nn

import linger


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc, self.lstm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.LSTM(4, 3)

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        z = torch.cat([y + self.fc(y), torch.sigmoid(y)], 1)[:, 2:6]
        return self.lstm(z.unsqueeze(0))[0]


X = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def trained():
    torch.manual_seed(0)
    net = Net()
    linger.trace_layers(net, net, X)
    linger.init(net, example_inputs=X)
    with linger.calibration(net):
        net(X)
    return net.eval()


def as_classic(net) -> dict:
    """The state of a model of ours under the classic generation's keys, as that wrote it."""
    state = {}
    letters = {"input": "x", "weight": "w", "output": "o"}
    recurrent = {"input": "i", "hidden": "h", "weightih": "iw", "weighthh": "hw", "output": "o"}
    counts = collections.Counter()
    for name, m in net.named_modules():
        kind = type(m).__name__
        if kind in ("Conv2dInt", "LinearInt", "LSTMInt"):
            for child, letter in (recurrent if kind == "LSTMInt" else letters).items():
                q = getattr(m, f"{child}_quantizer")
                state[f"{name}.running_{letter}"] = q.running_data.reshape(1).clone()
                state[f"{name}.scale_{letter}"] = q.scale.reshape(1).clone()
        elif "_linger_qtensor_" in name and hasattr(m, "output_quantizer"):
            op = name.rpartition("_linger_qtensor_q")[2].rpartition("_")[0]
            middle = {"add": "iqadd__default_index", "cat": "iqcat", "sigmoid": "iqsigmoid"}.get(op)
            if middle is not None:
                key = f"_linger_round_tensor_{middle}_{counts[op]}"
                state[f"{key}.running_o"] = m.output_quantizer.running_data.reshape(1).clone()
                state[f"{key}.scale_o"] = m.output_quantizer.scale.reshape(1).clone()
                counts[op] += 1
    parameters = {n: p.detach().clone() for n, p in net.named_parameters()}
    return parameters | state


@pytest.mark.parametrize("how", ["load_state_dict", "load"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_classic_keys_load_strictly(how, prefix, tmp_path):
    net = trained()
    state = {prefix + k: v for k, v in as_classic(net).items()}
    fresh = Net()
    linger.trace_layers(fresh, fresh, X)
    linger.init(fresh)
    if how == "load":
        torch.save({"model": state}, tmp_path / "m.pt")
        linger.load(fresh, tmp_path / "m.pt")
    else:
        fresh.load_state_dict(state)
    for name in ("conv", "fc"):
        for child in ("input_quantizer", "weight_quantizer", "output_quantizer"):
            a, b = getattr(getattr(net, name), child), getattr(getattr(fresh, name), child)
            assert torch.equal(a.scale, b.scale) and torch.equal(a.running_data, b.running_data)
    assert torch.equal(net.lstm.hidden_quantizer.scale, fresh.lstm.hidden_quantizer.scale)
    assert any("qcat" in n for n, _ in fresh.named_modules()) and any("qadd" in n for n, _ in fresh.named_modules())
    y = fresh.eval()(X)
    assert torch.equal(y, net(X))


class Rest(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.limit, self.pool, self.lstm = nn.LayerNorm(6), nn.ReLU6(), nn.AvgPool2d(2), nn.LSTM(3, 4)
        self.add = linger.iqAddLayer()

    def forward(self, x):
        y = self.pool(x.exp())
        y = self.lstm(self.limit(y).flatten(1, 2)[:, :3].flatten(2))[0] + linger.quant_tensor(
            self, x.exp().mean(), name="own"
        )
        return self.norm(self.add(y, y).repeat(1, 1, 2)[..., :6])


def test_values_that_nothing_needs_are_named_and_the_others_taken(tmp_path):
    model = linger.init(Rest(), example_inputs=X)
    with linger.calibration(model):
        model(X)
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    keys = "norm.running_x norm.scale_x norm.running_normal norm.scale_normal limit.min_thresh limit.max_thresh pool.running_x"
    keys += " pool.running_o lstm.running_i lstm.running_io add.running_o _linger_round_tensor_iq_tensor_quant_own.running_o"
    keys += " _linger_round_tensor_iqadd__default_index_0.running_o _linger_round_tensor_iqmul__default_index_0.y"
    state = parameters | {k: torch.tensor([3.0]) for k in keys.split()}
    torch.save(state, tmp_path / "m.pt")
    fresh = Rest()
    linger.init(fresh, example_inputs=X)
    linger.load(fresh, tmp_path / "m.pt")
    said = str(linger.load_report(fresh))
    (left,) = [line for line in said.splitlines() if "left out" in line]
    named = "norm.running_normal norm.scale_normal limit.min_thresh limit.max_thresh pool.running_o lstm.running_io"
    for key in (*named.split(), "_linger_round_tensor_iqmul__default_index_0.y"):
        assert key in left
    assert "norm.running_x" not in left and "took running_* and scale_* of 4 classic layers" in said
    assert float(fresh.norm.input_quantizer.running_data) == 3.0
    quantizers = {n: m for n, m in fresh.named_modules() if hasattr(m, "running_data")}
    for part in ("pool._linger_qtensor_qavg_pool_0.input_quantizer.0", "add._linger_qtensor_qadd_0.output_quantizer"):
        assert float(quantizers[part].running_data) == 3.0
    assert any("quant_tensor" in n and float(q.running_data) == 3.0 for n, q in quantizers.items())


def test_running_values_stay_inspectable():
    net = trained()
    assert net.conv.output_quantizer.running_data > 0 and net.conv.output_quantizer.scale > 0


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        return torch.sigmoid(y) + torch.sigmoid(y + y)


@pytest.mark.parametrize("kept", [0, 1])
def test_half_of_the_operators_is_an_error_that_counts(kept):
    model = linger.init(Two(), example_inputs=torch.randn(2, 4))
    state = dict(model.state_dict())  # a plain dictionary: the places of the operators are dropped
    sigmoids = sorted({k.split(".")[0] for k in state if "qsigmoid" in k})
    half = {k: v for k, v in state.items() if not k.startswith(sigmoids[kept])}
    with pytest.raises(linger.UnsupportedError, match="has 2 operators `sigmoid`, the checkpoint has the state of 1"):
        model.load_state_dict(half)
    without = {k: v for k, v in state.items() if "qtensor" not in k}
    model.load_state_dict(without)  # a checkpoint of the float stage has none of them


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("a.txt", "b")
    return data.getvalue()


def saved(value) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


BAD = {
    "text": (b"hello, this is no checkpoint\n", ValueError, "is no checkpoint"),
    "empty": (b"", ValueError, "is no checkpoint"),
    "zip": (zipped(), ValueError, "is no checkpoint"),
    "pickle": (b"\x80\x04\x95\x05\x00\x00\x00", ValueError, "is no checkpoint"),
    "cut": (saved({"a": torch.zeros(100)})[:200], ValueError, "is no checkpoint"),
    "strings": (saved({"a.weight": "x", "a.bias": "y"}), TypeError, "no state dictionary"),
    "numbers": (saved({"epoch": 3, "loss": 0.5}), TypeError, "no state dictionary"),
    "mixed": (saved({"a.weight": torch.zeros(4, 4), "a.bias": "y"}), TypeError, "'a.bias' is str, not a tensor"),
    "list": (saved([torch.zeros(1)]), TypeError, "list"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("how", ["load_state_dict", "load", "wb_analyse", "migrate"])
def test_what_is_no_checkpoint_is_said(name, how, tmp_path):
    content, error, message = BAD[name]
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    model = linger.init(Two())
    calls = {
        "load_state_dict": lambda: model.load_state_dict(str(path)),
        "load": lambda: linger.load(model, path),
        "wb_analyse": lambda: linger.wb_analyse(path, tmp_path / "log"),
        "migrate": lambda: linger.migrate(path),
    }
    with pytest.raises(error, match=message):
        calls[how]()


def test_near_names_are_suggested():
    model = linger.init(Two())
    state = dict(model.state_dict())
    state["a.wieght"] = state.pop("a.weight")
    with pytest.raises(RuntimeError, match=r"a\.wieght"):
        model.load_state_dict(state)


def test_migrate_names_what_a_checkpoint_becomes(tmp_path):
    torch.save(as_classic(trained()), tmp_path / "classic.pt")
    said = str(linger.migrate(tmp_path / "classic.pt"))
    assert "running_* and scale_* of layers" in said and "_linger_qtensor_qadd_<n>" in said
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "float.pt")
    assert str(linger.migrate(tmp_path / "float.pt")).endswith("nothing to change")


SCRIPT = """
import torch, linger
linger.trace_layers(net, net, x, fuse_bn=True)
linger.SetIQTensorCat(False)
net = linger.init(net, quant_modules=(torch.nn.Linear,), parameter_bits=8)
torch.onnx.export(net, x, "net.onnx", opset_version=12)
"""


def test_migrate_names_what_a_script_becomes(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    report = linger.migrate(tmp_path / "train.py")
    said = str(report)
    for part in (
        "line 3: linger.trace_layers",
        "operators: {cat: false}",
        "disable_module",
        "redirect_torch_onnx_export",
    ):
        assert part in said
    assert report.to_dict()["kind"] == "script" and len(report.rows) == 5
    (tmp_path / "bad.py").write_text("def f(:\n")
    with pytest.raises(ValueError, match=r"bad\.py, line 1"):
        linger.migrate(tmp_path / "bad.py")
