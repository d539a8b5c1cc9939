"""The PyTorch form: conversion, training, calibration, and every silent trap."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dopt import config
from dopt.dopt_torch import layers
from dopt.dopt_torch.opt_main import (
    generate_config_file,
    get_quant_loss,
    optimize_model,
    set_calibrate_state,
)

Configured = Callable[..., str]
NAMES = ["conv1/Conv2D", "block/0/Conv2D", "plain/Conv2D", "fc/MatMul", "head/MatMul"]
ROOT = Path(__file__).resolve().parents[2]


def batch(seed: int = 0, n: int = 8) -> torch.Tensor:
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def test_the_template_lists_every_layer_in_order_and_leaves_the_model(net: nn.Module, folder: Path) -> None:
    before = copy.deepcopy(net.state_dict())
    net.train()
    generate_config_file(net, "x:1,3,12,12")
    content = json.loads(Path("config_gen.json").read_text())
    assert list(content["layer_strategy"]) == NAMES
    assert content["input_shape"] == "x:1,3,12,12"
    assert content["layer_strategy"]["fc/MatMul"] == {
        "op_type": "<class 'torch.nn.modules.linear.Linear'>",
        "quant_strategy": "float",
    }
    assert "quant_strategy_for op '<class 'torch.nn.modules.conv.Conv2d'>'" in content
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_conversion_is_in_place_and_keeps_parameters_and_keys(net: nn.Module, configured: Configured) -> None:
    path = configured(net, "conv1", "fc")
    before, keys = dict(net.named_parameters()), set(net.state_dict())
    model = optimize_model(net, path)
    assert model is net
    assert list(layers.quantized_layers(model)) == ["conv1/Conv2D", "fc/MatMul"]
    assert all(p is before[name] for name, p in model.named_parameters())
    assert set(model.state_dict()) - keys == {"conv1.input_range.state", "fc.input_range.state"}
    assert type(model.block[0]) is nn.Conv2d


def test_the_weight_is_on_one_grid_behind_the_batch_norm(net: nn.Module, configured: Configured) -> None:
    net.bn1.weight.data[2] = 0.0  # a dead channel
    model = optimize_model(net, configured(net))
    layer, bn = model.conv1, model.bn1
    s = torch.rsqrt(bn.running_var + bn.eps) * bn.weight
    s[2] = 1.0
    on_grid = layer.quantized_weight() * s.reshape(-1, 1, 1, 1)
    e = layers.ops.fake_quantize_weight(layer.weight * s.reshape(-1, 1, 1, 1))[1]
    codes = on_grid * e
    assert torch.allclose(codes, codes.round(), atol=1e-4) and codes.abs().max() <= 128
    assert layer._bn[0] is bn and model.plain._bn == ()


def test_only_the_operands_are_quantized(net: nn.Module, configured: Configured) -> None:
    path = configured(net, "plain", "fc")
    model = optimize_model(net, path)
    x = torch.randn(4, 12, 5, 5)
    value = layers.ops.fake_quantize(x, torch.zeros(42))
    weight = layers.ops.fake_quantize_weight(model.plain.weight)[0]
    assert torch.equal(model.plain(x), nn.functional.conv2d(value, weight, model.plain.bias))
    rows = torch.randn(4, 7, 6)
    value = layers.ops.fake_quantize(rows, torch.zeros(42))
    weight = layers.ops.fake_quantize_weight(model.fc.weight)[0]
    assert torch.equal(model.fc(rows), nn.functional.linear(value, weight, model.fc.bias))


def test_ranges_move_in_training_only(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net))
    state = model.conv1.input_range.state
    model.eval()(batch())
    assert not state.any()
    model.train()(batch())
    peak = batch().abs().max()
    assert state[0] == peak
    model(batch(1))
    assert state[0] == 0.9 * peak + 0.1 * batch(1).abs().max()


def test_training_moves_every_parameter(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    before = copy.deepcopy(model.state_dict())
    losses = []
    for _ in range(60):
        loss = (model(batch()) - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    still = [name for name, p in model.named_parameters() if torch.equal(before[name], p)]
    assert set(still) <= {"block.0.bias"}  # the BatchNorm behind takes it away


def test_quant_loss_needs_no_forward_and_is_zero_on_the_grid(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net, "plain", "head"))
    loss = get_quant_loss(model)
    want = sum(
        (layer.weight - layers.ops.fake_quantize_weight(layer.weight)[0]).square().sum()
        for layer in (model.plain, model.head)
    )
    assert loss.dim() == 0 and torch.allclose(loss, want)
    loss.backward()
    w = model.plain.weight
    assert torch.allclose(w.grad, 2 * (w - layers.ops.fake_quantize_weight(w.detach())[0]))
    assert model.conv1.weight.grad is None
    with torch.no_grad():
        for layer in (model.plain, model.head):
            layer.weight.copy_(layers.ops.fake_quantize_weight(layer.weight)[0])
    assert get_quant_loss(model) == 0


def test_calibration_moves_ranges_in_eval_and_gives_the_modes_back(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net)).train()
    model.bn1.eval()  # frozen by the user
    statistics = model.block[1].running_mean.clone()
    set_calibrate_state(model, True)
    assert not model.training
    for seed in range(3):
        out = model(batch(seed))
    assert torch.equal(out, model.eval()(batch(2)))  # they count at once; the same batch again changes no exponent
    assert model.fc.input_range.state[1] == 4
    set_calibrate_state(model, calibration_mode=False)
    assert model.training and not model.bn1.training and model.conv1.input_range.training
    assert torch.equal(statistics, model.block[1].running_mean)
    state = model.fc.input_range.state.clone()
    model.eval()(batch(5))
    assert torch.equal(state, model.fc.input_range.state)


def test_the_calibration_flag_stays_out_of_checkpoints_and_copies(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net))
    set_calibrate_state(model, True)
    assert not any("calib" in key for key in model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not other.conv1.input_range.calibrating and model.conv1.input_range.calibrating
        assert other.conv1._bn[0] is other.bn1
        assert torch.equal(other(batch()), model(batch()))


def test_a_checkpoint_resumes_bit_for_bit(net: nn.Module, configured: Configured) -> None:
    fresh, path = copy.deepcopy(net), configured(net)
    model = optimize_model(net, path).train()
    for seed in range(3):
        model(batch(seed))
    torch.save(model.state_dict(), "quant.pth")
    again = optimize_model(fresh, path)
    again.load_state_dict(torch.load("quant.pth"))
    assert torch.equal(again.eval()(batch(7)), model.eval()(batch(7)))


def test_nan_moves_no_range_and_stays(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net, "conv1")).train()
    model(batch())
    state, x = model.conv1.input_range.state.clone(), batch()
    x[0, 0, 0, 0] = float("nan")
    assert model.conv1(x).isnan().all()
    assert torch.equal(model.conv1.input_range.state, state)


def test_half_precision_and_other_devices_keep_the_ranges_in_float32(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net)).train()
    model(batch())
    before = model.conv1.input_range.state.clone()
    model.bfloat16()
    assert torch.equal(model.conv1.input_range.state, before)
    assert model.eval()(batch().bfloat16()).dtype == torch.bfloat16
    assert model.to("meta").conv1.input_range.state.is_meta


def test_repr_shows_what_a_layer_computes_with(net: nn.Module, configured: Configured) -> None:
    model = optimize_model(net, configured(net, "plain"))
    assert "(plain): QuantConv2d(" in repr(model) and "Range(no data yet)" in repr(model)
    model.plain.train()(torch.full((1, 12, 2, 2), 2.0))
    assert "Range(8 bits, scale 2**-6)" in repr(model)


@pytest.mark.parametrize("peak", [1e-6, 0.03, 1.0, 1.42, 255.0, 1e7])
def test_the_exponent_is_the_nearest(peak: float) -> None:
    r = layers.Range()
    r.train()(torch.tensor([peak]))
    e = r.exp2()
    assert e is not None and -16 <= e <= 23
    if e < 23:
        assert 2**-0.5 <= peak / 2.0 ** (7 - e) <= 2**0.5


class Branches(nn.Module):
    """A user's subclass, a module under two names, tokens as input, and what stays float."""

    class Own(nn.Linear):
        def extra(self) -> int:
            return self.in_features

    class Other(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 8)
        self.own = Branches.Own(8, 8)
        self.again = self.own
        self.other = Branches.Other(1, 1, 1)
        self.one = nn.Conv1d(1, 1, 1)

    def forward(self, tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.own(self.tokens(tokens))).sum() + self.other(x).sum()


def test_subclasses_shared_modules_and_tokens(folder: Path) -> None:
    model = Branches()
    generate_config_file(model, "tokens:1,5; x:1,1,4,4")
    content = json.loads(Path("config_gen.json").read_text())
    assert list(content["layer_strategy"]) == ["own/MatMul"]
    content["layer_strategy"]["own/MatMul"]["quant_strategy"] = "Quant_INT8-8"
    Path("config_gen.json").write_text(json.dumps(content))
    optimize_model(model, "config_gen.json")
    assert isinstance(model.own, layers.QuantLinear) and model.own.extra() == 8 and model.again is model.own
    assert pickle.loads(pickle.dumps(model)).own.extra() == 8


def test_refusals_of_models(net: nn.Module, configured: Configured) -> None:
    path = configured(net)
    for call in (lambda m: generate_config_file(m, "x:1,3,12,12"), lambda m: optimize_model(m, path)):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
            call("net")
        with pytest.raises(TypeError, match=r"wrapped in DataParallel; give the unwrapped model \(model.module\)"):
            call(nn.DataParallel(net))
    with pytest.raises(ValueError, match="the model has no Conv2d or Linear"):
        generate_config_file(nn.ReLU(), "x:1,3")
    with pytest.raises(
        ValueError, match=r"generate_config_file: the model does not run on input_shape 'x:1,4,12,12': Runtime"
    ):
        generate_config_file(net, "x:1,4,12,12")
    model = optimize_model(net, path)
    with pytest.raises(ValueError, match="optimize_model: the model is optimized already"):
        optimize_model(model, path)
    with pytest.raises(ValueError, match="generate_config_file: the model is optimized already"):
        generate_config_file(model, "x:1,3,12,12")


@pytest.mark.parametrize(
    "text", ["", "x", "x:", "x:1,3,,2", "x:0,3", "1,3,224,224", "x:1 3", "x:1,3;;y:2", "x:1;x:2", None, "x\uff1a1,3"]
)
def test_refused_input_shapes(net: nn.Module, folder: Path, text: Any) -> None:
    with pytest.raises(ValueError, match=r"input_shape: "):
        generate_config_file(net, text)


def test_refusals_of_states(net: nn.Module, configured: Configured) -> None:
    path = configured(net, "nothing")
    with pytest.warns(
        UserWarning, match="config.json: no layer has the strategy 'Quant_INT8-8'; the model stays in float"
    ):
        model = optimize_model(net, path)
    for call in (get_quant_loss, lambda m: set_calibrate_state(m, True)):
        with pytest.raises(ValueError, match="no layer of the model is quantized; call optimize_model with a file"):
            call(model)
        with pytest.raises(TypeError, match="expected the model that optimize_model returned, got OrderedDict"):
            call(model.state_dict())
    with pytest.raises(TypeError, match="calibrate_mode must be True or False, got NoneType"):
        set_calibrate_state(model)


def test_an_old_optimizer_still_holds_the_parameters(net: nn.Module, configured: Configured) -> None:
    """The document asks for an optimizer of quant_model; since conversion is in place, an older one is no trap."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    model = optimize_model(net, configured(net)).train()
    before = model.conv1.weight.clone()
    model(batch()).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, model.conv1.weight)


def test_a_file_without_input_shape_reads_the_code(net: nn.Module, configured: Configured) -> None:
    content = json.loads(Path(configured(net)).read_text())
    del content["input_shape"]
    Path("config.json").write_text(json.dumps(content))
    assert optimize_model(net, "config.json").conv1._bn == (net.bn1,)


def test_another_models_file_is_refused(net: nn.Module, configured: Configured) -> None:
    path = configured(net)
    with pytest.raises(
        config.ConfigError, match="layer 'conv1/Conv2D' is not a layer of the model that can be quantized; the"
    ):
        optimize_model(nn.ReLU(), path)


@pytest.mark.parametrize("paths", [["dopt_pytorch_py3"], ["dopt_tf_py3", "dopt_pytorch_py3"], ["."]])
def test_the_documents_folders_lead_to_the_package(folder: Path, paths: list[str]) -> None:
    script = f"""
import sys
sys.path += {[*(str(ROOT / p) for p in paths), str(ROOT)]!r}
import dopt
assert not {{"torch", "linger", "tensorflow"}} & set(sys.modules)
from dopt.dopt_torch.opt_main import optimize_model
import dopt.config
assert dopt.config.__file__ == {str(ROOT / "dopt" / "config.py")!r}, dopt.config.__file__
print(dopt.__doc__)
"""
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Plug-in quantization" in result.stdout
