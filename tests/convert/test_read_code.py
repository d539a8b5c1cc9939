"""Reading a model's code, without example inputs, disturbs nobody and understands what torch.fx does."""

import copy
import math
import threading
from math import sqrt

import pytest
import torch
from convert.nets import images
from torch import nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger
from linger.convert.neighbours import discover, fusable_pairs
from tests.nn.zoo import ZOO, batch


def found(model, example=None):
    adjacency = discover(model, example)
    names = {id(m): n for n, m in model.named_modules()}
    pairs = {(names[id(p.layer)], names[id(p.bn)]) for p in fusable_pairs(adjacency)}
    return pairs, {names[k] for k in adjacency.before_relu}, adjacency.blind


@pytest.mark.parametrize("name", list(ZOO))
def test_reading_and_running_agree(name):
    (pairs, relus, blind), run = found(ZOO[name]()), found(ZOO[name](), batch(ZOO[name]))
    assert (pairs, relus) == run[:2] if not blind else pairs <= run[0] and relus <= run[1]


class _Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x))


class _WhileOthersRun(_Pair):
    """While its code is being read, another thread uses PyTorch."""

    def forward(self, x):
        seen = []

        def other():
            try:
                float_model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
                seen.append(float_model(images()))
                seen.append(torch.fx.symbolic_trace(float_model)(images()))
                seen.append(torch.compile(float_model, backend="eager")(images()))
            except BaseException as error:
                seen.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        self.seen.extend(seen)
        return super().forward(x)

    seen: list = []  # noqa: RUF012  of the class: the object's own comes back as it was


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_in_other_threads_run_meanwhile():
    _WhileOthersRun.seen.clear()
    assert found(_WhileOthersRun())[0] == {("conv", "bn")}
    assert [type(s) for s in _WhileOthersRun.seen] == [torch.Tensor] * 6  # read in eval and in training mode


def test_nothing_in_torch_is_replaced():
    before = nn.Module.__call__, nn.Module.__getattr__

    class Looks(_Pair):
        def forward(self, x):
            assert (nn.Module.__call__, nn.Module.__getattr__) == before
            assert not torch.fx._symbolic_trace.is_fx_symbolic_tracing()
            return super().forward(x)

    assert found(Looks())[0] == {("conv", "bn")}


@torch.fx.wrap
def opaque(x):
    return x if x.sum() > 0 else -x


class _Scaled(_Pair):
    """Functions of `math` on sizes, in the forward and in a method; a function that is marked as one step."""

    def scale(self, x):
        return x / math.sqrt(x.size(1)) * sqrt(x.size(0))

    def forward(self, x):
        return opaque(self.scale(self.bn(self.conv(x))) + math.pi)


def test_math_on_sizes_and_wrapped_functions():
    assert found(_Scaled())[::2] == ({("conv", "bn")}, {})


class _Packed(_Pair):
    """A convolution in front of a packed LSTM, as speech models have it; `torch` and the function by its own name."""

    def __init__(self, spelling):
        super().__init__()
        self.lstm, self.spelling = nn.LSTM(8, 4, batch_first=True), spelling

    def forward(self, x, lengths):
        y = self.bn(self.conv(x)).flatten(2).transpose(1, 2)
        if self.spelling == "name":
            packed = pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False)
        elif self.spelling == "module":
            packed = rnn.pack_padded_sequence(y, lengths, True, False)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(y, lengths, True, False)
        out, (h, _) = self.lstm(packed)
        out, _ = pad_packed_sequence(out, batch_first=True)
        return out, h


@pytest.mark.parametrize("spelling", ["name", "module", "attributes"])
def test_packed_sequences(spelling):
    assert found(_Packed(spelling))[::2] == ({("conv", "bn")}, {})


class _Kept(_Pair):
    def forward(self, x):
        y = self.conv(x)
        self.features = {"low": [y]}
        return self.bn(y)


def test_a_value_kept_on_the_module_has_another_reader():
    m = _Kept()
    assert found(m)[0] == set()
    assert not hasattr(m, "features")


class _Roundabout(nn.Module):
    """Its layers are called through a list, a dictionary, and a bound method."""

    def __init__(self):
        super().__init__()
        self.a, self.b = _Pair(), _Pair()
        self.order = [self.a.conv, self.a.bn]
        self.table = {"first": (self.b.conv,)}
        self.norm = self.run_norm

    def run_norm(self, x):
        return self.b.bn(x)

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return self.norm(self.table["first"][0](x))


def test_layers_called_in_roundabout_ways():
    assert found(_Roundabout())[0] == {("a.conv", "a.bn"), ("b.conv", "b.bn")}


class _Asks(_Pair):
    """Code that looks at its layers."""

    def forward(self, x):
        assert isinstance(self.bn, nn.BatchNorm2d) and self.conv.weight.shape[0] == self.bn.num_features
        if len(list(self.children())) == 2 and self.bn.training == self.training:
            return self.bn(self.conv(x * self.conv.out_channels))
        return x


def test_code_that_looks_at_its_layers():
    assert found(_Asks())[0] == {("conv", "bn")}


class _Several(_Pair):
    def forward(self, *images, scale=2.0, **more):
        return [self.bn(self.conv(images[0])), scale]


def test_any_signature():
    assert found(_Several())[0] == {("conv", "bn")}


class _Slots(_Pair):
    __slots__ = ("factor",)

    def __new__(cls, factor):
        return super().__new__(cls)

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return super().forward(x) * self.factor


def test_slots_and_constructors_with_arguments():
    assert found(_Slots(3))[0] == {("conv", "bn")}


def test_hooks_of_layers_do_not_see_symbolic_values():
    m, seen = _Pair(), []
    m.conv.register_forward_hook(lambda *a: seen.append(a))
    assert found(m)[0] == {("conv", "bn")} and seen == []


def test_hooks_of_owners_do_not_run_and_part_neighbours():
    """A hook may replace what it gets: nothing is folded across one; inside the hooked part everything is as without it."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.bn = _Pair(), nn.Sequential(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn(self.conv(self.first(x)))

    m, seen = Two(), []
    assert found(m)[0] == {("first.conv", "first.bn"), ("conv.0", "bn")}
    for part in (m, m.first):
        part.register_forward_pre_hook(lambda *a: seen.append(a))
        part.register_forward_hook(lambda *a: seen.append(a))
    assert found(m)[0] == {("first.conv", "first.bn"), ("conv.0", "bn")}
    m.conv.register_forward_hook(lambda m, args, y: seen.append(args) or -y)
    assert found(m)[0] == {("first.conv", "first.bn")}
    linger.constrain(copy.deepcopy(m))
    linger.init(m)
    assert seen == []


def test_a_forward_on_the_instance_is_not_guessed():
    m = nn.Sequential(_Pair(), nn.ReLU())
    m[0].forward = lambda x: m[0].bn(x) + m[0].conv(x)
    assert found(m)[0] == set()
    linger.constrain(m)
    assert type(m[0].bn) is not nn.BatchNorm2d  # constrained by itself, not fused
