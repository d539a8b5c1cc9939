"""A chip is a row: chips that nobody has built compute, train, export and run as soon as ``LIMITS`` has them."""

from dataclasses import replace

import pytest
from torch import nn

import linger
from linger.chip import LIMITS, OPERATORS, SWAP_INNER, find_curve
from linger.settings import rules
from tests.nn.test_exact import test_zoo_runs_the_same_integers_everywhere as runs_the_same_integers
from tests.nn.zoo import ZOO

ARCS, VENUS_A, VENUS = LIMITS["arcs"], LIMITS["venusA"], LIMITS["venus"]
ROWS = {  # each differs from its family where another chip shows that engines may differ
    "luna": replace(
        VENUS_A,
        transposes=ARCS.transposes,
        cat_right=True,
        norm_left=True,
        linear4=True,
        glu_shift=0,
        softmax_axis=False,
        sigmoid_bits=(8, 16),
        tanh_bits=(16,),
        pool_double=False,
        pool_divider=True,
        recurrent_batch_first=True,
        max_pool_kernel=3,
        max_pad=3,
        batched=True,
    ),
    "phobos": replace(
        ARCS,
        transposes=frozenset(ARCS.transposes - {SWAP_INNER}),
        cat_right=False,
        wide_left=False,
        conv4=False,
        norm_bits=16,
        gamma_bits=16,
        pool_ignores=True,
        div_scales=None,
        filter_bytes=0,
    ),
    "deimos": replace(
        VENUS,
        cat_right=False,
        norm_left=False,
        norm_bits=32,
        gamma_bits=8,
        mul_constant_bits=(8,),
        max_pool_kernel=12,
        max_pool_pad=0,
        pool_ignores=False,
        bmm_bytes=0,
    ),
}
FAMILIES = {"luna": "venusA", "phobos": "arcs", "deimos": "venus"}
CHIPS = ["luna", *(pytest.param(name, marks=pytest.mark.slow) for name in ("phobos", "deimos"))]


@pytest.fixture
def chip(request, monkeypatch):
    """A row, and its name among those that a configuration may hold."""
    known = rules.TOP["platform"]
    allowed = replace(known, accepts=lambda value: value == request.param or known.accepts(value))
    monkeypatch.setitem(rules.TOP, "platform", allowed)
    monkeypatch.setitem(LIMITS, request.param, replace(ROWS[request.param], file_name=request.param))
    return request.param


@pytest.mark.parametrize("chip", CHIPS, indirect=True)
@pytest.mark.parametrize("name", ZOO)
def test_the_operators_run_on_it(name, chip, tmp_path, monkeypatch):
    for kind in ("islands", "refused"):  # what a network says of the family holds
        said = getattr(ZOO[name], kind, {})
        if FAMILIES[chip] in said:
            monkeypatch.setattr(ZOO[name], kind, {chip: said[FAMILIES[chip]]})
    runs_the_same_integers(name, chip, "MOM", tmp_path)


@pytest.mark.parametrize("chip", ROWS, indirect=True)
def test_it_has_what_its_family_has(chip):
    family = FAMILIES[chip]
    assert all(row[chip] == row[family] for row in OPERATORS.values())
    assert all(find_curve(function, chip) == find_curve(function, family) for function in ("sigmoid", "gelu", "swish"))


@pytest.mark.parametrize("chip", ROWS, indirect=True)
def test_it_is_checked_by_its_own_limits(chip, monkeypatch):
    monkeypatch.setitem(LIMITS, chip, replace(LIMITS[chip], strides=(1,)))
    (found,) = [v for v in linger.check(nn.Conv2d(8, 8, 3, 2), chip) if v.what == "stride"]
    assert (found.value, found.limit) == ("2", "one of (1,)")
