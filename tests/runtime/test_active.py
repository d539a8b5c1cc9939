"""``linger.active``: entry methods other than ``forward`` use the same operators in every call."""

import pytest
import torch
from torch import nn

import linger


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def encode(self, x):
        return self.a(x) + self.b(x)

    def decode(self, h, steps=1):
        for _ in range(steps):
            h = self.helper(h) + h
        return h

    def helper(self, h):
        return torch.sigmoid(self.a(h))

    def both(self, x):
        return self.decode(self.encode(x))

    def forward(self, x):
        return self.both(x)


def names(model) -> list[str]:
    return [n for n, _ in model.named_children() if "qtensor" in n]


def coder():
    torch.manual_seed(0)
    model = linger.init(Coder())
    x = torch.randn(8, 4)
    return model, x


def test_calls_in_a_loop_and_on_lines_of_their_own_share_operators():
    model, x = coder()
    with linger.active(model):
        for _ in range(3):
            model.encode(x)
        model.encode(x)
        (lambda: model.encode(x))()
    assert names(model) == ["_linger_qtensor_qadd_0"]
    with linger.active(model):
        model.encode(x)
    assert names(model) == ["_linger_qtensor_qadd_0"]


def test_loops_inside_a_method_have_operators_of_their_own():
    model, x = coder()
    for _ in range(2):
        with linger.active(model):
            for _ in range(2):
                model.decode(model.encode(x), steps=2)
    assert sorted(n.split("_")[3] for n in names(model)) == ["qadd", "qadd", "qadd", "qsigmoid", "qsigmoid"]


def test_one_method_through_another_is_another_call():
    model, x = coder()
    with linger.active(model):
        model.both(x)
        model.both(x)
    assert len(names(model)) == 3


def test_operators_outside_methods_are_told_apart_by_their_place():
    model, x = coder()
    with linger.active(model):
        y = model.a(x) + model.b(x)
        y = y + y
    assert len(names(model)) == 2


def test_a_training_loop_inside_active_keeps_its_state(tmp_path):
    model, x = coder()
    with linger.active(model), linger.calibration(model):
        model.encode(x)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with linger.active(model):
        for _ in range(3):
            optimizer.zero_grad()
            y = model.encode(x)
            with linger.float_region():
                y.square().mean().backward()
            optimizer.step()
    assert names(model) == ["_linger_qtensor_qadd_0"]
    torch.save(model.state_dict(), tmp_path / "m.pt")
    fresh = linger.init(Coder())
    fresh.load_state_dict(torch.load(tmp_path / "m.pt"))
    with linger.active(model.eval()):
        want = model.encode(x)
    with linger.active(fresh.eval()):
        assert torch.equal(fresh.encode(x), want)


@pytest.mark.parametrize("given", [nn.Linear(2, 2), None, "model"])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(TypeError, match=r"active: model must be initialised by linger\.init"), linger.active(given):
        pass
