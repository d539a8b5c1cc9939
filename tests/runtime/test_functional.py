"""Functional operators keep their state: one per call site, in every spelling, across processes and threads."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import linger
from linger.runtime import info, islands_of
from linger.runtime.functional import PREFIX
from tests.runtime.models import Branch, Helper, Residual, TwoAdds


def _operators(model):
    return sorted(name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1].startswith(PREFIX))


def _trained(model, *args, steps=2, **kwargs):
    linger.init(model)
    model.train()
    for _ in range(steps):
        model(*args, **kwargs)
    return model


def test_every_call_site_has_its_own_operator():
    model = _trained(TwoAdds(), torch.randn(4, 8))
    assert _operators(model) == [f"{PREFIX}qadd_{i}" for i in range(4)]


def test_a_helper_called_twice_is_two_sites():
    model = _trained(Helper(), torch.randn(4, 8))
    assert len(_operators(model)) == 2


def test_a_site_met_late_does_not_shift_the_others():
    model = _trained(Branch(), torch.randn(4, 8))
    always = dict(model.named_modules())[f"{PREFIX}qadd_0"]
    seen = int(always.output_quantizer.n_batches)
    model(torch.randn(4, 8), extra=True)
    assert int(always.output_quantizer.n_batches) == seen + 1
    assert len(_operators(model)) == 2


@pytest.mark.parametrize("make", [TwoAdds, Helper, Branch])
def test_state_round_trips_strictly_before_any_forward(make):
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = _trained(make(), x).eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = linger.init(make())
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(fresh.eval()(x), model(x))
    assert _operators(fresh) == _operators(model)


def test_without_sites_operators_bind_in_order_with_one_warning(caplog):
    x = torch.randn(4, 8)
    model = _trained(TwoAdds(), x).eval()
    fresh = linger.init(TwoAdds()).eval()
    fresh.load_state_dict(dict(model.state_dict()), strict=True)
    with caplog.at_level("WARNING", logger="linger"):
        assert torch.equal(fresh(x), model(x))
        fresh(x)
    assert len([r for r in caplog.records if "order" in r.message]) == 1


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_their_operators(clone):
    x = torch.randn(4, 8)
    model = _trained(TwoAdds(), x).eval()
    twin = clone(model)
    assert torch.equal(twin(x), model(x))
    twin.train()(x * 100)
    assert torch.equal(model(x), clone(model)(x))


@pytest.mark.parametrize("spelling", ["+", "torch", "in-place", "method"])
def test_spellings_of_a_residual_are_one_operator(spelling):
    torch.manual_seed(0)
    reference, model = Residual(), Residual(spelling)
    model.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 8, 8)
    for m in (reference, model):
        _trained(m, x)
        assert islands_of(m) == []
    assert torch.equal(model.eval()(x), reference.eval()(x))
    assert _operators(model) == _operators(reference) == [f"{PREFIX}qadd_0"]


def test_in_place_addition_trains():
    model = _trained(Residual("in-place"), torch.randn(2, 3, 8, 8))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


class _Island(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.b(torch.cos(self.a(x)))


def test_a_float_operator_is_reported_with_owner_and_line(caplog):
    with caplog.at_level("WARNING", logger="linger"):
        model = _trained(_Island(), torch.randn(2, 8), steps=3)
    (island,) = islands_of(model)
    assert island.operator == "cos"
    assert island.file.endswith("test_functional.py")
    assert sum("cos" in r.message for r in caplog.records) == 1


def test_an_exception_in_forward_leaves_nothing_behind():
    model = _trained(TwoAdds(), torch.randn(4, 8))
    with pytest.raises(ValueError, match="linear: x must be"):
        model(torch.randn(4, 9))
    from linger.runtime.state import state

    assert state.frames == []
    assert info(model(torch.randn(4, 8))) is not None


@pytest.mark.filterwarnings("ignore")
def test_torch_onnx_export_names_the_call_to_write():
    model = _trained(TwoAdds(), torch.randn(4, 8)).eval()
    with pytest.raises(Exception, match=r"linger\.onnx\.export"):
        torch.onnx.export(model, (torch.randn(4, 8),), io.BytesIO(), dynamo=False)


def test_import_changes_nothing_in_torch():
    import subprocess
    import sys

    code = """
import torch, torch.nn.functional as F
spaces = {"torch": torch, "Tensor": torch.Tensor, "F": F, "nn": torch.nn, "onnx": torch.onnx}
before = {k: {n: id(v) for n, v in vars(s).items() if not n.startswith("__")} for k, s in spaces.items()}
import linger
after = {k: {n: id(v) for n, v in vars(s).items() if not n.startswith("__")} for k, s in spaces.items()}
changed = {k: [n for n in b if after[k].get(n) != b[n]] for k, b in before.items()}
assert not any(changed.values()), changed
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folding_layers_print_their_batch_norm_and_no_quantizers():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    text = repr(linger.init(net, fold_bn="step", example_inputs=torch.randn(2, 3, 4, 4)))
    assert "(bn): BatchNorm2d(4" in text
    assert "quantizer" not in text


def test_warm_calls_of_c_functions_stay_the_same_operators():
    """Python 3.11 runs them from another instruction once its interpreter has specialised them."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            x = self.a(x)
            for _ in range(2):
                x = x.sigmoid()
            return sum([x, x])

    model = linger.init(Net())
    model(torch.randn(2, 4))
    before = list(model._modules)
    for _ in range(40):
        model(torch.randn(2, 4))
    assert list(model._modules) == before


class _Alike(nn.Module):
    """Functions of one name whose code differs in nothing that a fingerprint sees."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)
        self.steps = [lambda x, y, z: x + y, lambda x, y, z: x + z, lambda x, y, z: x + y]

    def forward(self, x):
        x, y = self.a(x), self.b(x)
        for step in self.steps:
            x = step(x, y, 0.5)
        return x


def test_functions_that_look_alike_keep_their_own_operators():
    torch.manual_seed(0)
    model = linger.init(_Alike())
    x = torch.randn(2, 4)
    for _ in range(3):
        model(x)
    names = [n for n, _ in model.named_children() if "qadd" in n]
    assert names == [f"_linger_qtensor_qadd_{i}" for i in range(3)]
    other = linger.init(_Alike())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert [n for n, _ in other.named_children() if "qadd" in n] == names
