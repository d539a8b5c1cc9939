"""Small constants in front of roots, logarithms and divisions never round to nothing; what makes a NaN is named."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger


class Guarded(nn.Module):
    """A hand-written formula whose small constant keeps it finite where its operand is 0."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(8, 8), nn.Linear(8, 4)
        self.register_buffer("eps", torch.tensor(1e-5))

    def forward(self, x):
        h = F.relu(self.a(x) - 1)  # rows of zeros
        match self.how:
            case "root":
                y = torch.sqrt(h.clamp(min=1e-4))
            case "clamp_min":
                y = h / torch.clamp_min(h.sum(-1, keepdim=True), 1e-5)
            case "sum":
                y = h / (h.sum(-1, keepdim=True) + 1e-6)
            case "turned round":
                y = h / (1e-6 + h.sum(-1, keepdim=True))
            case "difference":
                y = h / (h.sum(-1, keepdim=True) - -1e-6)
            case "buffer":
                y = h / (h.sum(-1, keepdim=True) + self.eps)
            case "norm":
                y = (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-5)
            case "layer norm":
                mean = h.mean(-1, keepdim=True)
                y = (h - mean) / torch.sqrt((h - mean).square().mean(-1, keepdim=True) + 1e-5)
            case "rms":
                y = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
            case "logarithm":
                y = torch.log(h + 1e-3)
            case "reciprocal":
                y = h * (h.mean(-1, keepdim=True) + 1e-4).reciprocal()
            case "one over":
                y = 1 / (h + 1e-2)
            case "power":
                y = (h + 1e-3) ** -0.5
            case "moved":
                y = h / (h.sum(-1) + 1e-6).unsqueeze(-1)
            case "repeated":
                y = h / (h.sum(-1, keepdim=True) + 1e-6).expand(-1, 8)
            case "in place":
                total = h.sum(-1, keepdim=True)
                total += 1e-6
                y = h / total
            case "clamp in place":
                y = torch.log(h.clamp_(min=1e-4))
            case "twice":
                y = torch.log(h.clamp(min=1e-5) + 1e-5)
            case "both limits":
                y = torch.log(h.clamp(1e-4, 10.0))
            case "negative":
                y = torch.sqrt(-(-h).clamp(max=-1e-4))
        return self.b(y)


HOWS = """root|clamp_min|sum|turned round|difference|buffer|norm|layer norm|rms|logarithm|reciprocal|one over|power|moved|repeated
|in place|clamp in place|twice|both limits""".replace("\n", "").split("|")


@pytest.mark.parametrize("qat", ["MOM", "TQT"])
@pytest.mark.parametrize("how", HOWS)
def test_a_guard_never_rounds_to_nothing(how, qat, tmp_path, caplog):
    torch.manual_seed(0)
    (tmp_path / "c.yaml").write_text(f"quant_info: {{qat_method: {qat}, a_calibrate_name: abs_max}}\n")
    m, x = Guarded(how), torch.randn(32, 8)
    want = m(x).detach()
    q = linger.init(m, config_file=tmp_path / "c.yaml")
    with linger.calibration(q):
        q(x)
    got = q.eval()(x)
    assert got.isfinite().all() and (F.relu(m.a(x) - 1).sum(-1) == 0).any()
    assert (got - want).square().mean() < 0.4 * want.square().mean()  # eight bits, and rows of zeros beside others
    optimizer = torch.optim.SGD(q.train().parameters(), 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        q(x).square().mean().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in q.parameters())
        optimizer.step()
    one = x[:1]
    zero = x[int((F.relu(q.a(x) - 1).sum(-1)).argmin())][None]
    q.eval()
    linger.onnx.export(q, one, tmp_path / "m.onnx")
    runner = linger.onnx.OnnxRunner(tmp_path / "m.onnx")
    for v in (one, zero):
        file = next(iter(runner.run(v.numpy()).values()))
        assert torch.equal(torch.from_numpy(file), q(v).detach())
    assert "NaN" not in caplog.text


def test_integer_readers_keep_codes():
    """A guard that no float operator reads costs nothing: the sum is the chip's."""

    class Ints(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)) + 1e-6)

    q, x = linger.init(Ints()), torch.randn(4, 8)
    q.train()(x)
    assert linger.runtime.info(q.eval()(x)) is not None and not linger.summary(q).islands


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_limit_keeps_one_code_step(scale):
    class Positive(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            return self.a(x).clamp(min=1e-4)

    q, x = linger.init(Positive()), torch.randn(4, 8) * scale
    q.train()(x)
    y = q.eval()(x)
    assert (y > 0).all() and (linger.runtime.info(y).codes >= 1).all()


class Broken(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = F.relu(self.a(x) - 1)
        match self.how:
            case "log":
                y = torch.log(h)
            case "sqrt":
                y = torch.sqrt(h - 5)
            case "div":
                y = h / h.sum(-1, keepdim=True)
            case "reciprocal":
                y = h.reciprocal()
            case "exp":
                y = torch.exp(h * 500)
            case "pow":
                y = h**-1.5
        return self.b(y * 0.5)


@pytest.mark.filterwarnings("ignore:.*have seen no data yet")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", ["log", "sqrt", "div", "reciprocal", "exp", "pow"])
def test_the_operator_that_made_a_nan_is_named_once(how, training, caplog):
    torch.manual_seed(0)
    q, x = linger.init(Broken(how)), torch.randn(32, 8) * (50 if how == "exp" else 1)
    q.train(training)
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "linger"):
            q(x)
    lines = [r.getMessage() for r in caplog.records if "NaN or infinite" in r.getMessage()]
    assert len(lines) == 1 and how in lines[0].split("`")[1] and "test_guards.py:" in lines[0]


def test_masks_are_no_fault(caplog):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            y = self.a(x)
            mask = torch.full_like(y, float("-inf")).triu(1)
            return torch.softmax((y + mask).masked_fill(y < -3, float("-inf")), -1)

    linger.init(Masked()).train()(torch.randn(8, 8))
    assert "NaN or infinite" not in caplog.text
