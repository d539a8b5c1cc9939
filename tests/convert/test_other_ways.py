"""Ways through a model that were not seen at conversion: what may read a result elsewhere is not folded, or refused by name."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.nn.constrained.fused import EmptyBatchNorm

LIMITS = (
    "quant_info: {a_calibrate_name: abs_max}\nclamp_info: {clamp_activation_value: null, clamp_factor_value: null}\n"
)


def images(n=4):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out, self.mode = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), 0
        self.bn, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def go(self, mode):
        self.mode = mode
        return {}


class ByArgument(Base):
    def forward(self, x, domain=0):
        return self.out(F.relu((self.other if domain else self.bn)(self.conv(x))))

    def go(self, mode):
        return {"domain": mode}


class ByAttribute(Base):
    def forward(self, x):
        y = self.conv(x)
        if self.mode:
            return self.out(self.other(y))
        return self.out(self.bn(y))


class ByName(Base):
    def forward(self, x):
        return self.out(getattr(self, ("bn", "other")[self.mode])(self.conv(x)))


class FromList(Base):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([self.bn, self.other])
        del self.bn, self.other

    def forward(self, x):
        return self.out(F.relu(self.norms[self.mode](self.conv(x))))


class Switch(nn.Module):
    """The choice has a module of its own."""

    def __init__(self):
        super().__init__()
        self.norms, self.key = nn.ModuleDict({"0": nn.BatchNorm2d(8), "1": nn.BatchNorm2d(8)}), "0"

    def forward(self, x):
        return self.norms[self.key](x)


class Nested(Base):
    def __init__(self):
        super().__init__()
        self.bn = Switch()
        del self.other

    def forward(self, x):
        return self.out(self.bn(self.conv(x)))

    def go(self, mode):
        self.bn.key = str(mode)
        return {}


class WithActivation(Base):
    """Every choice is a block that starts with its normalisation."""

    def __init__(self):
        super().__init__()
        self.bn, self.other = (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()) for _ in range(2))

    def forward(self, x):
        return self.out([self.bn, self.other][self.mode](self.conv(x)))


CHOICES = [ByArgument, ByAttribute, ByName, FromList, Nested, WithActivation]
WAYS = pytest.mark.parametrize("example", [None, images()], ids=["read", "run"])


@WAYS
@pytest.mark.parametrize("stage", ["constrain", "init"])
@pytest.mark.parametrize("cls", CHOICES)
def test_a_choice_among_norms_is_not_folded(cls, stage, example, tmp_path):
    (tmp_path / "c.yaml").write_text(LIMITS)
    torch.manual_seed(0)
    m = cls().train()
    for norm in (p for p in m.modules() if isinstance(p, nn.BatchNorm2d)):
        nn.init.constant_(norm.weight, 1.5)
    for _ in range(5):
        m(images(), **m.go(0)), m(3 * images() + 1, **m.go(1))
    m.eval()
    m.go(0)
    float_model = copy.deepcopy(m)
    q = getattr(linger, stage)(m, config_file=tmp_path / "c.yaml", example_inputs=example)
    assert not any(isinstance(p, EmptyBatchNorm) for p in q.modules())
    assert any("did not run and may take the same result" in note for note in linger.summary(q).notes)
    if stage == "init":
        with linger.calibration(q):
            q(images(), **q.go(0)), q(3 * images() + 1, **q.go(1))
    for mode, x in enumerate((images(), 3 * images() + 1)):
        want, got = float_model(x, **float_model.go(mode)), q.eval()(x, **q.go(mode))
        if stage == "constrain":
            assert torch.equal(got, want)
        else:
            assert (got - want).pow(2).sum() < 0.1 * want.pow(2).sum()


class Unused(Base):
    """A normalisation that no code mentions, and a second branch with its own convolution: both are no choice."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

    def forward(self, x, both=False):
        y = self.bn(self.conv(x))
        return self.out(y + self.branch(x) if both else y)


@WAYS
def test_what_cannot_be_a_choice_does_not_keep_a_norm(example):
    q = linger.init(Unused(), example_inputs=example)
    assert isinstance(q.bn, EmptyBatchNorm) and not linger.summary(q).notes


class InTraining(Base):
    """The norm differs between training and evaluation."""

    def forward(self, x):
        return self.out((self.bn if self.training else self.other)(self.conv(x)))


@WAYS
def test_training_is_a_way_of_its_own(example):
    assert not any(isinstance(m, EmptyBatchNorm) for m in linger.init(InTraining(), example_inputs=example).modules())


class Head(Base):
    """A part that runs in training only is fused all the same."""

    def forward(self, x):
        y = F.relu(self.conv(x))
        return (self.out(y), self.bn(self.conv2(x))) if self.training else self.out(y)

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(3, 8, 1)


@WAYS
def test_a_part_of_one_mode_is_folded(example):
    q = linger.init(Head(), example_inputs=example)
    assert isinstance(q.bn, EmptyBatchNorm) and q.conv.fused_relu


class Extra(Base):
    """One conv and its norm; another way reads the convolution's result, too."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        del self.other

    def forward(self, x, extra=False):
        y = self.conv(x)
        if not extra:
            return self.out(F.relu(self.bn(y)))
        match self.how:
            case "operator":
                return self.out(self.bn(y) + y)
            case "function":
                return self.out(F.relu(y))
            case "layer":
                return self.out(y)
            case "returned":
                return self.bn(y), y
            case "method":
                return self.out(self.bn(y) * y.mean())
            case "list":
                return self.out(torch.cat([y, y])[: len(y)])
            case "norm of something else":
                return self.out(self.bn(self.bn(y)))
            case "norm without the layer":
                return self.out(self.bn(torch.zeros_like(y)))


HOWS = ["operator", "function", "layer", "returned", "method", "list"]
HOWS += ["norm of something else", "norm without the layer"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stage", ["constrain", "init", "step"])
@pytest.mark.parametrize("how", HOWS)
def test_another_reader_is_refused_by_name(how, stage, training):
    m = Extra(how)
    q = linger.constrain(m) if stage == "constrain" else linger.init(m, fold_bn={"init": "once"}.get(stage, stage))
    assert isinstance(q.bn, EmptyBatchNorm)
    q.train()(images())
    q.train(training)(images())
    if stage != "constrain":
        with (
            linger.calibration(q),
            pytest.raises(linger.UnsupportedError, match="folded into 'conv'"),
        ):
            q(images(), extra=True)[1].sum()
    with pytest.raises(linger.UnsupportedError, match="folded into 'conv'") as caught:
        got = q(images(), extra=True)
        got[1].sum()
    assert "example_inputs" in str(caught.value) and re.search(r"\.py:\d+", str(caught.value))
    q(images())
    again = linger.init(Extra(how), example_inputs=(images(), True))  # the cure
    again.train()(images(), True)
    assert not isinstance(again.bn, EmptyBatchNorm)


class Clipped(Base):
    """The ReLU behind a layer is fused; another way wants the values in front of it."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        del self.other
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(8, 8)

    def forward(self, x, raw=False):
        y = self.conv(x)
        if self.first == "bn":
            y = self.bn(y)
        if self.first == "alone":
            y = self.bn(y * 2)
        if self.first == "layer_norm":
            y = self.norm(y * 2)
        if self.first == "linear":
            y = self.fc((y * 2).transpose(1, 3))
        y = torch.tanh(y) if raw else torch.relu(y)
        return self.out(y.transpose(1, 3) if self.first == "linear" else y)


@pytest.mark.parametrize("first", ["conv", "bn", "alone", "layer_norm", "linear"])
def test_a_fused_relu_has_one_reader(first):
    q = linger.init(Clipped(first))
    q.train()(images())
    with pytest.raises(
        linger.UnsupportedError, match=r"the ReLU behind it was folded into '\w+'.*`tanh`.*test_other_ways.py"
    ):
        q(images(), True)
    q.eval()(images())
    again = linger.init(Clipped(first), example_inputs=(images(), True))
    again.train()(images(), True)
    again(images())


def test_export_refuses_the_unnormalised_result(tmp_path):
    class Returned(Base):
        def forward(self, x):
            y = self.conv(x)
            return y if self.mode else self.bn(y)

    q = linger.init(Returned())
    q(images())
    q.mode = 1
    with pytest.raises(linger.UnsupportedError, match="output 0 of the graph"):
        linger.onnx.export(q.eval(), images(), tmp_path / "m.onnx")


def test_reading_sizes_and_looking_on_is_no_reading():
    class Sizes(Base):
        def forward(self, x, other=False):
            y = self.conv(x)
            n, c = y.shape[:2]
            y = self.bn(y.contiguous()) if other else self.bn(y)
            return self.out(y.view(n, c, y.size(2), -1))

    q, seen = linger.init(Sizes()), []
    want = q.train()(images())
    q.conv.register_forward_hook(lambda m, args, y: seen.append(y.detach().mean()))
    q.bn.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach().mean()))
    assert torch.equal(q.eval()(images(), True), q(images())) and len(seen) == 4 and want.shape == (4, 2, 6, 6)


def test_copies_and_checkpoints_of_layers():
    from torch.utils.checkpoint import checkpoint

    class Checked(Base):
        def forward(self, x):
            y = checkpoint(self.conv, x, use_reentrant=self.mode == 1) if self.mode else self.conv(x)
            return self.out(torch.relu(self.bn(y)))

    q = linger.constrain(Checked())
    assert torch.equal(copy.deepcopy(q).eval()(images()), q.eval()(images()))
    x, gradients = images().requires_grad_(), []
    for mode in (0, 1, 2):
        q.zero_grad()
        q.mode = mode
        q(x).sum().backward()
        gradients.append(q.conv.conv.weight.grad.clone())
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])
