"""The native quantizing operators as torch sees them: schemas, fake kernels, refusals, compilation."""

import pytest
import torch
from ops_oracle import LAYOUTS, fixed, output, packed, stats
from torch import Tensor

from linger import ops
from linger.ops.spec import GRAD, OBSERVE, RELU, settings_of

native = torch.ops.linger


def test_native_refusals_name_the_argument() -> None:
    x, mask = torch.zeros(8), torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="mask_grad: mask must have 1 bytes, got 2"):
        native.mask_grad(x, torch.zeros(2, dtype=torch.uint8), 0)
    with pytest.raises(RuntimeError, match="mask_grad: grad must be dense"):
        native.mask_grad(torch.zeros(16)[::2], mask, 0)
    with pytest.raises(RuntimeError, match="mask_grad: row must divide 8, got 3"):
        native.mask_grad(x, mask, 3)
    with pytest.raises(RuntimeError, match="threshold_grad: grad and slope must have one shape"):
        native.threshold_grad(x, torch.zeros(4), torch.ones(()))
    s = stats()._replace(running=torch.zeros(2))
    with pytest.raises(RuntimeError, match="quantize: every state tensor must have one element"):
        native.quantize(x, *s, settings_of(8, 1, 0))


@pytest.mark.parametrize("flags", [0, OBSERVE, GRAD | RELU])
@pytest.mark.parametrize("threshold", [None, torch.tensor([1.0])])
@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
def test_opcheck_of_the_quantizing_operators(flags: int, threshold: Tensor | None, layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(2, 3, 4, 5))
    settings = settings_of(8, 1, flags & ~GRAD)
    torch.library.opcheck(native.quantize.default, (x, *fixed(3), settings, threshold))
    if threshold is None:
        torch.library.opcheck(native.quantize_mask.default, (x, *fixed(3), settings))
    else:
        torch.library.opcheck(native.quantize_slope.default, (x, *fixed(3), settings, threshold))
    call = (x, *fixed(3), threshold, torch.ones(2), torch.ones(()), 16, flags)
    torch.library.opcheck(native.quantize_weight.default, call)


def test_opcheck_of_the_others() -> None:
    one, q = torch.ones(()), torch.zeros(2, 9, dtype=torch.int8)
    x, mask = torch.randn(2, 9), torch.zeros(3, dtype=torch.uint8)
    for op, args in [
        (native.quantize_bias, (x, one, one)),
        (native.dequantize, (q, one)),
        (native.dequantize, (q.int().t(), one)),
        (native.codes_of, (x, one, 8)),
        (native.quantize_codes, (x, 3, 16)),
        (native.mask_grad, (x, mask, 0)),
        (native.mask_grad, (x, torch.zeros(4, dtype=torch.uint8), 9)),
        (native.threshold_grad, (x, x, one)),
    ]:
        torch.library.opcheck(op.default, args)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_has_no_graph_break(backend: str) -> None:
    def step(x: Tensor, out: ops.Output) -> Tensor:
        return ops.quantize(x * 2, out).value.sum()

    grads = []
    for f in (step, torch.compile(step, backend=backend, fullgraph=True)):
        x, t = torch.linspace(-2, 2, 40).requires_grad_(), torch.tensor([1.0], requires_grad=True)
        s = stats()
        f(x, output(s, threshold=t, observe=True)).backward()
        grads.append((x.grad, t.grad, s.scale, s.n_batches))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 63, 64, 72, 79, 80, 1000, 40001])
@pytest.mark.parametrize("rare", [1, 3, 40, 5000])
def test_masking_in_place_gives_the_same_bits(n: int, rare: int, isa: str) -> None:
    generator = torch.Generator().manual_seed(n + rare)
    grad = torch.randn(n, generator=generator)
    grad[::7] = float("nan")
    bits = torch.randint(0, rare, (n,), generator=generator) > 0
    mask = packed(bits)
    want = native.mask_grad(grad, mask, 0)
    assert torch.equal(want, torch.where(bits, grad, 0.0)) or bool(grad.isnan().any())
    native.mask_grad_(grad, mask)
    assert torch.equal(grad.view(torch.int32), want.view(torch.int32))


def test_masking_in_place_is_seen_by_torch() -> None:
    grad, mask = torch.ones(9), torch.zeros(2, dtype=torch.uint8)
    torch.library.opcheck(native.mask_grad_.default, (grad, mask))
    with pytest.raises(RuntimeError, match="mask_grad: mask must have 2 bytes, got 1"):
        native.mask_grad_(grad, mask[:1])
    with pytest.raises(RuntimeError, match="mask_grad: grad must be dense"):
        native.mask_grad_(torch.zeros(16)[::2], mask[:1])
