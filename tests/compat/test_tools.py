"""Tools for weights, layers and files."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.checker.onnxrunner import OnnxRunner


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


X = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = linger.init(Net())
    with linger.calibration(net):
        net(X)
    return net.eval()


@pytest.fixture
def exported(model, tmp_path):
    linger.onnx.export(model, X[:1], tmp_path / "m.onnx", input_names=["x"], output_names=["y"])
    return tmp_path / "m.onnx"


def test_wb_analyse_marks_what_stands_out(tmp_path):
    net = Net()
    with torch.no_grad():
        net.fc.weight.zero_()[0, 0] = 5.0
        net.conv.weight.fill_(0.1)
    text = linger.wb_analyse(net.state_dict(), tmp_path / "wb.log")
    assert (tmp_path / "wb.log").read_text() == text
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "Layer_name" and "Versu(Max/Dynamic)" in lines[0]
    at = next(i for i, line in enumerate(lines) if line.startswith("conv.weight"))
    assert not lines[at + 1].startswith("!")
    net.fc.weight.data[:] = 0.01
    net.fc.weight.data[0, 0] = 5.0
    torch.save(net.state_dict(), tmp_path / "m.pt")
    lines = linger.wb_analyse(tmp_path / "m.pt", tmp_path / "wb.log").splitlines()
    assert any(line.startswith("fc.weight") for line in lines)


def test_dumper_writes_codes_and_values(model, tmp_path):
    with linger.Dumper() as dumper:
        dumper.enable_dump_quanted(model, path=str(tmp_path / "q"))
        dumper.enable_dump_model(model, path=str(tmp_path / "f"), match_pattern="^fc$")
        dumper.analyse_layer_output(model)
        model(X)
        text = dumper.save_out_analyse_log(tmp_path / "out.log")
    codes = np.load(tmp_path / "q" / "root.conv_output_quanted.npy")
    assert codes.dtype == np.int32 and np.abs(codes).max() <= 128
    values = np.load(tmp_path / "f" / "root.fc_output_float.npy")
    assert np.array_equal(values, model(X).detach().numpy())
    assert not list((tmp_path / "f").glob("root.conv*"))
    assert "conv" in text and (tmp_path / "out.log").read_text() == text
    before = sorted(p.name for p in tmp_path.rglob("*"))
    model(X)  # the hooks are gone
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_the_3_x_runner(exported, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("keep")
    runner = OnnxRunner(str(exported), dump=True, dump_format="all")
    (y,) = runner.run(X[:1])
    assert np.array_equal(y, model(X[:1]).detach().numpy())
    assert list(runner.run({"x": X[:1]}, out_type="dict")) == ["y"]
    assert np.array_equal(runner.run(X[:1], special_key="y"), y)
    assert (tmp_path / "data" / "mine.txt").read_text() == "keep"
    assert len(list((tmp_path / "data").glob("*.npy"))) > 2
    for call, message in (
        (lambda: runner.run(X[:1], out_type="set"), "out_type must be"),
        (lambda: runner.run(X[:1], special_key="z"), "special_key must be one of y, got 'z'"),
        (lambda: OnnxRunner(str(exported), dump_format="hex"), "dump_format must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="give the file once"):
        OnnxRunner()


def test_missing_dequants_are_inserted(exported, model):
    import onnx

    graph = onnx.load(exported)
    last = next(n for n in graph.graph.node if n.op_type == "Dequant" and n.output[0] == "y")
    for node in graph.graph.node:
        node.output[:] = ["y" if name == last.input[0] else name for name in node.output]
    graph.graph.node.remove(last)
    broken = exported.with_name("broken.onnx")
    onnx.save(graph, broken)
    fixed = linger.fix_dequant(broken, is_check=True)
    assert fixed.endswith("broken_fix.onnx")
    (y,) = linger.onnx.OnnxRunner(fixed).run(X[:1]).values()
    assert np.array_equal(y, model(X[:1]).detach().numpy())
    again = linger.parser_dequant(onnx.load(exported))
    assert again.SerializeToString() == onnx.load(exported).SerializeToString()
    integers = linger.parser_dequant(str(broken), is_change_in_out_type=True)
    assert integers.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.INT8


def test_a_float_file_with_fixed_scales(tmp_path):
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 0.3, (4, 1, 3, 3)).astype("f"), rng.normal(0, 0.3, 4).astype("f")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "c", kernel_shape=[3, 3], pads=[0, 0, 0, 0], strides=[1, 1],
                         dilations=[1, 1], group=1),
        helper.make_node("Relu", ["c"], ["r"], "r"),
        helper.make_node("Add", ["r", "r"], ["y"], "a"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, 6, 6])],
        [helper.make_tensor_value_info("y", 1, [1, 4, 4, 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7), tmp_path / "f.onnx")
    path = linger.onnx_quant(tmp_path / "f.onnx", ["Conv", "Add"])
    (y,) = linger.onnx.OnnxRunner(path).run(X[:1]).values()
    conv = torch.nn.functional.conv2d(X[:1], torch.from_numpy(weight), torch.from_numpy(bias))
    assert np.abs(y - 2 * conv.relu().numpy()).max() < 0.3
    with pytest.raises(ValueError, match="'Gelu' has no integer form"):
        linger.onnx_quant(tmp_path / "f.onnx", "Gelu")
    with pytest.raises(ValueError, match="platform_quant must be luna_quant"):
        linger.onnx_quant(tmp_path / "f.onnx", "Conv", platform_quant="x")


def test_redirected_export_reaches_converted_models_only(model, tmp_path):
    original = torch.onnx.export
    with linger.compat.redirect_torch_onnx_export():
        torch.onnx.export(model, X[:1], tmp_path / "m.onnx", opset_version=12, do_constant_folding=True)
        assert torch.onnx.export is not original
    assert torch.onnx.export is original
    assert (tmp_path / "m.onnx").stat().st_size > 0
    seen = []
    torch.onnx.export = lambda *a, **k: seen.append(a)  # what other models get
    try:
        with linger.compat.redirect_torch_onnx_export():
            torch.onnx.export(Net(), X[:1], "f.onnx")
        assert len(seen) == 1
    finally:
        torch.onnx.export = original
