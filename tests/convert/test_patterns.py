"""Names of sections and of ``disable_submodel``: one rule says which modules a pattern covers."""

import logging

import pytest
import torch
from torch import nn

import linger

PATTERNS = {
    "encoder": {"encoder.0", "encoder.2.attn", "encoder.2.proj"},
    "encoder.2": {"encoder.2.attn", "encoder.2.proj"},
    "encode?": {"encoder.0", "encoder.2.attn", "encoder.2.proj"},
    "[de]ncoder": {"encoder.0", "encoder.2.attn", "encoder.2.proj"},
    "enc*r": {"encoder.0", "encoder.2.attn", "encoder.2.proj"},
    "*.2": {"encoder.2.attn", "encoder.2.proj"},
    "*.proj": {"encoder.2.proj"},
    "encoder.?.attn": {"encoder.2.attn"},
    "e*": {"encode", "encoder.0", "encoder.2.attn", "encoder.2.proj"},
    "head": {"head"},
    "*": {"encoder.0", "encoder.2.attn", "encoder.2.proj", "encode", "head"},
}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.proj = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.proj(self.attn(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Block())
        self.encode, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.encode(self.encoder(x)))


def layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_section_covers_what_disable_submodel_leaves_alone(pattern, tmp_path, caplog):
    (tmp_path / "c.yaml").write_text(f"part:\n  name: ['{pattern}']\n  quant_info: {{weight_bits: 4}}\n")
    narrow = layers(linger.init(Net(), str(tmp_path / "c.yaml")))
    covered = {n for n, m in narrow.items() if m.quant.weight_bits == 4}
    with caplog.at_level(logging.ERROR, "linger"):
        left = layers(linger.init(Net(), disable_submodel=pattern))
    assert covered == PATTERNS[pattern] == {n for n, m in left.items() if type(m) is nn.Linear}


@pytest.mark.parametrize("pattern", ["decoder", "encode??", "encoder.9", "*.attn.x", "ENCODER"])
def test_what_covers_nothing_is_refused_in_both_places(pattern, tmp_path):
    (tmp_path / "c.yaml").write_text(f"part:\n  name: ['{pattern}']\n")
    with pytest.raises(linger.ConfigError, match="matches no module"):
        linger.init(Net(), str(tmp_path / "c.yaml"))
    with pytest.raises(ValueError, match="matches no module"):
        linger.init(Net(), disable_submodel=pattern)


def test_a_section_of_everything_covers_a_model_of_one_layer(tmp_path):
    (tmp_path / "c.yaml").write_text("all:\n  name: ['*']\n  quant_info: {weight_bits: 4}\n")
    model = linger.init(nn.Linear(4, 4), str(tmp_path / "c.yaml"))
    assert model.quant.weight_bits == 4 and model.train()(torch.ones(1, 4)).shape == (1, 4)
