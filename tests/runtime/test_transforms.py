"""``torch.func``, ``torch.jit`` and counters of operations on converted models: each works, or refuses in one sentence."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own use of torch.jit.script
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.fc((x + x.mean((2, 3), keepdim=True)).mean((2, 3)))


def made(stage):
    torch.manual_seed(0)
    q = getattr(linger, stage)(Net(), example_inputs=X)
    if stage == "init":
        with linger.calibration(q):
            q.eval()(X)
    return q.eval()


def loss(q):
    return lambda p, x: functional_call(q, p, (x,)).square().sum()


def parts(q):
    return dict(q.named_parameters()), dict(q.named_buffers())


TRANSFORMS = {
    "grad": lambda q: grad(loss(q))(parts(q)[0], X),
    "per sample": lambda q: vmap(grad(lambda p, x: loss(q)(p, x[None])), in_dims=(None, 0))(parts(q)[0], X),
    "vmap": lambda q: vmap(lambda x: q(x[None])[0])(X),
    "jacrev": lambda q: jacrev(q)(X),
    "jacfwd": lambda q: jacfwd(lambda x: q(x[:1]))(X[:1]),
    "vjp": lambda q: vjp(q, X)[1](torch.ones(2, 2)),
    "jvp": lambda q: jvp(q, (X,), (torch.ones_like(X),)),
    "ensemble": lambda q: vmap(lambda p, b: functional_call(q, (p, b), (X,)))(
        *stack_module_state([q, copy.deepcopy(q)])
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stage", ["constrain", "init"])
def test_functional_call_is_the_model_with_other_tensors(stage, training):
    q = made(stage).train(training)
    parameters, buffers = parts(q)
    twice = {k: 2 * p for k, p in parameters.items()}
    other = copy.deepcopy(q)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    copies = {k: b.clone() for k, b in buffers.items()}
    assert torch.equal(functional_call(q, (twice, copies), (X,)), other(X))
    assert all(torch.equal(b, dict(q.named_buffers())[k]) for k, b in buffers.items())


@pytest.mark.parametrize("how", TRANSFORMS)
def test_the_constrained_stage_transforms_as_torch_does(how):
    q, m = made("constrain"), Net().eval()
    m.load_state_dict({k.replace("conv.conv", "conv").replace("conv.bn", "norm"): v for k, v in q.state_dict().items()
                       if "_linger" not in k})  # fmt: skip
    got, wanted = TRANSFORMS[how](q), TRANSFORMS[how](m)
    if isinstance(got, dict):
        got = {k.replace("conv.conv", "conv").replace("conv.bn", "norm"): v for k, v in got.items()}
        got, wanted = [got[k] for k in wanted], list(wanted.values())
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("how", TRANSFORMS)
def test_an_initialised_model_refuses_transforms_and_nothing_moves(how, training):
    q = made("init").train(training)
    before = {k: v.clone() for k, v in q.state_dict().items()}
    with pytest.raises(linger.UnsupportedError, match=r"torch\.func \(grad, .*use loss\.backward\(\)"):
        TRANSFORMS[how](q)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    assert torch.autograd.functional.jacobian(q.eval(), X).shape == (2, 2, *X.shape)


LAYERS = [
    (nn.Linear(4, 3), (2, 4)),
    (nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    (nn.LSTM(4, 3), (2, 2, 4)),
    (nn.LayerNorm(4), (2, 4)),
    (nn.BatchNorm2d(3), (2, 3, 4, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda a: type(a).__name__)
def test_single_layers_refuse_too(layer, shape):
    q, x = linger.init(copy.deepcopy(layer)), torch.randn(shape)
    q.train()(x)
    q.eval()
    for transform in (lambda p: grad(lambda p: functional_call(q, p, (x,))[0].sum())(p), lambda _: jacrev(q)(x)):
        with pytest.raises(linger.UnsupportedError, match=r"torch\.func"):
            transform(dict(q.named_parameters()))
    with pytest.raises(
        linger.UnsupportedError, match=r"torch\.jit\.script cannot compile .*Int, .*use torch\.jit\.trace"
    ):
        torch.jit.script(q)


@pytest.mark.parametrize("stage", ["constrain", "init"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_script_refuses_and_trace_works(stage):
    q = made(stage)
    with pytest.raises(linger.UnsupportedError, match=r"torch\.jit\.script cannot compile"):
        torch.jit.script(q)
    torch.testing.assert_close(torch.jit.trace(q, X)(X), q(X), atol=1e-6, rtol=0)


def count(model, x, *, leaves):
    """What thop does: buffers on every module, hooks on leaves; the buffers of modules without a rule stay."""
    handles = []

    def see(m, _, y):
        m.total_ops += float(y[0].numel() if isinstance(y, tuple) else y.numel())

    def add(m):
        for name in ("total_ops", "total_params"):
            m.register_buffer(name, torch.zeros(1, dtype=torch.float64))
        if not list(m.children()):
            handles.append((m, m.register_forward_hook(see)))

    training = model.training
    model.eval().apply(add)
    with torch.no_grad():
        model(x)
    total = sum(float(m.total_ops) for m, _ in handles)
    model.train(training)
    for m, handle in handles if not leaves else ():
        handle.remove()
        del m._buffers["total_ops"], m._buffers["total_params"]
    return total


ORDERS = ["count constrain", "constrain count", "count init", "init count", "constrain count init", "init count count"]


@pytest.mark.filterwarnings("ignore:linger. these quantizers have seen no data")
@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_counters_change_nothing(order, leaves, tmp_path):
    def run(*steps):
        torch.manual_seed(0)
        m = Net()
        for step in steps:
            if step == "count":
                assert count(m, X, leaves=leaves) > 0
            else:
                m = getattr(linger, step)(m, example_inputs=X)
        m.train()(X).sum().backward()
        return m.eval()

    q, plain = run(*order.split()), run(*order.replace("count", "").split())
    assert torch.equal(q(X), plain(X)) and torch.equal(copy.deepcopy(q)(X), q(X))
    linger.save(q, tmp_path / "q.pt")
    linger.save(plain, tmp_path / "plain.pt")
    assert torch.equal(linger.load(Net(), tmp_path / "q.pt").eval()(X), plain(X))
    assert torch.equal(linger.load(q, tmp_path / "plain.pt").eval()(X), plain(X))
    if "init" in order:
        linger.onnx.export(q, X[:1], tmp_path / "m.onnx")
