"""Loading: every stage's checkpoint into every later stage, strictly; what does not fit is an error with the nearest name."""

import copy
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from convert.nets import Net, Plain, images, no_limits, trained
from torch import nn

import linger

TESTS = Path(__file__).resolve().parents[1]


def run_conv(layer, x):
    return nn.Conv2d._conv_forward(layer, x, layer.weight, layer.bias)


def stages():
    """One trained network in each stage, all the same function up to quantization."""
    plain = trained().eval()
    constrained = linger.constrain(copy.deepcopy(plain))
    once = linger.init(copy.deepcopy(plain), example_inputs=images())
    step = linger.init(copy.deepcopy(plain), example_inputs=images(), fold_bn="step")
    for m in (once, step):
        m.train()
        with torch.no_grad():
            m(images())
        m.eval()
    return plain, constrained, once, step


def test_float_loads_into_every_stage():
    plain = trained().eval()
    want = plain(images())
    constrained = linger.constrain(Net())
    assert str(constrained.load_state_dict(plain.state_dict())) == "<All keys matched successfully>"
    torch.testing.assert_close(no_limits(constrained.eval())(images()), want, rtol=1e-5, atol=1e-5)
    for fold_bn in ("once", "step"):
        q = linger.init(Net(), fold_bn=fold_bn)
        q.load_state_dict(plain.state_dict())
        w, b = q.conv.eval()._folded()
        y = nn.functional.conv2d(images(), w, b, padding=1)
        torch.testing.assert_close(y, plain.bn(plain.conv(images())), rtol=1e-5, atol=1e-5)


def test_constrained_loads_into_constrained_and_quantized():
    plain = trained().eval()
    source = linger.constrain(copy.deepcopy(plain))
    twin = linger.constrain(Net()).eval()
    twin.load_state_dict(source.state_dict())
    assert torch.equal(twin(images()), source(images()))
    q = linger.init(Net())
    q.load_state_dict(source.state_dict())
    torch.testing.assert_close(run_conv(q.conv, images()), plain.bn(plain.conv(images())), rtol=1e-5, atol=1e-5)
    step = linger.init(Net(), fold_bn="step")
    step.load_state_dict(source.state_dict())
    assert torch.equal(step.conv.weight, plain.conv.weight) and torch.equal(
        step.conv.bn.running_var, plain.bn.running_var
    )


def test_constrained_weights_arrive_clamped(tmp_path):
    (tmp_path / "c.yaml").write_text("clamp_info: {clamp_weight_value: 0.05}\n")
    source = linger.constrain(trained(), str(tmp_path / "c.yaml"))
    q = linger.init(Net(), str(tmp_path / "c.yaml"))
    q.load_state_dict(source.state_dict())
    torch.testing.assert_close(q.conv.weight, source.conv.folded()[0])
    assert q.head.weight.abs().max() <= 0.05 and q.head.weight_quantizer.is_init_mom_clamp_weight


@pytest.mark.parametrize("kind", [2, 3], ids=["once", "step"])
def test_quantized_loads_into_quantized_before_any_forward(kind):
    source = stages()[kind]
    twin = linger.init(Net(), fold_bn=("once", "step")[kind - 2])
    twin.load_state_dict(source.state_dict())
    assert set(twin.state_dict()) == set(source.state_dict())
    assert torch.equal(twin.eval()(images()), source(images()))


def test_step_loads_into_once():
    _, _, _, step = stages()
    once = linger.init(Net())
    once.load_state_dict(step.state_dict())
    torch.testing.assert_close(once.conv.weight, step.conv._folded()[0])


def test_folded_does_not_load_into_what_needs_the_batch_norm():
    _, constrained, once, step = stages()
    for target in (constrained, step):
        with pytest.raises(RuntimeError, match="has its BatchNorm folded into the weight"):
            target.load_state_dict(once.state_dict())


def test_pairs_that_this_model_has_not_fused_are_taken_apart():
    _, constrained, once, step = stages()
    for source in (constrained, step):
        q = linger.init(Net(), disable_module=(nn.BatchNorm2d, nn.BatchNorm1d))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            q.load_state_dict(source.state_dict())
        assert torch.equal(q.bn.running_mean, source.conv.bn.running_mean) and torch.equal(
            q.conv.weight, source.conv.weight
        )
    q = linger.init(Net(), disable_module=(nn.BatchNorm2d, nn.BatchNorm1d))
    with pytest.raises(RuntimeError, match="stands alone in this model"):
        q.load_state_dict(once.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes(prefix):
    plain, _, once, _ = stages()
    for source in (plain, once):
        state = source.state_dict()
        wrapped = type(state)((prefix + k, v) for k, v in state.items())
        wrapped._metadata = {(prefix + k if k else prefix[:-1]): v for k, v in state._metadata.items()}
        q = linger.init(Net())
        q.load_state_dict(wrapped)
        assert torch.equal(q.eval().conv.weight, once.conv.weight) or source is plain
    assert torch.equal(q(images()), once(images()))


def test_data_parallel_round_trip():
    once = stages()[2]
    q = linger.init(Net())
    q.load_state_dict(nn.DataParallel(once).state_dict())
    assert torch.equal(q.eval()(images()), once(images()))
    nn.DataParallel(q).load_state_dict(nn.DataParallel(once).state_dict())


def test_path_and_nested_dictionary(tmp_path):
    once = stages()[2]
    torch.save(once.state_dict(), tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": once.state_dict()}, tmp_path / "b.pt")
    for path in (str(tmp_path / "a.pt"), tmp_path / "b.pt"):
        q = linger.init(Net())
        q.load_state_dict(path)
        assert torch.equal(q.eval()(images()), once(images()))
    torch.save([1], tmp_path / "c.pt")
    with pytest.raises(TypeError, match=r"expected a state dictionary or a path to one .*c\.pt"):
        q.load_state_dict(tmp_path / "c.pt")
    with pytest.raises(FileNotFoundError):
        q.load_state_dict(tmp_path / "none.pt")


def test_inside_a_larger_model():
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.top = inner, nn.Linear(4, 4)

    plain, constrained, once, _ = stages()
    for source in (plain, constrained, once):
        outer = Outer(linger.init(Net()))
        outer.load_state_dict(Outer(source).state_dict() | {k: v for k, v in outer.state_dict().items() if "top" in k})
        torch.testing.assert_close(outer.inner.conv.weight, once.conv.weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("convert", [linger.constrain, linger.init])
def test_wrong_keys_are_errors_with_the_nearest_name(convert):
    state = dict(trained(Plain).state_dict())
    m = convert(Plain())
    with pytest.raises(RuntimeError, match=r'Missing key\(s\).*"conv.bias"'):
        m.load_state_dict({k: v for k, v in state.items() if k != "conv.bias"})
    state["conv.wieght"] = state.pop("conv.weight")
    with pytest.raises(RuntimeError, match=r"'conv.wieght' is not a key of this model; nearest: 'conv.weight'"):
        m.load_state_dict(state)
    m.load_state_dict(state, strict=False)


def test_missing_batch_norm_keys_are_errors():
    state = dict(trained().state_dict())
    del state["bn.running_var"]
    with pytest.raises(RuntimeError, match="'bn': running_var is missing from the checkpoint"):
        linger.init(Net()).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"conv.bn.running_var"):
        linger.constrain(Net()).load_state_dict(state)


def test_counter_of_an_old_checkpoint_may_be_missing():
    state = {k: v for k, v in trained().state_dict().items() if "num_batches" not in k}
    linger.constrain(Net()).load_state_dict(state)
    linger.init(Net()).load_state_dict(state)


@pytest.mark.parametrize(("bias", "affine"), [(True, False), (False, False), (False, True)])
def test_fold_on_load_uses_what_the_layer_has(bias, affine):
    def make():
        return nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, eps=0.1, affine=affine))

    torch.manual_seed(1)
    plain = make()
    for i in range(3):
        plain(images(4, i))
    q = linger.init(make())
    q.load_state_dict(plain.state_dict())
    torch.testing.assert_close(run_conv(q[0], images()), plain.eval()(images()), rtol=1e-5, atol=1e-5)


def test_quantizer_keys_may_be_missing():
    once = stages()[2]
    state = {k: v for k, v in once.state_dict().items() if "_quantizer." not in k}
    q = linger.init(Net())
    q.load_state_dict(state)
    assert torch.equal(q.conv.weight, once.conv.weight)


def test_a_new_weight_starts_its_quantizer_over():
    once = stages()[2]
    assert once.head.weight_quantizer.ready
    once.load_state_dict(trained().state_dict())
    assert not once.head.weight_quantizer.ready and once.head.output_quantizer.ready


def test_metadata_is_plain_and_compared(tmp_path):
    (tmp_path / "a.yaml").write_text("platform: arcs\nquant_info: {qat_method: TQT}\n")
    (tmp_path / "b.yaml").write_text("platform: venus\nquant_info: {weight_bits: 4}\n")
    source = linger.init(Plain(), str(tmp_path / "a.yaml"), disable_submodel="classifier")
    torch.save(source.state_dict(), tmp_path / "a.pt")
    record = torch.load(tmp_path / "a.pt", weights_only=True)._metadata[""]["linger"]
    assert record["platform"] == "arcs" and record["qat_method"] == "TQT" and record["stage"] == "init"
    assert record["bits"]["conv"] == [8, 8, 8] and set(record["left"]) == {"classifier.0", "classifier.2"}
    target = linger.init(Plain(), str(tmp_path / "b.yaml"))
    with pytest.warns(UserWarning, match="settings differ") as caught:
        target.load_state_dict(tmp_path / "a.pt")
    text = "\n".join(str(w.message) for w in caught)
    for line in (
        "platform: arcs in the checkpoint, venus here",
        "qat_method: TQT",
        "conv: bits [8, 8, 8] in the checkpoint",
    ):
        assert line in text
    assert "classifier.0: quantized=off, quantized=on" in text
    same = linger.init(Plain(), str(tmp_path / "a.yaml"), disable_submodel="classifier")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same.load_state_dict(tmp_path / "a.pt")


def test_sets_of_the_two_stages_are_compared(tmp_path):
    source = linger.constrain(Plain(), disable_module=nn.Linear)
    with pytest.warns(UserWarning, match="encoder.0: constrained=off, quantized=on"):
        linger.init(Plain()).load_state_dict(source.state_dict())


def test_round_trip_in_a_fresh_process(tmp_path):
    once = stages()[2]
    torch.save(once.state_dict(), tmp_path / "q.pt")
    torch.save({"x": images(), "y": once(images()).detach()}, tmp_path / "xy.pt")
    code = f"""
        import sys; sys.path[:0] = [{str(TESTS.parent)!r}, {str(TESTS)!r}]
        import torch, linger
        from convert.nets import Net
        m = linger.init(Net())
        m.load_state_dict({str(tmp_path / "q.pt")!r})
        data = torch.load({str(tmp_path / "xy.pt")!r})
        assert torch.equal(m.eval()(data["x"]), data["y"])
        assert set(m.state_dict()) == set(torch.load({str(tmp_path / "q.pt")!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_deepcopies_load_into_themselves():
    once = stages()[2]
    twin = copy.deepcopy(once)
    twin.load_state_dict({k: torch.zeros_like(v) for k, v in once.state_dict().items()})
    assert twin.head.weight.abs().sum() == 0 and once.head.weight.abs().sum() > 0


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_a_model_on_meta_takes_the_tensors_of_a_checkpoint(method, tmp_path):
    """How large models are loaded without being initialised first."""
    path = tmp_path / "config.yaml"
    path.write_text(f"quant_info: {{qat_method: {method}}}\n")
    source = linger.init(trained(), str(path), example_inputs=images())
    source(images())
    with torch.device("meta"):
        q = linger.init(Net())
    q.load_state_dict(source.state_dict(), assign=True)
    assert not any(t.is_meta for t in (*q.parameters(), *q.buffers()))
    assert torch.equal(q.eval()(images()), source.eval()(images()))
    q.train()(images()).sum().backward()
