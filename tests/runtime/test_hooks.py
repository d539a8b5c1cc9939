"""Hooks that users register change no integer and no statistics."""

import copy

import pytest
import torch
from torch import nn

import linger
from linger.quantizers import Quantizer
from linger.runtime import info


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Linear(4 * 4 * 4, 8)
        self.tail = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    def forward(self, x):
        y = self.conv(x)
        y = self.pool(torch.relu(y + y))
        return self.tail(self.fc(y.flatten(1)))


def _hook_gradients(model, seen):
    for name, m in model.named_modules():
        if not isinstance(m, Quantizer) and not name.startswith("_linger"):
            m.register_full_backward_pre_hook(lambda m, g, name=name: seen.append(name))
            m.register_full_backward_hook(lambda m, gi, go, name=name: seen.append(name))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_full_backward_hooks_change_nothing(method, wants, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"quant_info: {{qat_method: {method}}}\n")
    torch.manual_seed(0)
    x, seen = torch.randn(2, 3, 8, 8, requires_grad=wants), []
    plain = linger.init(_Net(), str(path), example_inputs=x.detach())
    hooked = copy.deepcopy(plain)
    _hook_gradients(hooked, seen)
    for _ in range(2):
        results = []
        for model in (plain, hooked):
            model.zero_grad()
            y = model(x)
            y.square().sum().backward()
            results.append(y)
        assert torch.equal(*results) and info(results[1]) is not None
    mine, theirs = plain.state_dict(), hooked.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())
    for p, q in zip(plain.parameters(), hooked.parameters(), strict=True):
        assert (p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad)
    assert {"", "conv", "pool", "fc", "tail", "tail.0"} <= set(seen)


def test_forward_hooks_see_quantized_tensors_and_may_replace_them():
    torch.manual_seed(0)
    model, seen = linger.init(_Net()), []
    model.conv.register_forward_hook(lambda m, args, y: seen.append(info(y).bits))
    model.fc.register_forward_pre_hook(lambda m, args: seen.append(info(args[0]) is not None))
    x = torch.randn(2, 3, 8, 8)
    model(x)
    assert seen == [8, True]
    model.pool.register_forward_hook(lambda m, args, y: torch.zeros_like(y))
    assert torch.isfinite(model(x)).all() and seen[3] is False


def test_tensor_hooks_and_retained_gradients():
    model, seen = linger.init(_Net()), []

    def watch(m, args, y):
        y.retain_grad()
        y.register_hook(lambda g: seen.append(g.shape))
        seen.append(y)

    model.conv.register_forward_hook(watch)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert seen[0].grad is not None and seen[1] == seen[0].shape
