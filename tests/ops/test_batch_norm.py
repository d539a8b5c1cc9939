"""Batch normalisation with its statistics against torch's two operators, differentiated once and twice."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops

SHAPES = [(8, 3), (4, 3, 5), (2, 3, 4, 5)]


def reference(x: Tensor, w: Tensor, b: Tensor, running: tuple, momentum: float, eps: float) -> tuple[Tensor, ...]:
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=1)
    return F.batch_norm(x, *running, w, b, True, momentum, eps), mean, var


def operands(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 2
    return x.requires_grad_(), torch.rand(3).requires_grad_(), torch.randn(3).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("parts", [(0,), (1,), (2,), (0, 1, 2)])
def test_results_gradients_and_statistics(shape, last, parts) -> None:
    if last and len(shape) == 4:
        shape = (2, 3, 5, 4)
    results = []
    for run in (ops.batch_norm, reference):
        x, w, b = operands(shape)
        source = x.contiguous(memory_format=torch.channels_last) if last and x.dim() == 4 else x
        running = torch.zeros(3), torch.ones(3)
        out = run(source, w, b, running, 0.3, 1e-3)
        torch.manual_seed(1)
        loss = sum((out[i] * torch.randn(out[i].shape)).sum() for i in parts)
        grads = torch.autograd.grad(loss, (x, w, b), allow_unused=True)
        results.append(
            (*out, *running, *(torch.zeros(()) if g is None else g.sum() if g.abs().sum() == 0 else g for g in grads))
        )
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)


def test_it_can_be_differentiated_twice() -> None:
    x, w, b = (t.detach().double().requires_grad_() for t in operands((3, 3, 2)))
    assert torch.autograd.gradcheck(lambda *t: ops.batch_norm(*t, (None, None), 0.0, 1e-3), (x, w, b))
    assert torch.autograd.gradgradcheck(lambda *t: ops.batch_norm(*t, (None, None), 0.0, 1e-3), (x, w, b))


def test_a_constant_channel_has_no_variance() -> None:
    _, mean, var = ops.batch_norm(torch.full((4, 2), 3.0), torch.ones(2), torch.zeros(2), (None, None), 0.0, 1e-5)
    assert torch.equal(mean, torch.full((2,), 3.0)) and bool((var.abs() < 1e-11).all())


def test_one_element_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel when training, got input size"):
        ops.batch_norm(torch.ones(1, 3), torch.ones(3), torch.ones(3), (None, None), 0.1, 1e-5)
