"""Which BatchNorms are said to stand alone in code that cannot be read: those whose layer may be in it, and no others."""

import pytest
import torch
from torch import nn

import linger


class Blind(nn.Module):
    """Code that symbolic values cannot run through; ``how`` says where the BatchNorms are."""

    def __init__(self, how):
        super().__init__()
        conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.how = how
        if how == "sequential":
            self.stem = nn.Sequential(conv, norm, nn.ReLU())
        elif how == "module":
            self.stem = Stem()
        elif how == "nested":
            self.stem = nn.Sequential(Stem(), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)))
        elif how == "behind relu":
            self.stem = nn.Sequential(conv, nn.ReLU(), norm)
        elif how == "list":
            self.stem = nn.ModuleList([nn.Sequential(conv, norm)])
        elif how == "direct":
            self.conv, self.norm = conv, norm
        elif how == "first of a part":
            self.conv, self.part = conv, nn.Sequential(norm, nn.ReLU())
        elif how == "in a list":
            self.layers = nn.ModuleList([conv, norm])
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        if x.shape[0] > 100:  # no symbolic value says
            return x
        if self.how == "direct":
            x = self.norm(self.conv(x))
        elif self.how == "first of a part":
            x = self.part(self.conv(x))
        else:
            for m in self.layers if self.how == "in a list" else self.stem if self.how == "list" else [self.stem]:
                x = m(x)
        return self.out(x)


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


def notes(caplog):
    return [r.getMessage() for r in caplog.records if "may stand alone" in r.getMessage()]


@pytest.mark.parametrize("stage", ["constrain", "init", "step"])
@pytest.mark.parametrize("how", ["sequential", "module", "nested", "behind relu", "list"])
def test_folded_norms_and_those_whose_operand_is_known_are_not_named(how, stage, caplog):
    m = Blind(how)
    q = linger.constrain(m) if stage == "constrain" else linger.init(m, fold_bn="step" if stage == "step" else "once")
    assert not notes(caplog)
    if how != "behind relu":
        assert any(type(part).__name__ == "EmptyBatchNorm" for part in q.modules())
    if stage == "constrain":
        linger.init(q)
        assert not notes(caplog)


@pytest.mark.parametrize("stage", ["constrain", "init"])
@pytest.mark.parametrize(
    ("how", "name"), [("direct", "norm"), ("first of a part", "part.0"), ("in a list", "layers.1")]
)
def test_norms_that_a_layer_may_feed_are_named_and_example_inputs_help(how, name, stage, caplog):
    getattr(linger, stage)(Blind(how))
    (said,) = notes(caplog)
    assert f"so {name} may stand alone" in said and "pass example_inputs" in said
    caplog.clear()
    q = getattr(linger, stage)(Blind(how), example_inputs=torch.randn(1, 3, 8, 8))
    assert not notes(caplog) and type(q.get_submodule(name)).__name__ == "EmptyBatchNorm"
