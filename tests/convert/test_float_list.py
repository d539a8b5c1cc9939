"""``summary`` and ``check`` list the same operators that compute in float: of graph inputs, and every one of an island."""

import pytest
import torch
from torch import nn

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
