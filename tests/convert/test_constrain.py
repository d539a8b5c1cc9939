"""``linger.constrain`` from the user's side."""

import copy
import logging
import pickle
import random

import numpy as np
import pytest
import torch
from convert.nets import Net, Plain, images, no_limits, trained
from torch import nn

import linger
from linger.convert import report_of
from linger.nn.constrained.fused import EmptyBatchNorm, NormalizeConvBN2d, NormalizeLinearBN1d
from linger.nn.constrained.layers import Constrained, NormalizeConv2d, NormalizeLinear
from linger.runtime import base_class


def config(tmp_path, text="platform: venusA\n"):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def test_what_has_no_limits_is_told_as_what_it_is(caplog):
    linger.constrain(nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4)))
    assert "linger.constrain: these layers train without limits:\n  0 (GroupNorm)" in caplog.text


def test_structure_and_print():
    m = linger.constrain(Net())
    assert type(m) is Net
    assert isinstance(m.conv, NormalizeConvBN2d) and isinstance(m.bn, EmptyBatchNorm)
    assert isinstance(m.fc, NormalizeLinearBN1d) and isinstance(m.head, NormalizeLinear)
    assert "(bn): EmptyBatchNorm()" in repr(m) and m.conv.ahead_relu and not m.head.ahead_relu
    assert (m.conv.normalize_data, m.conv.normalize_weight, m.conv.normalize_factor) == (8, None, 7)
    assert m.conv.blend == 0.1


def test_float_function_is_kept():
    m = trained().eval()
    wanted = m(images())
    torch.testing.assert_close(linger.constrain(copy.deepcopy(m))(images()), wanted, rtol=1e-5, atol=1e-5)
    free = no_limits(linger.constrain(m))
    torch.testing.assert_close(free(images()), wanted, rtol=1e-5, atol=1e-5)


def test_identity_of_what_the_user_holds():
    m = trained()
    params, order = dict(m.named_parameters()), [id(p) for p in m.parameters()]
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    m.head.weight.requires_grad_(False)
    m.head.note = "mine"
    seen = []
    hook = m.conv.register_forward_hook(lambda mod, a, out: seen.append(out))
    body, conv = m.body[0], m.conv
    m.body.eval()
    out = linger.constrain(m)
    assert out is m and m.conv is conv and m.body[0] is body
    assert m.conv.conv.weight is params["conv.weight"] and m.conv.bn.bias is params["bn.bias"]
    assert {id(p) for p in m.parameters() if p.requires_grad} <= set(order)
    assert not m.head.weight.requires_grad and m.head.note == "mine"
    assert (
        m.training
        and not m.body.training
        and not m.body[0].training
        and not m.body[0].bn.training
        and m.conv.bn.training
    )
    before = m.conv.weight.detach().clone()
    m(images()).square().sum().backward()
    assert len(seen) == 1
    optimizer.step()
    assert not torch.equal(before, m.conv.weight)
    hook.remove()
    m(images())
    assert len(seen) == 1


def test_hooks_and_attributes_survive():
    m, x = Plain(), images().requires_grad_()
    calls = []
    m.conv.register_forward_pre_hook(lambda *a: calls.append("pre"))
    m.conv.register_full_backward_hook(lambda *a: calls.append("back"))
    linger.constrain(m)
    m(x).sum().backward()
    assert calls == ["pre", "back"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_stays(dtype):
    m = linger.constrain(trained().to(dtype))
    assert {p.dtype for p in m.parameters() if p.requires_grad} == {dtype}
    m(images().to(dtype)).sum().backward()


def test_nothing_random_happens_without_a_file():
    m = trained()
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    want = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    linger.constrain(m, example_inputs=images())
    assert (torch.rand(1), random.random(), np.random.rand()) == want


def test_a_file_seeds_and_becomes_current(tmp_path):
    path = config(tmp_path, "seed: 11\nclamp_info: {clamp_activation_value: 3}\n")
    linger.constrain(Plain(), path)
    got = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(got, torch.rand(1))
    assert linger.constrain(Plain()).conv.normalize_data == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device_of_the_file(tmp_path):
    with pytest.warns(UserWarning, match="asks for cuda, this machine has no CUDA"):
        m = linger.constrain(Plain(), config(tmp_path, "device: cuda\n"))
    assert m.conv.weight.device.type == "cpu"
    linger.constrain(Plain(), config(tmp_path, "device: cpu\n"))


def test_two_models_keep_their_own_settings(tmp_path):
    a = linger.constrain(Plain(), config(tmp_path, "clamp_info: {clamp_activation_value: 2}\n"))
    b = linger.constrain(
        Plain(), config(tmp_path, "clamp_info: {clamp_activation_value: 5, clamp_factor_value: null}\n")
    )
    assert (a.conv.normalize_data, b.conv.normalize_data, b.conv.normalize_factor) == (2, 5, None)


def test_sections(tmp_path):
    text = "part:\n  name: ['encoder*', head]\n  clamp_info: {clamp_activation_value: 4}\n"
    with pytest.raises(linger.ConfigError, match=r"section 'part': name 'head' matches no module") as error:
        linger.constrain(Plain(), config(tmp_path, text))
    assert error.value.line == 1 and error.value.key == "part"
    m = linger.constrain(Plain(), config(tmp_path, text.replace("head", "conv")))
    assert [m.conv.normalize_data, m.encoder[0].normalize_data, m.classifier[0].normalize_data] == [4, 4, 8]
    assert m.encoder[0].normalize_factor == 7


class OwnLinear(nn.Linear):
    pass


def test_disable_module_covers_subclasses_and_this_call_only():
    m = Plain()
    m.encoder[0] = OwnLinear(4, 6)
    linger.constrain(m, disable_module=(nn.LSTM, nn.Linear))
    assert (
        isinstance(m.conv, NormalizeConv2d) and type(m.encoder[0]) is OwnLinear and type(m.classifier[0]) is nn.Linear
    )
    assert isinstance(linger.constrain(Plain()).encoder[0], NormalizeLinear)
    n = linger.constrain(Net(), disable_module=nn.BatchNorm2d)
    assert (
        isinstance(n.conv, NormalizeConv2d) and type(n.bn) is nn.BatchNorm2d and isinstance(n.fc, NormalizeLinearBN1d)
    )
    n = linger.constrain(Net(), disable_module=(nn.Conv2d,))
    assert type(n.conv) is nn.Conv2d and isinstance(n.bn, Constrained)
    with pytest.raises(TypeError, match="expected classes"):
        linger.constrain(Plain(), disable_module=("Linear",))


@pytest.mark.parametrize(
    "pattern", ["classifier*", "classifier", "class?fier", ("classifier.*",), ["classifier.0", "classifier.2"]]
)
def test_disable_submodel(pattern):
    m = linger.constrain(Plain(), disable_submodel=pattern)
    assert [type(x) for x in m.classifier] == [nn.Linear, nn.ReLU, nn.Linear]
    assert isinstance(m.encoder[0], NormalizeLinear) and isinstance(m.conv, NormalizeConv2d)
    assert {r.name for r in report_of(m).stayed_float} == {"classifier.0", "classifier.2"}


def test_a_pattern_that_matches_nothing_names_the_nearest():
    m = Plain()
    with pytest.raises(ValueError, match=r"disable_submodel: 'clasifier\*' matches no module; nearest: classifier"):
        linger.constrain(m, disable_submodel=("clasifier*",))
    assert type(m.conv) is nn.Conv2d


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight * 2, self.bias)  # not the layer's arithmetic


def unreachable():
    m = nn.Sequential()
    m.add_module("scripted", torch.jit.script(nn.Linear(4, 4)))
    m.add_module("instance", nn.Linear(4, 4))
    m.instance.forward = lambda x: x
    m.add_module("own", OwnConv(3, 3, 1))
    m.add_module("normed", torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    m.add_module("old_normed", torch.nn.utils.spectral_norm(nn.Linear(4, 4)))
    return m


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning", "ignore:.*weight_norm.*")
@pytest.mark.parametrize("convert", [linger.constrain, linger.init])
def test_what_the_swap_cannot_reach_is_said(convert, caplog):
    m = unreachable()
    kinds = [type(x) for x in m]
    with caplog.at_level(logging.WARNING, "linger"):
        convert(m)
    assert [base_class(x) for x in m] == kinds
    notes = {r.name: r.note for r in report_of(m).stayed_float}
    for name, text in {
        "scripted": "before torch.jit",
        "instance": "define it on a class",
        "own": "OwnConv overrides forward of Conv2d",
        "normed": "remove_parametrizations",
        "old_normed": "remove_spectral_norm",
    }.items():
        assert text in notes[name], name
        assert f"{name} (" in caplog.text


@pytest.mark.parametrize("convert", [linger.constrain, linger.init])
def test_wrong_roots(convert):
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module"):
        convert(lambda x: x)
    with pytest.raises(TypeError, match="before wrapping it in DataParallel"):
        convert(nn.DataParallel(Plain()))
    with pytest.raises(TypeError, match=r"before torch.compile"):
        convert(torch.compile(Plain(), backend="eager"))
    with pytest.raises(ValueError, match="lazy layers have no parameters yet: 0"):
        convert(nn.Sequential(nn.LazyLinear(3)))


def test_a_bare_layer_is_a_model():
    m = nn.Linear(4, 3)
    assert linger.constrain(m) is m and isinstance(m, NormalizeLinear)


def test_again_applies_new_limits(tmp_path):
    m = linger.constrain(Net())
    linger.constrain(m, config(tmp_path, "clamp_info: {clamp_activation_value: 2}\n"))
    assert m.conv.normalize_data == m.head.normalize_data == 2 and isinstance(m.conv.conv, nn.Conv2d)


def test_after_init_is_refused():
    with pytest.raises(RuntimeError, match=r"constrain comes before linger.init"):
        linger.constrain(linger.init(Plain()))


def test_pickle_and_deepcopy():
    m = linger.constrain(trained()).eval()
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert torch.equal(twin(images()), m(images()))
        twin.load_state_dict(m.state_dict())
        assert twin.conv.weight is not m.conv.weight and twin.load_state_dict.model is twin


def test_a_list_of_layers_beside_the_tree_is_converted_too():
    m = Plain()
    m.steps = [m.conv]
    linger.constrain(m)
    assert m.steps[0] is m.conv and isinstance(m.steps[0], NormalizeConv2d)


def test_summary_and_report():
    m = linger.constrain(Net(), disable_submodel="head", example_inputs=images())
    report, table = report_of(m), linger.summary(m)
    assert "nets.py" in str(report) and "disable_submodel 'head'" in str(report)
    assert report._repr_html_().startswith("<table>") and table._repr_html_().startswith("<table>")
    assert report.to_dict()["rows"][0]["became"] == "NormalizeConvBN2d"
    assert {r["name"]: r["layer"] for r in table.to_dict()["layers"]}["conv"] == "NormalizeConvBN2d"
    with pytest.raises(ValueError, match="was not converted"):
        linger.summary(Net())
