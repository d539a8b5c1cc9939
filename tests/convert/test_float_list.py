"""``summary`` and ``check`` list the same operators that compute in float: of graph inputs, and every one of an island."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger


class Floats(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.l, self.o = how, nn.Linear(8, 8), nn.Linear(8, 2)
        self.a, self.g = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.ones(8))

    def forward(self, x):
        match self.how:
            case "input":
                return self.o(x @ self.a)
            case "input twice":
                y = x * self.g
                return self.o(torch.tanh(y))
            case "island":
                y = torch.exp(self.l(x))
                y = y * self.g
                return self.o(torch.log(y.abs() + 1.0))
            case "joined":
                y = torch.sin(self.l(x))
                return self.o(y + torch.cos(x))
            case "moved":
                y = torch.exp(self.l(x)).reshape(-1, 2, 4).transpose(1, 2)
                return self.o(torch.sqrt(y.reshape(-1, 8)))
            case "integers":
                return self.o(torch.relu(self.l(x)) * self.g)


@pytest.mark.parametrize("how", ["input", "input twice", "island", "joined", "moved", "integers"])
def test_one_list(how):
    torch.manual_seed(0)
    q, x = linger.init(Floats(how)), torch.randn(4, 8)
    q.train()(x)
    found = [v for v in linger.check(q, "venusA", x[:1]) if v.what == "float operator"]
    checked = {(v.value, v.layer.rsplit(":", 1)[1].rstrip(")")) for v in found}
    listed = {
        (i.split(": ")[1].split(" ")[0].strip("_"), i.rsplit(":", 1)[1].rstrip(")")) for i in linger.summary(q).islands
    }
    assert listed == checked and bool(listed) is (how != "integers")


MOVES = {
    "pad": lambda x: F.pad(x, (1, 1, 0, 0)),
    "reflected": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "cat": lambda x: torch.cat([x, x], 2),
    "stack": lambda x: torch.stack([x, x], 2).flatten(1, 2),
    "roll": lambda x: x.flip(2).roll(1, 2),
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "shuffle": lambda x: F.pixel_unshuffle(F.channel_shuffle(x, 2), 2),
    "cast": lambda x: F.dropout(x.double().float(), 0.5, False),
}
COMPUTES = {
    "pad": lambda x: F.pad(x, (1, 1), value=1.0),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "mul": lambda x: F.pad(x, (1, 1)) * 2,
}


@pytest.mark.parametrize("kind", [*MOVES, *(f"{k} computes" for k in COMPUTES)])
def test_what_moves_the_elements_of_an_input_is_in_neither_list(kind):
    call = MOVES[kind] if kind in MOVES else COMPUTES[kind.split()[0]]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(call(torch.zeros(1, 4, 8, 8)).shape[1], 2, 1)

        def forward(self, x):
            return self.conv(call(x))

    x = torch.randn(1, 4, 8, 8)
    wanted = [] if kind in MOVES else [kind.split()[0]]
    assert [v.value for v in linger.check(Net(), "arcs", x).errors] == wanted
    islands = linger.summary(linger.init(Net(), example_inputs=x)).islands
    assert [i.split(": ")[1].split()[0] for i in islands] == wanted
