"""The engine of a model: key of the configuration, argument, record; models without the record keep their arithmetic."""

import io
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

import linger
from linger import settings

G = torch.Generator().manual_seed(0)
X = torch.randn(64, 8, 12, 12, generator=G) + 2 * torch.randn(64, 8, 1, 1, generator=G)


def net():
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.AvgPool2d(12))


def model(engine=None, stage=linger.init):
    torch.manual_seed(0)
    settings.use(replace(settings.defaults(), platform="venus"))
    return stage(net(), example_inputs=X, engine=engine)


def trained(engine=None):
    made = model(engine)
    made.train()(X)
    return made.eval()


def engine_of(made):
    return made.__dict__["_linger_settings"].engine


@pytest.fixture(autouse=True)
def _settings():
    before = settings.current()
    yield
    settings.use(before)


def test_key_and_argument(tmp_path):
    (tmp_path / "c.yaml").write_text("platform: venus\nengine: later\n")
    assert engine_of(linger.init(net(), str(tmp_path / "c.yaml"), example_inputs=X)) == "later"
    assert engine_of(linger.init(net(), str(tmp_path / "c.yaml"), example_inputs=X, engine="562ddc7")) == "562ddc7"
    assert engine_of(model()) == "562ddc7" and engine_of(model("later")) == "later"
    with pytest.raises(ValueError, match="engine must be one of 562ddc7, later, got 'old'"):
        model("old")
    with pytest.raises(linger.ConfigError, match=r"engine: must be 562ddc7 or later, or null .* got the string 'old'"):
        settings.loads("engine: old\n")
    assert settings.loads(settings.dumps(settings.loads("engine: null\n"))).engine is None


def test_constrain_tells_init():
    made = model("later", linger.constrain)
    assert engine_of(linger.init(made, example_inputs=X)) == "later"


def test_the_arithmetic_follows_the_engine():
    shipped, later = trained(), trained("later")
    later.load_state_dict(dict(shipped.state_dict()))
    with torch.no_grad():
        a, b = (m[0](X) for m in (shipped, later))
        assert torch.equal(a, b) and not torch.equal(shipped(X), later(X))
    report = linger.check(later, example_inputs=X[:1], engine="562ddc7")
    assert report.ok, "check computes as for the engine that it is asked about"


def checkpoint(made, recorded):
    """A checkpoint as this release writes it, or as those before the record did."""
    state = made.state_dict()
    if not recorded:
        del state._metadata[""]["linger"]["engine"]
        text = state._metadata[""]["linger"]["settings"]
        state._metadata[""]["linger"]["settings"] = "\n".join(
            line for line in text.split("\n") if not line.startswith("engine") and "before this key existed" not in line
        )
    file = io.BytesIO()
    torch.save({"state_dict": state, "linger": {"format": 1, "parts": {"": state._metadata[""]["linger"]}}}, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("into", ["float", "initialised"])
def test_checkpoints_without_the_record_keep_their_arithmetic(into):
    old = trained("later")  # what every release before the record computed
    fresh = net() if into == "float" else model()
    linger.load(fresh, checkpoint(old, recorded=False))
    assert engine_of(fresh) is None
    with torch.no_grad():
        assert torch.equal(fresh.eval()(X), old(X))
    (error,) = linger.check(fresh, example_inputs=X[:1]).errors
    assert error.what == "window" and "at most 127 elements" in error.limit and not error.refused
    again = net()
    linger.load(again, checkpoint(fresh, recorded=True))
    assert engine_of(again) is None


def test_a_chosen_engine_stays_when_an_old_checkpoint_is_loaded():
    chosen = model("562ddc7")
    linger.load(chosen, checkpoint(trained("later"), recorded=False))
    assert engine_of(chosen) == "562ddc7"


def test_records_and_pickles():
    fresh = net()
    linger.load(fresh, checkpoint(trained("later"), recorded=True))
    assert engine_of(fresh) == "later"
    held = settings.loads("platform: venus\n")
    old = held.__reduce_ex__(2)[2]
    assert pickle.loads(pickle.dumps(held)).engine == "562ddc7"
    before = object.__new__(type(held))
    before.__setstate__({k: v for k, v in old.items() if k != "engine"})
    assert before.engine is None
