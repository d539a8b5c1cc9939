"""A small network with everything the PyTorch form meets, its configuration, and an empty working folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopt.dopt_torch.opt_main import generate_config_file

collect_ignore = ["graph_mode"]  # needs TensorFlow; test_tf.py runs it in processes of its own
SHAPE = "x:2,3,12,12"


class Net(nn.Module):
    """Conv+BN+ReLU with and without bias, grouped, in a Sequential; Linear behind 2 and 3 axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, groups=4), nn.BatchNorm2d(12), nn.ReLU())
        self.plain = nn.Conv2d(12, 6, 1)
        self.fc = nn.Linear(6, 10)
        self.head = nn.Linear(10, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.plain(x)).flatten(2).transpose(1, 2)
        return self.head(F.relu(self.fc(x)).mean(1))


@pytest.fixture
def net() -> Net:
    """A float network whose BatchNorms have seen data and have factors of both signs."""
    torch.manual_seed(0)
    model = Net()
    for bn in (model.bn1, model.block[1]):
        bn.weight.data.uniform_(-1.5, 1.5)
        bn.bias.data.uniform_(-0.5, 0.5)
    model(torch.randn(64, 3, 12, 12))
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def configured(folder: Path) -> Callable[..., str]:
    """Writes a configuration of a model that quantizes all layers, or those whose names hold one of the words."""

    def write(model: nn.Module, *words: str, shape: str = SHAPE) -> str:
        generate_config_file(model, shape, "config.json")
        content = json.loads(Path("config.json").read_text())
        for name, layer in content["layer_strategy"].items():
            if not words or any(word in name for word in words):
                layer["quant_strategy"] = "Quant_INT8-8"
        Path("config.json").write_text(json.dumps(content))
        return "config.json"

    return write
