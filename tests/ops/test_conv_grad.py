"""Gradients of convolutions: against float64, the same bits however the work is cut, NaN and infinity, memory orders, errors."""

import random

import pytest
import torch
from torch.nn import functional as F

from linger import _C, ops
from linger.ops import Coded, Geometry
from linger.ops.conv import Convolution
from linger.ops.linear import _PRODUCT
from linger.ops.weighted import Weight

from . import bilinear_oracle as oracle
from .test_conv import some_shape

_conv_grad = torch.ops.linger.conv_grad.default
_EIGHTH = torch.tensor(8.0)
_ORDERS = ("last", "first", "expanded")


def _upstream(order: str, shape: tuple[int, ...]) -> torch.Tensor:
    if order == "expanded":  # the gradient of a mean or a sum
        return torch.randn(*shape[:2], 1, 1).expand(shape)
    dy = torch.randn(shape)
    return dy.contiguous(memory_format=torch.channels_last) if order == "last" else dy


def _operands(seed: int, **change: object) -> dict:
    r = random.Random(seed)
    torch.manual_seed(seed)
    shape = some_shape(r) | change
    x, w, geometry = oracle.codes("random", shape["x"]), oracle.codes("random", shape["w"]), shape["geometry"]
    if r.random() < 0.6:
        x = x.contiguous(memory_format=torch.channels_last)
    if r.random() < 0.3:
        w = w.contiguous(memory_format=torch.channels_last)
    y = oracle.sums(x, w, None, *geometry)
    mask, w_mask = torch.rand(y.shape) < 0.7, torch.rand(w.shape) < 0.9
    return {
        "dy": _upstream(r.choice(_ORDERS), y.shape),
        "x": x,
        "w": w,
        "geometry": geometry,
        "mask": mask,
        "w_mask": w_mask,
    }


def _flat_bits(mask: torch.Tensor) -> torch.Tensor:
    bits = F.pad(mask.flatten().long(), (0, -mask.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8)).sum(1).to(torch.uint8)


def _native(case: dict, want: int = 7) -> tuple[torch.Tensor, ...]:
    w = case["w"]
    in_memory = case["w_mask"] if w.is_contiguous() else case["w_mask"].permute(0, 2, 3, 1)
    masks = oracle.row_mask(case["mask"].permute(0, 2, 3, 1)), _flat_bits(in_memory)
    return _conv_grad(case["dy"], masks[0], case["x"], _EIGHTH, w, _EIGHTH / 2, masks[1], *case["geometry"], want)


def _in_float64(case: dict) -> tuple[torch.Tensor, ...]:
    x, w = (case["x"].double() / 8).requires_grad_(), (case["w"].double() / 4).requires_grad_()
    stride, (top, left, bottom, right), dilation, groups = case["geometry"]
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), w, None, stride, 0, dilation, groups)
    dy = torch.where(case["mask"], case["dy"], 0.0).double()
    gx, gw = torch.autograd.grad(y, (x, w), dy)
    return gx, gw * case["w_mask"], dy.sum((0, 2, 3))


def _assert_near(got: tuple[torch.Tensor, ...], want: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        # a chain of k roundings to 2^-24 loses about sqrt(k) of them, relative to the norm: below 2e-6 for the sizes here
        assert (a.double() - b).norm() <= 2e-6 * b.norm()


@pytest.mark.parametrize("seed", range(40))
def test_gradients_are_those_of_float64(seed, isa):
    case = _operands(seed)
    _assert_near(_native(case), _in_float64(case))


@pytest.mark.parametrize("want", range(8))
def test_only_what_is_wanted_is_computed(want, isa):
    case = _operands(3)
    for i, (got, all_of_it) in enumerate(zip(_native(case, want), _native(case), strict=True)):
        assert torch.equal(got, all_of_it) if want >> i & 1 else got.numel() == 0


@pytest.mark.parametrize("channels", range(1, 10))
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (2, 1), (3, 3)])
def test_strided_1x1(stride, channels, isa):
    """torch's own backward (2.13, oneDNN) writes beyond its memory here for 2 to 7 channels."""
    geometry = Geometry(stride=stride)
    case = _operands(channels, x=(4, channels, 12, 12), w=(10, channels, 1, 1), geometry=geometry)
    _assert_near(_native(case), _in_float64(case))


@pytest.mark.parametrize("size", [(1, 5, 3), (7, 16, 16), (300, 33, 17), (128, 96, 48), (0, 4, 4)])
def test_rows_are_a_matrix_product(size, isa):
    n, k, o = size
    torch.manual_seed(n)
    x, w, dy = oracle.codes("random", (n, k)), oracle.codes("random", (o, k)), torch.randn(n, o)
    mask, w_mask = torch.rand(n, o) < 0.7, torch.rand(o, k) < 0.9
    masks = oracle.row_mask(mask), _flat_bits(w_mask)
    got = _conv_grad(dy, masks[0], x, _EIGHTH, w, _EIGHTH / 2, masks[1], *Geometry(), 7)
    d = (dy * mask).double()
    _assert_near(got, (d @ w.double() / 4, d.t() @ (x.double() / 8) * w_mask, d.sum(0)))


@pytest.mark.parametrize("stride", [1, 2])
def test_sequences_are_rows_of_one_image(stride, isa):
    case = _operands(4, x=(3, 8, 1, 40), w=(12, 8, 1, 5), geometry=Geometry((1, stride), (0, 2, 0, 2)))
    args = (case["dy"], None, case["x"], _EIGHTH, case["w"], _EIGHTH, None)
    want = _conv_grad(*args, *case["geometry"], 7)
    got = _conv_grad(*(t.squeeze(2) if t is not None and t.dim() else t for t in args), *case["geometry"], 7)
    assert got[0].transpose(1, 2).is_contiguous()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b.squeeze(2) if b.dim() > 1 else b)


SHAPES = {
    "image by image": ((9, 16, 20, 21), (24, 16, 3, 3), {"padding": (1, 1, 1, 1)}),
    "one image, bands of rows": ((1, 24, 70, 60), (20, 24, 3, 3), {"padding": (1, 1, 1, 1), "stride": (2, 1)}),
    "one image, channels and outputs": ((1, 48, 1, 98), (40, 48, 1, 9), {"padding": (0, 4, 0, 4)}),
    "depthwise": ((2, 80, 30, 31), (80, 1, 3, 3), {"padding": (1, 1, 1, 1), "groups": 80}),
    "pixels": ((3, 40, 25, 24), (72, 40, 1, 1), {}),
    "dilated, groups": ((4, 32, 40, 9), (32, 16, 3, 2), {"dilation": (4, 2), "groups": 2}),
    "few channels": ((6, 3, 40, 40), (16, 3, 3, 3), {"padding": (1, 1, 1, 1)}),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_same_bits_however_the_work_is_cut(name, isa):
    x, w, geometry = SHAPES[name]
    case, before = _operands(1, x=x, w=w, geometry=Geometry(**geometry)), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(_native(case))
    finally:
        torch.set_num_threads(before)
    _assert_near(results[0], _in_float64(case))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", list(SHAPES))
def test_instruction_sets_with_fma_give_the_same_bits(name):
    x, w, geometry = SHAPES[name]
    case = _operands(2, x=x, w=w, geometry=Geometry(**geometry))
    newest = _native(case)
    try:
        _C.set_cpu_mask(_C.CPU_FLAGS["avx2"])
        older = _native(case)
    finally:
        _C.set_cpu_mask(0xFFFFFFFF)
    assert all(torch.equal(a, b) for a, b in zip(newest, older, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_gradient_that_is_not_finite(value, groups, isa):
    case = _operands(
        5, x=(2, 4, 6, 6), w=(4, 4 // groups, 3, 3), geometry=Geometry((1, 1), (1, 1, 1, 1), (1, 1), groups)
    )
    case["dy"], case["mask"], case["w_mask"] = (
        torch.randn(2, 4, 6, 6),
        torch.ones(2, 4, 6, 6).bool(),
        torch.ones_like(case["w"]).bool(),
    )
    case["dy"][1, 2, 0, 5] = value  # in a corner: five of its nine taps lie in the padding
    gx, gw, gb = _native(case)
    assert not gw[2].isfinite().any() and gw[[0, 1, 3]].isfinite().all()
    assert not gb[2].isfinite() and gb[[0, 1, 3]].isfinite().all()
    hit = torch.zeros(2, 4, 6, 6, dtype=torch.bool)
    hit[1, slice(None) if groups == 1 else 2, :2, 4:] = True
    assert torch.equal(gx.isfinite(), ~hit)
    case["mask"][1, 2, 0, 5] = False
    assert all(g.isfinite().all() for g in _native(case))


def test_an_operand_behind_a_nan_scale_counts_as_zero(isa):
    case = _operands(7)
    nan = torch.tensor(float("nan"))
    gx, gw, gb = _conv_grad(case["dy"], None, case["x"], nan, case["w"], nan, None, *case["geometry"], 7)
    assert not gx.any() and not gw.any()
    torch.testing.assert_close(gb, case["dy"].sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
def test_backward_copies_neither_x_nor_dy(kernel):
    n, c, size = 16, 32, 32
    x = Coded(
        torch.zeros(n, c, size, size, requires_grad=True),
        oracle.codes("random", (n, c, size, size)),
        torch.tensor(16.0),
    )
    w = torch.randn(c, c, kernel, kernel, requires_grad=True)
    y = ops.conv(x, w, None, Geometry(padding=(kernel // 2,) * 4), oracle.output(), oracle.output())
    dy = torch.randn(y.value.shape).contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        torch.autograd.grad(y.value, (x.value, w), dy)
    taken = sum(e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0)
    assert taken < 1.3 * 4 * x.codes.numel()  # dx, and sums of the weight's gradient


@pytest.mark.parametrize("seed", range(5))
def test_the_form_for_other_devices_gives_the_same(seed):
    case = _operands(seed)
    if case["dy"].stride(-1) == 0:
        case["dy"] = case["dy"].contiguous()
    case["mask"], case["w_mask"] = torch.ones(case["dy"].shape).bool(), torch.ones(case["w"].shape).bool()
    weight = Weight(case["w"], _EIGHTH / 2, torch.empty(0), torch.empty(0))
    found = Convolution(case["geometry"]).float_gradients(case["dy"], case["x"], _EIGHTH, weight, (True, True, True))
    _assert_near(found, tuple(g.double() for g in _native(case)))
    rows, matrix = case["x"].flatten(1), oracle.codes("random", (6, case["x"][0].numel()))
    dy = torch.randn(rows.shape[0], 6)
    weight = Weight(matrix, _EIGHTH / 2, torch.empty(0), torch.empty(0))
    found = _PRODUCT.float_gradients(dy, rows, _EIGHTH, weight, (True, True, True))
    want = _conv_grad(dy, None, rows, _EIGHTH, matrix, _EIGHTH / 2, None, *Geometry(), 7)
    _assert_near(found, tuple(g.double() for g in want))


def test_opcheck():
    case = _operands(9)
    masks = oracle.row_mask(case["mask"].permute(0, 2, 3, 1)), None
    args = (case["dy"], masks[0], case["x"], _EIGHTH, case["w"], _EIGHTH, masks[1], *map(list, case["geometry"][:3]))
    for want in (7, 2, 5):
        torch.library.opcheck(_conv_grad, (*args, case["geometry"].groups, want))
    rows = (
        torch.randn(3, 2),
        None,
        oracle.codes("random", (3, 5)),
        _EIGHTH,
        oracle.codes("random", (2, 5)),
        _EIGHTH,
        None,
    )
    torch.library.opcheck(_conv_grad, (*rows, *map(list, Geometry()[:3]), 1, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 4, 5, 5)}, "conv_grad: x and w must be int8 codes, dy float32"),
        ({"x": torch.zeros(4, 5, 5, dtype=torch.int8)}, "must have 2, 3 or 4 dimensions, all the same, got 4, 3 and 4"),
        ({"w": torch.zeros(3, 2, 3, 3, dtype=torch.int8)}, "conv_grad: x has 4 channels, w 3 x 2 with 1 groups"),
        ({"dy": torch.zeros(1, 3, 3, 4)}, "conv_grad: dy must have the shape of the result, 1 x 3 x 3 x 3"),
        ({"mask": torch.zeros(17, dtype=torch.uint8)}, "conv_grad: mask must have 18 bytes, got 17"),
        ({"w_mask": torch.zeros(13, dtype=torch.uint8)}, "conv_grad: w_mask must have 14 bytes, got 13"),
        ({"stride": [1]}, "conv_grad: stride and dilation need 2 elements, padding 4"),
        ({"stride": [0, 1]}, "conv_grad: argument out of range"),
        ({"x_scale": torch.zeros(2)}, "conv_grad: a scale must be one float32 on the CPU, got 2 elements"),
    ],
)  # fmt: skip
def test_errors(change, message):
    call = {"dy": torch.zeros(1, 3, 3, 3), "mask": None, "x": oracle.codes("random", (1, 4, 5, 5)), "x_scale": _EIGHTH,
            "w": oracle.codes("random", (3, 4, 3, 3)), "w_scale": _EIGHTH, "w_mask": None, "stride": [1, 1],
            "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1, "want": 7, **change}  # fmt: skip
    with pytest.raises(RuntimeError, match=message):
        _conv_grad(*call.values())
