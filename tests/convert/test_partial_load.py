"""Dictionaries filtered by a converted model's keys have lost what was folded: the layers are named."""

import warnings

import pytest
import torch
from torch import nn

import linger


class Net(nn.Module):
    """A convolution, a linear layer, a transposed one: each with its BatchNorm, with and without a bias."""

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4)
        self.c, self.nc = nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.nb(self.b(torch.relu(self.na(self.a(x))))))
        return self.head(torch.relu(self.nc(self.c(x.mean((2, 3))))))


def trained():
    torch.manual_seed(1)
    m = Net()
    for _ in range(10):
        m.train()(2 * torch.randn(8, 3, 6, 6) + 1)
    return m.eval()


def by_keys(state, q):
    return {k: v for k, v in state.items() if k in q.state_dict()}


def by_shapes(state, q):
    own = q.state_dict()
    return {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}


def by_update(state, q):
    own = q.state_dict()
    own.update(by_keys(state, q))
    return own


def by_parameters(state, q):
    named = dict(q.named_parameters())
    return {k: v for k, v in state.items() if k in named}


def by_copy(state, q):
    own = q.state_dict()
    for name, tensor in state.items():
        if name in own:
            own[name] = tensor
    return own


FILTERS = [by_keys, by_shapes, by_update, by_parameters, by_copy]
STAGES = {
    "init": lambda: linger.init(Net()),
    "step": lambda: linger.init(Net(), fold_bn="step", disable_module=nn.ConvTranspose2d),
    "constrain": lambda: linger.constrain(Net()),
}


def load(q, state):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        q.load_state_dict(state, strict=False)
    return [str(w.message) for w in caught if "BatchNorm" in str(w.message) or "other names" in str(w.message)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("filtered", FILTERS)
def test_lost_norms_are_named_and_the_whole_dictionary_is_right(filtered, stage):
    m, q, x = trained(), STAGES[stage](), torch.randn(4, 3, 6, 6)
    (said,) = load(q, filtered(m.state_dict(), q))
    names = ("a", "c") if stage == "step" else ("a", "b", "c")
    assert all(f"'{name}'" in said for name in names) and "'head'" not in said, said
    assert ("other names" if stage == "constrain" else "without the BatchNorm") in said
    assert not load(q, m.state_dict())
    with linger.calibration(q) if stage != "constrain" else warnings.catch_warnings():
        y = q.eval()(x)
    torch.testing.assert_close(y, m(x), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["itself", "another", "filtered", "updated", "backbone", "no record"])
def test_states_that_have_lost_nothing_are_silent(how, stage):
    q, other = STAGES[stage](), STAGES[stage]()
    state = {
        "itself": lambda: q.state_dict(),
        "another": lambda: other.state_dict(),
        "filtered": lambda: by_shapes(other.state_dict(), q),
        "updated": lambda: by_update(other.state_dict(), q),
        "backbone": lambda: {k: v for k, v in trained().state_dict().items() if not k.startswith(("c.", "nc", "head"))},
        "no record": lambda: dict(other.state_dict()),
    }[how]()
    said = load(q, state)
    if how == "backbone" and stage == "constrain":  # it cannot be told from a filter
        assert len(said) == 1 and "'c'" in said[0] and "'a'" not in said[0]
    else:
        assert not said


def test_weights_that_somebody_has_folded_load_strictly():
    m, q = trained(), linger.init(Net())
    folded = {k: v for k, v in linger.init(m).state_dict().items() if "quantizer" not in k and "_linger" not in k}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q.load_state_dict(folded)
    torch.testing.assert_close(q.a.weight, m.a.weight, rtol=0, atol=0)


def test_linger_load_reports_it(tmp_path):
    q = linger.init(Net())
    torch.save(by_keys(trained().state_dict(), q), tmp_path / "x.pt")
    with pytest.warns(UserWarning, match="without the BatchNorm"):
        linger.load(q, tmp_path / "x.pt", strict=False)
    assert "without the BatchNorm" in str(linger.load_report(q))
