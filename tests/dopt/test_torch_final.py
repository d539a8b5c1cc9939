"""generate_final_model: the ONNX file is the evaluated model, its weights are on their grids, the parameter file names those."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from dopt import config
from dopt.dopt_torch.opt_main import generate_final_model, optimize_model, set_calibrate_state

Configured = Callable[..., str]


def batch(seed: int = 0, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def trained(net: nn.Module, path: str) -> nn.Module:
    """Calibrated, then a few steps of training, saved as quant.pth."""
    model = optimize_model(net, path)
    set_calibrate_state(model, True)
    model(batch(0, 32))
    set_calibrate_state(model, False)
    optimizer = torch.optim.SGD(model.train().parameters(), 0.02)
    for seed in range(5):
        optimizer.zero_grad()
        model(batch(seed, 16)).square().mean().backward()
        optimizer.step()
    torch.save(model.state_dict(), "quant.pth")
    return model.eval()


def loaded() -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    model = onnx.load("quant_model.onnx")
    onnx.checker.check_model(model, full_check=True)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return model, weights, json.loads(Path("quant_params.json").read_text())


def fake(x: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    return (np.clip(np.floor(x / entry["scale"] + 0.5), -128, 127) * entry["scale"]).astype(np.float32)


def run(model: Any, x: torch.Tensor, params: dict[str, Any]) -> np.ndarray:
    """The file with its activations quantized as the parameter file says: what the chip would compute."""
    quantized = {layer["node"]: layer["input"] for layer in params["layers"].values()}
    work = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = []
    for node in work.graph.node:
        if node.name in quantized:
            entry = quantized[node.name]
            assert node.input[0] == entry["tensor"]
            y = f"{node.name}_quantized"
            one = {"scale": entry["scale"], "half": 0.5, "low": -128.0, "high": 127.0}
            for key, value in one.items():
                work.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), f"{y}_{key}"))
            nodes += [
                onnx.helper.make_node("Div", [node.input[0], f"{y}_scale"], [f"{y}_0"]),
                onnx.helper.make_node("Add", [f"{y}_0", f"{y}_half"], [f"{y}_1"]),
                onnx.helper.make_node("Floor", [f"{y}_1"], [f"{y}_2"]),
                onnx.helper.make_node("Clip", [f"{y}_2", f"{y}_low", f"{y}_high"], [f"{y}_3"]),
                onnx.helper.make_node("Mul", [f"{y}_3", f"{y}_scale"], [y]),
            ]
            node.input[0] = y
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del work.graph.node[:]
    work.graph.node.extend(nodes)
    return ReferenceEvaluator(work).run(None, {"x": x.numpy()})[0]


def test_the_file_is_the_evaluated_model(net: nn.Module, configured: Configured) -> None:
    fresh, path = copy.deepcopy(net), configured(net)
    model = trained(net, path)
    untouched = copy.deepcopy(fresh.state_dict())
    generate_final_model(fresh, path)
    assert all(torch.equal(untouched[k], v) for k, v in fresh.state_dict().items()) and type(fresh.conv1) is nn.Conv2d
    file, weights, params = loaded()
    x = batch(9)
    want = model(x).detach().numpy()
    assert np.abs(run(file, x, params) - want).max() <= 1e-5 * np.abs(want).max()  # float32 sums in another order
    float_activations = ReferenceEvaluator(file).run(None, {"x": x.numpy()})[0]
    assert np.abs(float_activations - want).max() <= 0.05 * np.abs(want).max()
    assert not {"BatchNormalization"} & {n.op_type for n in file.graph.node}
    assert [i.name for i in file.graph.input] == ["x"]
    assert list(params["layers"]) == ["conv1/Conv2D", "block/0/Conv2D", "plain/Conv2D", "fc/MatMul", "head/MatMul"]
    for entry in params["layers"].values():
        codes = weights[entry["weight"]["tensor"]] / entry["weight"]["scale"]
        assert np.array_equal(codes, np.rint(codes)) and codes.min() >= -128 and codes.max() <= 127
        assert np.abs(codes).max() >= 64  # the grid fits
        assert entry["weight"]["scale"] == 2.0 ** -entry["weight"]["exp2"]
    assert params["layers"]["block/0/Conv2D"]["weight"]["tensor"] == "block.0.weight"


def test_onnxruntime_runs_the_file(net: nn.Module, configured: Configured) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; `make test-tf` does")
    fresh, path = copy.deepcopy(net), configured(net)
    model = trained(net, path)
    generate_final_model(fresh, path)
    x = batch(9)
    (got,) = runtime.InferenceSession("quant_model.onnx", providers=["CPUExecutionProvider"]).run(
        None, {"x": x.numpy()}
    )
    want = ReferenceEvaluator(onnx.load("quant_model.onnx")).run(None, {"x": x.numpy()})[0]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    assert np.abs(got - model(x).detach().numpy()).max() <= 0.05 * np.abs(want).max()


def test_float_layers_keep_their_weights_and_equal_calls_give_equal_bytes(
    net: nn.Module, configured: Configured
) -> None:
    fresh, path = copy.deepcopy(net), configured(net, "plain")
    model = trained(net, path)
    generate_final_model(fresh, path)
    files = [Path(name).read_bytes() for name in ("quant_model.onnx", "quant_params.json")]
    _, weights, params = loaded()
    assert list(params["layers"]) == ["plain/Conv2D"]
    head = model.head.weight.detach().numpy().T
    assert any(w.shape == head.shape and np.array_equal(w, head) for w in weights.values())
    Path("out").mkdir()
    generate_final_model(fresh, path, "quant.pth", "out")
    assert [Path("out", name).read_bytes() for name in ("quant_model.onnx", "quant_params.json")] == files
    assert sorted(p.name for p in Path("out").iterdir()) == ["quant_model.onnx", "quant_params.json"]


def test_dead_channels_and_a_batch_norm_without_factors(folder: Path, configured: Configured) -> None:
    torch.manual_seed(1)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)
        )

    model = build()
    model[1].weight.data[1] = 0.0
    model(batch(0, 32))
    path = configured(model)
    trained(model, path)
    generate_final_model(build(), path)
    file, _, params = loaded()
    x, want = batch(9), model(batch(9)).detach().numpy()
    assert np.abs(run(file, x, params) - want).max() <= 1e-5 * np.abs(want).max()


def test_checkpoints_of_ddp_are_read(net: nn.Module, configured: Configured) -> None:
    fresh, path = copy.deepcopy(net), configured(net)
    torch.save({f"module.{k}": v for k, v in trained(net, path).state_dict().items()}, "quant.pth")
    generate_final_model(fresh, path)
    assert Path("quant_model.onnx").exists()


def test_refusals(net: nn.Module, configured: Configured) -> None:
    fresh, path = copy.deepcopy(net), configured(net)
    with pytest.raises(FileNotFoundError, match=r"generate_final_model: output_dir 'none' does not exist"):
        generate_final_model(fresh, path, "quant.pth", "none")
    with pytest.raises(FileNotFoundError, match=r"generate_final_model: no checkpoint 'quant.pth'"):
        generate_final_model(fresh, path)
    torch.save(fresh.state_dict(), "quant.pth")
    with pytest.raises(
        ValueError, match=r"missing \['block.0.input_range.state', .* saved before optimize_model, or from another"
    ):
        generate_final_model(fresh, path)
    torch.save(nn.Linear(3, 2).state_dict(), "quant.pth")
    with pytest.raises(ValueError, match=r"checkpoint 'quant.pth' does not fit: .* another model\?"):
        generate_final_model(fresh, path)
    torch.save([1], "quant.pth")
    with pytest.raises(ValueError, match=r"holds a list; save quant_model.state_dict"):
        generate_final_model(fresh, path)
    model = optimize_model(net, path)
    torch.save(model.state_dict(), "quant.pth")
    with pytest.raises(
        ValueError, match=r"layer 'conv1/Conv2D' has seen no data in checkpoint 'quant.pth'; train, or forward"
    ):
        generate_final_model(fresh, path)
    with pytest.raises(ValueError, match=r"the model is optimized already; build the float model anew"):
        generate_final_model(model, path)
    state = model.state_dict()
    state["conv1.weight"] = torch.zeros(8, 3, 5, 5)
    torch.save(state, "quant.pth")
    with pytest.raises(ValueError, match=r"checkpoint 'quant.pth' does not fit: .*size mismatch for conv1.weight"):
        generate_final_model(fresh, path)
    content = json.loads(Path(path).read_text())
    del content["input_shape"]
    Path(path).write_text(json.dumps(content))
    with pytest.raises(config.ConfigError, match=r"config.json: 'input_shape' is missing; the ONNX file needs it"):
        generate_final_model(fresh, path)
    assert not Path("quant_model.onnx").exists() and not Path("quant_params.json").exists()
