"""Weights of which the limit cuts much (sparse, pruned, merged) are named once per layer, with the lines that help."""

import logging
import textwrap

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import linger
from linger.quantizers import weight_cut


def sparse(m):
    """Ninety of a hundred weights are zero, the others large."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in m.named_parameters():
            if "weight" in name:
                p.copy_(
                    3.0 * torch.randn(p.shape, generator=generator) * (torch.rand(p.shape, generator=generator) < 0.1)
                )
    return m


def behind_norm():
    """Ordinary weights; the BatchNorm makes four channels of forty large."""
    m = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40))
    with torch.no_grad():
        m[1].weight.copy_(torch.where(torch.arange(40) < 2, 40.0, 0.5))
    return m


def merged():
    """What RepVGG deploys: an identity is a large element in the middle of small ones."""
    m = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1))
    with torch.no_grad():
        m[0].weight.mul_(0.2)
        m[0].weight[range(16), range(16), 1, 1] += 1.0
    return m


def pruned():
    m = nn.Sequential(nn.Linear(20, 30))
    prune.l1_unstructured(m[0], "weight", amount=0.95)
    return m


X = {"conv": torch.randn(2, 16, 6, 6), "image": torch.randn(2, 3, 6, 6), "rows": torch.randn(4, 5, 20)}
MODELS = {
    "linear": (lambda: sparse(nn.Sequential(nn.Linear(20, 30))), "rows"),
    "conv": (lambda: sparse(nn.Sequential(nn.Conv2d(16, 8, 3))), "conv"),
    "transposed": (lambda: sparse(nn.Sequential(nn.ConvTranspose2d(16, 8, 3))), "conv"),
    "lstm": (lambda: sparse(nn.Sequential(nn.LSTM(20, 12, batch_first=True))), "rows"),
    "gru": (lambda: sparse(nn.Sequential(nn.GRU(20, 12, batch_first=True))), "rows"),
    "layer norm": (lambda: sparse(nn.Sequential(nn.LayerNorm(20))), "rows"),
    "folded": (behind_norm, "image"),
    "merged": (merged, "conv"),
    "pruned": (pruned, "rows"),
}


def lines(caplog):
    return [r.getMessage() for r in caplog.records if "weight limit cuts" in r.getMessage()]


@pytest.mark.parametrize("stage", ["constrain", "init", "init step"])
@pytest.mark.parametrize("how", MODELS)
def test_cut_weights_are_named_once_and_the_lines_help(how, stage, caplog, tmp_path):
    make, x = MODELS[how][0], X[MODELS[how][1]]

    def convert(**config):
        return linger.constrain(make(), **config) if stage == "constrain" else linger.init(
            make(), fold_bn="step" if stage == "init step" else "once", **config
        )  # fmt: skip

    m = convert()
    for _ in range(2):
        m.train()(x), m.eval()(x)
    (said,) = lines(caplog)
    assert said.startswith(f"linger.{stage.split()[0]}: ") and "  0: clamp_factor_value 7 keeps" in said, said
    assert said.count("of the energy") == (2 if how in ("lstm", "gru") else 1)
    caplog.clear()
    lines_that_help = textwrap.dedent(said[said.index("  wide_weights") :])
    (tmp_path / "c.yaml").write_text(lines_that_help)
    m = convert(config_file=tmp_path / "c.yaml")
    m.train()(x), m.eval()(x)
    assert not lines(caplog)


@pytest.mark.parametrize("stage", ["constrain", "init"])
@pytest.mark.parametrize("how", [how for how in MODELS if how != "pruned"])  # whose mask cuts anyway
def test_weights_that_are_loaded_behind_the_conversion_are_named_before_they_are_cut(how, stage, caplog):
    given, x = MODELS[how][0](), X[MODELS[how][1]]
    m = MODELS[how][0]()
    with torch.no_grad():
        for p in m.parameters():
            p.uniform_(0.5, 1.0)
    m = getattr(linger, stage)(m)
    assert not lines(caplog)
    if how == "folded" and stage == "init":  # folded now; a BatchNorm that is loaded later: test_partial.py
        return
    m.load_state_dict(given.state_dict(), strict=False)
    for _ in range(2):
        m.train()(x), m.eval()(x)
    (said, *more) = lines(caplog)
    assert len(more) == (how in ("lstm", "gru") and stage == "init") and "  0: clamp_factor_value 7 keeps" in said


def test_what_constrain_has_said_init_does_not_repeat(caplog):
    m = nn.Sequential(sparse(nn.Sequential(nn.Linear(20, 30))), behind_norm())
    m = nn.ModuleList([*m[0], *m[1]])
    linger.init(linger.constrain(m))
    assert len(lines(caplog)) == 1


def test_init_names_what_a_constrained_model_has_loaded(caplog):
    m = linger.constrain(nn.Sequential(nn.Linear(20, 30)))
    m.load_state_dict(sparse(nn.Sequential(nn.Linear(20, 30))).state_dict())
    linger.init(m)
    (said,) = lines(caplog)
    assert said.startswith("linger.init: ")


@pytest.mark.parametrize("stage", ["constrain", "init"])
def test_ordinary_and_frozen_weights_are_not_named(stage, caplog):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 4))
    with torch.no_grad():
        plain[3].weight.normal_()
    m = getattr(linger, stage)(plain)
    m.train()(X["image"])
    if stage == "init":  # what does not train is not clamped
        linger.init(sparse(nn.Sequential(nn.Linear(20, 30)).requires_grad_(False))).train()(X["rows"])
    assert not lines(caplog)


def test_a_static_limit_and_the_root_are_named_as_they_are(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text("clamp_info: {clamp_weight_value: 0.5}\n")
    linger.constrain(sparse(nn.Linear(20, 30)), config_file=tmp_path / "c.yaml")
    (said,) = lines(caplog)
    assert "(root): clamp_weight_value 0.5 keeps its weight within 0.5" in said and "name: ['*']" in said
    assert "clamp_weight_value: null" in said
    assert caplog.records[0].levelno == logging.WARNING


def test_the_measurement():
    w = torch.tensor([0.0, 1.0, -1.0, 4.0])
    cut = weight_cut(w, factor=2.0)
    assert cut[1:] == (3.0, 0.25, 1.0 / 18.0, 4.0) and cut.large
    assert weight_cut(w, value=2.0, factor=9.0)[1:4] == (2.0, 0.25, 4.0 / 18.0)
    assert not weight_cut(w).large and not weight_cut(w, factor=7.0).large
    assert not weight_cut(torch.zeros(4), factor=7.0).large and not weight_cut(torch.zeros(0), factor=7.0).large
