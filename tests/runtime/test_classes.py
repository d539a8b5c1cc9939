"""Classes that watch, restrict or register their subclasses are converted without hearing of it."""

import abc
import copy
import pickle
import types

import pytest
import torch
from torch import nn

import linger
from linger.convert import report_of
from linger.nn import LinearInt
from linger.nn.constrained.layers import NormalizeLinear
from linger.runtime import base_class, info, is_owner


class _Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        a = self.a(x)
        return a + self.b(a)


class Slotted(_Sum):
    __slots__ = ("note",)

    def __init__(self):
        super().__init__()
        self.note = "kept"

    def __getstate__(self):
        return {**self.__dict__, "note": self.note}


class _Keywords(_Sum):
    heard = ()

    def __init_subclass__(cls, *, name, **kwargs):
        super().__init_subclass__(**kwargs)
        _Keywords.heard += (name,)


class WithKeywords(_Keywords, name="mine"):
    pass


class Final(_Sum):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("final")


_known = {}


class _Registry(type):
    """Keeps one class per name, and marks what it constructs."""

    def __new__(meta, name, bases, body, *, key):
        assert key not in _known
        _known[key] = cls = super().__new__(meta, name, bases, body)
        return cls

    def __init__(cls, name, bases, body, *, key):
        super().__init__(name, bases, body)

    def __call__(cls, *args):
        made = super().__call__(*args)
        made.mark = "constructed"
        return made


class Registered(_Sum, metaclass=_Registry, key="registered"):
    pass


class Abstract(_Sum, abc.ABC):
    @abc.abstractmethod
    def encode(self, x): ...

    def forward(self, x):
        return self.encode(x)


class Concrete(Abstract):
    def encode(self, x):
        return _Sum.forward(self, x)


KINDS = [Slotted, WithKeywords, Final, Registered, Concrete]


@pytest.mark.parametrize("make", KINDS)
def test_owners_of_every_kind(make):
    torch.manual_seed(0)
    user = make()
    cls, x = type(user), torch.randn(4, 8)
    model = linger.init(user)
    assert model is user and is_owner(model) and base_class(model) is cls and isinstance(model, cls)
    assert (type(model).__name__, type(model).__module__) == (cls.__name__, cls.__module__)
    assert info(model(x)) is not None
    want = model.eval()(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model) and torch.equal(twin(x), want)
        assert {k: v for k, v in vars(twin).items() if k == "mark"} == {
            k: v for k, v in vars(user).items() if k == "mark"
        }


def test_nobody_was_told():
    for make in KINDS:
        linger.init(make())
    assert _Keywords.heard == ("mine",)
    assert _known == {"registered": Registered, "layer": RegisteredLayer}


def test_slots_keep_their_values():
    model = linger.init(Slotted())
    assert model.note == "kept"
    assert copy.deepcopy(model).__dict__["note"] == "kept"  # through the class's own __getstate__


class RegisteredLayer(nn.Linear, metaclass=_Registry, key="layer"):
    pass


class _LayerBase(nn.Linear):
    def __init_subclass__(cls, *, name):
        pass


class KeywordLayer(_LayerBase, name="layer"):
    pass


class SlottedLayer(nn.Linear):
    __slots__ = ("note",)


class AbstractLayer(nn.Linear, abc.ABC):
    pass


LAYERS = [RegisteredLayer, KeywordLayer, SlottedLayer, AbstractLayer]


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_every_kind(layer):
    model = _Sum()
    model.a, x = layer(8, 8), torch.randn(4, 8)
    linger.constrain(model)
    assert isinstance(model.a, layer) and isinstance(model.a, NormalizeLinear)
    linger.init(model)
    assert isinstance(model.a, layer) and isinstance(model.a, LinearInt)
    model(x)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert type(twin.a) is type(model.a) and torch.equal(twin.eval()(x), model.eval()(x))


# ---- what the swap cannot reach


def _doubled(module):
    plain = type(module).forward
    module.forward = types.MethodType(lambda self, x: plain(self, x) * 2, module)


def test_a_root_whose_forward_is_on_the_instance_is_refused():
    model = _Sum()
    _doubled(model)
    with pytest.raises(linger.UnsupportedError, match=r"replaced on the instance.*define it on a class"):
        linger.init(model)
    assert type(model) is _Sum and type(model.a) is nn.Linear


class _Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.fc = _Sum(), nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(self.inner(x))


def test_operators_of_a_child_whose_forward_is_on_the_instance_belong_to_the_parent():
    model = _Outer()
    _doubled(model.inner)
    linger.init(model, example_inputs=torch.randn(4, 8))
    names = {n for n, _ in model.named_children() if n.startswith("_linger_")}
    assert names == {"_linger_qtensor_qadd_0", "_linger_qtensor_qmul_1"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    ("prepare", "names", "why"),
    [
        (lambda m: setattr(m, "inner", torch.jit.trace(m.inner, torch.randn(4, 8))), {"inner"}, "before torch.jit"),
        (lambda m: setattr(m, "inner", torch.jit.script(m.inner)), {"inner"}, "before torch.jit"),
        (lambda m: setattr(m.fc, "forward", lambda x: x), {"fc"}, "define it on a class"),
        (lambda m: torch.nn.utils.parametrizations.spectral_norm(m.fc), {"fc"}, "remove_parametrizations"),
        (lambda m: torch.nn.utils.parametrizations.weight_norm(m.inner.a), {"inner.a"}, "remove_parametrizations"),
        (lambda m: torch.nn.utils.weight_norm(m.fc), {"fc"}, "remove_weight_norm"),
        (lambda m: torch.nn.utils.spectral_norm(m.inner.b), {"inner.b"}, "remove_spectral_norm"),
    ],
    ids="traced scripted instance spectral weight old_weight old_spectral".split(),
)
def test_what_stays_in_float_is_reported_and_trains(prepare, names, why, caplog):
    torch.manual_seed(0)
    model, x = _Outer(), torch.randn(4, 8)
    prepare(model)
    linger.init(model, example_inputs=x)
    stayed = {r.name: r.note for r in report_of(model).stayed_float}
    assert names <= set(stayed) and all(why in stayed[n] for n in names)
    assert all(n in caplog.text for n in names)
    model(x).sum().backward()
    assert torch.isfinite(model.eval()(x)).all()


class _OwnForward(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight * 2, self.bias)


def test_a_layer_with_a_forward_of_its_own_is_an_owner_in_float_arithmetic():
    model, x = _Outer(), torch.randn(4, 8)
    model.fc = _OwnForward(8, 8)
    linger.init(model)
    (row,) = [r for r in report_of(model).stayed_float if r.name == "fc"]
    assert "_OwnForward overrides forward of Linear" in row.note
    assert type(model.fc).__name__ == "_OwnForward" and not isinstance(model.fc, LinearInt)
    assert torch.isfinite(model(x)).all()
