"""Assignment to a part of a tensor, and stacks of rank 4: in integers, and in the file."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger


class Parts(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b, self.c = how, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        h = F.relu(self.a(x))
        o = torch.zeros_like(h)
        match self.how:
            case "rows":
                o[:, :, 1:] = h[:, :, :-1]
            case "columns":
                o[..., :-2] = h[..., 2:]
            case "channels":
                o[:, 2:6] = h[:, :4]
            case "two axes":
                o[:, :4, 1:] = h[:, :4, :-1]
                o[:, 4:] = h[:, 4:]
            case "shift both ways":
                o[:, :2, :-1] = h[:, :2, 1:]
                o[:, 2:4, 1:] = h[:, 2:4, :-1]
                o[:, 4:] = h[:, 4:]
            case "number":
                o[:, 3] = h[:, 0]
            case "over codes":
                o = self.c(x)
                o[:, :4] = h[:, :4]
            case "negative":
                o[:, :, -3:] = h[:, :, :3]
            case "empty":
                o = h.new_zeros(h.shape)
                o[:, :, :, 1:3] = h[:, :, :, :2]
        return self.b(o)


HOWS = ["rows", "columns", "channels", "two axes", "shift both ways", "number", "over codes", "negative", "empty"]


def checked(q, x, tmp_path):
    q.eval()
    linger.onnx.export(q, x, tmp_path / "m.onnx")
    got = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values()))
    assert torch.equal(torch.from_numpy(got), q(x).detach())


@pytest.mark.parametrize("platform", ["venusA", "arcs", "venus"])
@pytest.mark.parametrize("how", HOWS)
def test_assignment_runs_in_integers(how, platform, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\nquant_info: {{a_calibrate_name: abs_max}}\n")
    m, x = Parts(how), torch.randn(4, 3, 8, 8)
    want, gradient = m(x).detach(), torch.autograd.grad(m(x).square().mean(), m.a.weight)[0]
    q = linger.init(m, config_file=tmp_path / "c.yaml")
    with linger.calibration(q):
        q(x)
    assert (q.eval()(x) - want).square().sum() < 0.1 * want.square().sum() and not linger.summary(q).islands
    got = torch.autograd.grad(q.train()(x).square().mean(), q.a.weight)[0]
    assert torch.cosine_similarity(got.flatten(), gradient.flatten(), 0) > 0.9
    checked(q, x[:1], tmp_path)


class Stacks(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim, self.a, self.b, self.c = dim, nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        y = torch.stack([self.a(x), self.b(x)], self.dim)
        if self.dim == 0:
            return self.c(y.transpose(0, 1).reshape(x.shape[0], 8, 6, 6))
        return self.c(y.reshape(x.shape[0], 8, 6, 6))


@pytest.mark.parametrize("dim", [1, 2, -1, 3, 4])
def test_stacks_of_rank_4(dim, tmp_path):
    torch.manual_seed(0)
    m, x = Stacks(dim), torch.randn(3, 3, 6, 6)
    want = m(x).detach()
    q = linger.init(m)
    with linger.calibration(q, a_calibrate_name="abs_max"):
        q(x)
    assert (q.eval()(x) - want).square().sum() < 0.1 * want.square().sum() and not linger.summary(q).islands
    assert not linger.check(q, "venusA", x[:1]).errors
    checked(q, x[:1], tmp_path)
