"""Quantizers copied, moved, saved, loaded and reset."""

import copy
import io
import math
import pickle

import pytest
import torch
from quantizers_seen import seen
from torch import nn

from linger.quantizers import Quantizer, clamp_weight_once
from linger.settings import ClampInfo


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("role", ["activation", "weight"])
def test_copies_are_independent_and_equal(method, role):
    quantizer = seen(3.0, method=method, role=role)
    quantizer.name, quantizer.frozen = "conv.weight_quantizer", True
    assert quantizer.ready
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert other.name == quantizer.name and other.frozen and other.ready
        assert all(torch.equal(a, b) for a, b in zip(quantizer.state(), other.state(), strict=True))
        other.frozen = False
        other(torch.tensor([100.0]))
        assert quantizer.n_batches.item() == 1 and other.n_batches.item() == 2


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_state_stays_float32(method):
    for convert in (nn.Module.half, nn.Module.double, nn.Module.bfloat16, lambda m: m.to(torch.float16)):
        model = nn.Sequential(seen(3.3, method=method), nn.Linear(2, 2))
        before = model[0].state()
        convert(model)
        assert model[1].weight.dtype != torch.float32
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, model[0].state(), strict=True))


def test_scales_move_to_another_device():
    quantizer = Quantizer(8, role="weight").to("meta")
    assert all(b.device.type == "meta" for b in quantizer.buffers())


MOM_KEYS = {"running_data", "is_init", "scale", "n_batches"}
TQT_KEYS = {"learning_data", "is_calibrate", "scale", "n_batches"}


@pytest.mark.parametrize(
    ("method", "role", "keys"),
    [
        ("MOM", "activation", MOM_KEYS),
        ("MOM", "weight", MOM_KEYS | {"is_init_mom_clamp_weight"}),
        ("MOM", "bias", MOM_KEYS),
        ("TQT", "activation", TQT_KEYS),
        ("TQT", "weight", TQT_KEYS),
    ],
)
def test_state_dict_round_trip(method, role, keys):
    quantizer = seen(3.3, method=method, role=role)
    assert set(quantizer.state_dict()) == keys
    assert all(
        t.shape == ((1,) if k in ("learning_data", "n_batches") else ()) for k, t in quantizer.state_dict().items()
    )
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    other = Quantizer(8, method=method, role=role)
    assert not other.ready
    other.load_state_dict(torch.load(file), strict=True)
    assert other.ready and all(torch.equal(quantizer.state_dict()[k], v) for k, v in other.state_dict().items())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_checkpoints_of_3x_load_whatever_their_shapes(method, shape, assign):
    quantizer = seen(3.3, method=method, role="weight")
    old = {
        k: v.detach().reshape(shape).double() if v.is_floating_point() else v.reshape(shape)
        for k, v in quantizer.state_dict().items()
        if k != "n_batches"
    }  # 3.x has no counter
    kept = {k: v.shape for k, v in old.items()}
    other = Quantizer(8, method=method, role="weight")
    other.load_state_dict(old, strict=True, assign=assign)
    assert {k: v.shape for k, v in old.items()} == kept  # the caller's dictionary is his
    for name, mine in quantizer.state_dict().items():
        if name != "n_batches":
            theirs = other.state_dict()[name]
            assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype and mine.shape == theirs.shape
    assert isinstance(other._parameters.get("learning_data"), nn.Parameter) == (method == "TQT")


def test_a_float_checkpoint_leaves_the_statistics():
    quantizer = seen(3.3)
    assert nn.ModuleDict({"q": quantizer}).load_state_dict({}, strict=True).missing_keys == []
    assert quantizer.ready
    with pytest.raises(RuntimeError, match="Unexpected key"):
        quantizer.load_state_dict({"running_date": torch.tensor(1.0)}, strict=True)
    with pytest.raises(RuntimeError, match="size mismatch"):
        quantizer.load_state_dict({"running_data": torch.ones(2)}, strict=True)


def test_statistics_cross_over_between_methods():
    mom, tqt = seen(4.0, role="weight"), Quantizer(8, method="TQT", role="weight")
    tqt.load_state_dict(mom.state_dict(), strict=True)
    assert tqt.learning_data.tolist() == [2.0] and tqt.ready
    back = Quantizer(8, role="weight")
    back.load_state_dict(tqt.state_dict(), strict=True)
    assert float(back.running_data) == 4.0 and back.ready
    fresh = Quantizer(8, method="TQT")
    fresh.load_state_dict(Quantizer(8).state_dict(), strict=True)  # no data: keeps its own first threshold
    assert fresh.learning_data.item() == pytest.approx(2.1) and not fresh.ready


def test_loading_forgets_remembered_answers():
    quantizer, empty = seen(3.0, role="weight"), Quantizer(8, role="weight").state_dict()
    weight = nn.Parameter(torch.tensor([1.0, 100.0]))
    clamp_weight_once(weight, quantizer, ClampInfo(clamp_weight_value=8))
    assert quantizer.ready and weight.tolist() == [1, 8]
    quantizer.load_state_dict(empty)
    assert not quantizer.ready
    with torch.no_grad():
        weight[1] = 50
    clamp_weight_once(weight, quantizer, ClampInfo(clamp_weight_value=8))
    assert weight.tolist() == [1, 8]


def test_assignment_writes_into_the_tensor():
    quantizer = Quantizer(8, method="TQT")
    threshold, scale = quantizer.learning_data, quantizer.scale
    quantizer.learning_data, quantizer.scale = torch.tensor(3.0), 16
    assert quantizer.learning_data is threshold and threshold.tolist() == [3.0]
    assert quantizer.scale is scale and float(scale) == 16


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_reset_is_a_new_quantizer(method):
    quantizer = seen(3.3, method=method, role="weight")
    quantizer(torch.tensor([math.nan]))
    quantizer.reset()
    fresh = Quantizer(8, method=method, role="weight")
    assert all(torch.equal(v, fresh.state_dict()[k]) for k, v in quantizer.state_dict().items())
    assert quantizer.n_skipped == 0 and not quantizer.ready
