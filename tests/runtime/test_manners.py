"""An initialised model behaves as any other PyTorch module: copies, threads, checkpointing, autocast, averages, errors."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import linger
from linger import ops
from linger.quantizers import Quantizer
from linger.runtime import info, islands_of
from linger.runtime.state import state
from tests.nn.zoo import ZOO, batch, tensors
from tests.runtime.models import TwoAdds


def _two_adds(steps=2):
    torch.manual_seed(0)
    model = linger.init(TwoAdds())
    x = torch.randn(4, 8)
    for _ in range(steps):
        model(x)
    return model, x


def _counts(model):
    return [int(m.n_batches) for m in model.modules() if isinstance(m, Quantizer)]


def _nothing_left():
    return state.frames == [] and state.float_depth == 0 and torch._C._len_torch_function_stack() == 0


# ---- copies


def test_averaged_model_follows():
    model, x = _two_adds()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
    assert not torch.equal(average.module.a.weight, model.a.weight)
    assert float(average.module.a.input_quantizer.running_data) == float(model.a.input_quantizer.running_data)
    assert torch.equal(average.eval()(x), average.module.eval()(x))


def test_two_models_keep_their_own_settings(tmp_path):
    file = tmp_path / "four.yaml"
    file.write_text("quant_info:\n  weight_bits: 4\n")
    four, eight = linger.init(TwoAdds(), str(file)), None
    linger.settings.use(linger.settings.defaults())
    eight = linger.init(TwoAdds())
    x = torch.randn(4, 8)
    four(x), eight(x)
    assert (four.a.weight_quantizer.bits, eight.a.weight_quantizer.bits) == (4, 8)


class _Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.alias = self.a

    def forward(self, x):
        return self.alias(self.a(x)) + self.a(x)


def test_a_module_used_again_has_one_state_and_all_gradients():
    model = linger.init(_Reused())
    model(torch.randn(4, 8)).sum().backward()
    assert model.alias is model.a
    assert int(model.a.output_quantizer.n_batches) == 3
    assert torch.isfinite(model.a.weight.grad).all()


# ---- threads


def _replica(model):
    """What ``DataParallel`` runs in each thread."""
    modules = list(model.modules())
    made = {id(m): m._replicate_for_data_parallel() for m in modules}
    for m in modules:
        replica = made[id(m)]
        replica._former_parameters = {}
        for key, child in m._modules.items():
            replica._modules[key] = None if child is None else made[id(child)]
        for key, p in m._parameters.items():
            if p is not None:
                setattr(replica, key, p.clone())
        for key, b in m._buffers.items():
            replica._buffers[key] = None if b is None else b.clone()
    return made[id(model)]


def _in_threads(*jobs):
    results, errors = [None] * len(jobs), []

    def run(i):
        try:
            results[i] = jobs[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results


def test_replicas_of_data_parallel_run_and_train():
    model, x = _two_adds()
    want = copy.deepcopy(model).eval()(x)
    parts = [_replica(model.eval()) for _ in range(2)]
    got = torch.cat(_in_threads(*(lambda i=i: parts[i](x[2 * i : 2 * i + 2]) for i in range(2))))
    assert torch.equal(got, want)
    got.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_operator_first_met_in_a_replica_is_refused():
    model, x = _two_adds(steps=0)
    with pytest.raises(linger.UnsupportedError, match="before wrapping the model"):
        _in_threads(lambda: _replica(model)(x))


def test_two_threads_run_two_models():
    pairs = [_two_adds(), _two_adds()]
    want = [copy.deepcopy(m).eval()(x) for m, x in pairs]
    same = _in_threads(
        *(
            lambda m=m, x=x, w=w: all(torch.equal(m.eval()(x), w) for _ in range(30))
            for (m, x), w in zip(pairs, want, strict=False)
        )
    )
    assert same == [True, True]


# ---- checkpointing


class _Checkpointed(nn.Module):
    def __init__(self, how, reentrant=False):
        super().__init__()
        self.first, self.inner, self.how, self.reentrant = nn.Linear(8, 8), TwoAdds(), how, reentrant

    def forward(self, x):
        y = self.first(x)
        if self.how == "module":
            y = checkpoint(self.inner, y, use_reentrant=self.reentrant)
        elif self.how == "function":
            y = checkpoint(lambda a: a + self.first(a), y, use_reentrant=self.reentrant)
        else:
            y = self.inner(y)
        return y + y


def _train(model, x, steps=3):
    for _ in range(steps):
        model.zero_grad()
        model(x).square().sum().backward()
    return model


def test_checkpointing_a_module_changes_nothing():
    x = torch.randn(4, 8)
    torch.manual_seed(0)
    plain = linger.init(_Checkpointed("no"))
    saved = linger.init(_Checkpointed("module"))
    saved.load_state_dict(plain.state_dict())
    _train(plain, x), _train(saved, x)
    assert _counts(plain) == _counts(saved)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), saved.state_dict().values(), strict=False)
    )
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), saved.parameters(), strict=False))


def test_reentrant_checkpointing_is_refused():
    model = linger.init(_Checkpointed("module", reentrant=True))
    with pytest.raises(linger.UnsupportedError, match="use_reentrant=False"):
        _train(model, torch.randn(4, 8))
    assert _nothing_left()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_function_is_refused(reentrant):
    model = linger.init(_Checkpointed("function", reentrant))
    with pytest.raises(linger.UnsupportedError, match="move the code into a module"):
        model(torch.randn(4, 8))
    assert _nothing_left()


# ---- gradients and modes


def test_frozen_layers_stay_bit_for_bit():
    model, x = _two_adds(steps=0)
    for p in model.b.parameters():
        p.requires_grad_(False)
    before = [p.clone() for p in model.b.parameters()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.b.parameters(), before, strict=False))


class _Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        with torch.no_grad():
            y = self.a(x)
        return self.b(x) + y


def test_parts_without_gradients_in_training():
    model = linger.init(_Teacher())
    model(torch.randn(4, 8)).square().sum().backward()
    assert model.a.weight.grad is None
    assert torch.isfinite(model.b.weight.grad).all()
    assert int(model.a.output_quantizer.n_batches) == 1


def test_double_backward_of_elementwise_operators():
    x = torch.randn(64, requires_grad=True)
    first, second, total = Quantizer(8), Quantizer(8), Quantizer(8)
    z = ops.add(first(x), second(x.square()), total.output())
    (gradient,) = torch.autograd.grad(z.value.pow(3).sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(gradient.square().sum(), x)
    assert torch.isfinite(twice).all() and twice.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["ConvNet", "Sequence1d", "Two"])
def test_autocast_changes_the_type_of_values_only(name, dtype):
    torch.manual_seed(0)
    model = linger.init(ZOO[name]())
    twin, inputs = copy.deepcopy(model), batch(ZOO[name])
    torch.manual_seed(1)
    want = tensors(model(*inputs))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        got = tensors(twin(*inputs))
        sum(y.float().square().mean() for y in got).backward()  # around backward, too
    for a, b in zip(want, got, strict=True):
        assert b.dtype == dtype
        assert torch.equal(a.to(dtype), b)
    states = [m.state_dict() for m in (model, twin)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert all(p.grad is None or p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in twin.parameters())


def test_calibration_under_autocast_measures_in_float32():
    (model, x), (twin, _) = _two_adds(0), _two_adds(0)
    with linger.calibration(model):
        model(x)
    with linger.calibration(twin), torch.autocast("cpu", torch.bfloat16):
        twin(x)
    assert torch.equal(model.a.output_quantizer.running_data, twin.a.output_quantizer.running_data)


@pytest.mark.parametrize("name", ["ConvNet", "Sequence1d", "Two"])
def test_inference_mode_gives_the_same_integers(name):
    torch.manual_seed(0)
    model, inputs = linger.init(ZOO[name]()), batch(ZOO[name])
    model(*inputs)
    want = tensors(model.eval()(*inputs))
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(tensors(model(*inputs)), want, strict=True))


# ---- errors, regions, statistics


class _Fails(nn.Module):
    error: BaseException | None = None

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x):
        y = self.a(x)
        if self.error is not None:
            with linger.float_region():
                raise self.error
        return y + y


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_exception_inside_forward_leaves_nothing_behind(error):
    model, x = linger.init(_Fails()), torch.randn(4, 8)
    model.error = error
    with pytest.raises(type(error)):
        model(x)
    assert _nothing_left()
    model.error = None
    assert info(model(x)) is not None


class _Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def encode(self, x):
        a = self.a(x)
        return a + self.b(a)

    def forward(self, x):
        y = self.encode(x)
        with linger.float_region():
            self.loss = torch.log1p(y.abs()).mean()
        return y


def test_active_reaches_other_methods_and_float_regions_are_not_reported():
    torch.manual_seed(0)
    model, x = linger.init(_Coder()), torch.randn(4, 8)
    with linger.active(model):
        assert info(model.encode(x)) is not None
    assert _nothing_left()
    assert info(model(x)) is not None
    assert torch.isfinite(model.loss) and islands_of(model) == []
    with pytest.raises(TypeError, match="must be initialised"):
        linger.active(nn.Linear(2, 2)).__enter__()
