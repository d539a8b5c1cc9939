"""Evaluation keeps quantized and packed weights; whatever changes them, the next call notices."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

import linger

LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 6, 6)),
    "large conv": (lambda: nn.Conv2d(32, 64, 3), (1, 32, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, bias=False), (2, 4, 9)),
    "depthwise": (lambda: nn.Conv2d(16, 16, 3, groups=16), (2, 16, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 5, 5)),
    "linear": (lambda: nn.Linear(200, 120), (3, 200)),
}
PARTS = [name for name in LAYERS if name != "transposed"]  # it computes the weight that is packed


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    x = torch.randn(shape)
    model = linger.init(nn.Sequential(layer()), example_inputs=(x,))
    with torch.no_grad():
        model.train()(x)
    model.eval()
    return model, x


def fresh(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a model computes that keeps nothing."""
    with torch.no_grad():
        return copy.deepcopy(model)(x)


@torch.no_grad()
def in_place(m: nn.Module) -> None:
    m.weight.mul_(1.7)


def optimizer_step(m: nn.Module) -> None:
    m.weight.grad = torch.randn_like(m.weight)
    torch.optim.SGD([m.weight], lr=0.5).step()
    m.weight.grad = None


def fused_step(m: nn.Module) -> None:
    m.weight.grad = torch.randn_like(m.weight)
    torch.optim.AdamW([m.weight], lr=0.5, fused=True).step()
    m.weight.grad = None


@torch.no_grad()
def one_element(m: nn.Module) -> None:
    m.weight.view(-1)[5] += 1.0


@torch.no_grad()
def statistics(m: nn.Module) -> None:
    m.weight_quantizer.set_range(m.weight.abs().max() * 4)


def through_numpy(m: nn.Module) -> None:
    m.weight.detach().numpy()[:] *= 0.3


def row_through_data(m: nn.Module) -> None:
    m.weight.data[2] = 0.0


def other_data(m: nn.Module) -> None:
    m.weight.data = m.weight.data.flip(0).clone()


def new_parameter(m: nn.Module) -> None:
    m.weight = nn.Parameter(m.weight.detach() * 0.5)


def state(m: nn.Module) -> None:
    m.load_state_dict({k: v * 0.6 if k == "weight" else v for k, v in m.state_dict().items()})


def assigned_state(m: nn.Module) -> None:
    changed = {k: v.clone() * 0.6 if k == "weight" else v for k, v in m.state_dict().items()}
    m.load_state_dict(changed, assign=True)


@torch.enable_grad()
def training(m: nn.Module) -> None:
    linear = m.weight.dim() == 2
    x = torch.randn(3, m.in_features) if linear else torch.randn(2, m.in_channels, *(6,) * (m.weight.dim() - 2))
    m.train()
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    m(x).square().sum().backward()
    optimizer.step()
    m.eval()


def half_and_back(m: nn.Module) -> None:
    m.bfloat16()
    m.float()


CHANGES = [
    in_place, optimizer_step, fused_step, one_element, statistics, through_numpy, row_through_data, other_data,
    new_parameter, state, assigned_state, training, half_and_back,
]  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_every_change_is_noticed(name, change) -> None:
    model, x = made(name)
    with torch.no_grad():
        before = model(x)
        change(model[0])
        after = model(x)
    assert torch.equal(after, fresh(model, x))
    if change not in (half_and_back, one_element):
        assert not torch.equal(before, after)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_packed_twice(name, mode) -> None:
    model, x = made(name)
    with mode():
        first = model(x)
        entry = model[0].kept_weight.entry
        second = model(x)
    assert entry is not None and model[0].kept_weight.entry is entry
    assert torch.equal(first, second) and torch.equal(first, fresh(model, x))


@pytest.mark.parametrize("name", PARTS)
def test_training_drops_what_was_kept(name) -> None:
    model, x = made(name)
    with torch.no_grad():
        model(x)
        model.train()(x)
    assert model[0].kept_weight.entry is None


def test_the_input_scale_counts_where_the_bias_limits_the_weight() -> None:
    model, x = made("linear")
    with torch.no_grad():
        model[0].bias.fill_(3000.0)
        for factor in (1.0, 1e-4, 1.0):
            model[0].input_quantizer.set_range(x.abs().max() * factor)
            assert torch.equal(model(x * factor), fresh(model, x * factor))


def test_copies_and_files_hold_no_packed_weights() -> None:
    model, x = made("linear")
    with torch.no_grad():
        want = model(x)
    assert copy.deepcopy(model)[0].kept_weight.entry is None
    again = pickle.loads(pickle.dumps(model))
    assert again[0].kept_weight.entry is None
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.no_grad():
        assert torch.equal(again(x), want) and torch.equal(loaded(x), want)
    assert not [key for key in model.state_dict() if "kept" in key]


def test_a_copy_goes_its_own_way() -> None:
    model, x = made("conv")
    with torch.no_grad():
        want = model(x)
        other = copy.deepcopy(model)
        other[0].weight.mul_(0.25)
        changed = other(x)
        assert torch.equal(model(x), want) and not torch.equal(changed, want)


def test_another_instruction_set_packs_again(isa) -> None:
    model, x = made("large conv")
    with torch.no_grad():
        want = model(x)
        for mask in (0, 1, 0xFFFFFFFF):
            linger._C.set_cpu_mask(mask)
            assert torch.equal(model(x), want)


def test_threads_share_it() -> None:
    model, x = made("large conv")
    want, results = fresh(model, x), []

    def run() -> None:
        with torch.no_grad():
            for _ in range(20):
                results.append(torch.equal(model(x), want))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 80 and all(results)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_compiled_and_exported_programs_hold_no_packed_weights() -> None:
    model, x = made("conv")
    with torch.no_grad():
        want = model(x)
        program = torch.export.export(model, (x,))
        assert torch.equal(program.module()(x), want)
    assert not [n for n in program.graph.nodes if "pack" in str(n.target)]
    traced = torch.jit.trace(model, x, check_trace=False)
    with torch.no_grad():
        assert torch.equal(traced(x), want)
