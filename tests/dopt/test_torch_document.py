"""The PyTorch half of the users' document, run as printed; only names, paths and full-width signs are filled in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from plugin_document import PYTORCH, ascii_signs, blocks
from torch import nn

from dopt import config
from dopt.dopt_torch.opt_main import optimize_model

ROOT = Path(__file__).resolve().parents[2]
CODE = [ascii_signs(b) for b in blocks(PYTORCH) if not b.startswith("{")]
LISTINGS = [b for b in blocks(PYTORCH) if b.startswith("{")]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv1(x)))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


def block(first: str) -> str:
    (found,) = [b for b in CODE if first in b]
    return found.replace(".../dopt_pytorch_py3", str(ROOT / "dopt_pytorch_py3"))


def data(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_every_block_is_found() -> None:
    assert len(CODE) == 9 and len(LISTINGS) == 2


@pytest.mark.parametrize("how", ["training", "quant_loss", "calibration"])
def test_the_flow(folder: Path, how: str) -> None:
    torch.manual_seed(0)
    model = Model()
    model.train()(data(0))  # a float model that has been trained
    names: dict[str, Any] = {"model": model, "torch": torch, "input_shape": "x:1,3,32,32", "quant_weight": 0.05}
    exec(block("import generate_config_file"), names)
    exec(block("generate_config_file(model"), names)
    listing = json.loads(Path("config_gen.json").read_text())
    listing["layer_strategy"]["conv1/Conv2D"]["quant_strategy"] = "Quant_INT8-8"
    listing["layer_strategy"]["conv2/Conv2D"]["quant_strategy"] = "Quant_INT8-8"
    Path("config_gen.json").write_text(json.dumps(listing))
    names["config_path"] = str(folder / "config_gen.json")
    exec(block("import optimize_model"), names)
    exec(block("quant_model = optimize_model"), names)
    quant_model = names["quant_model"]
    if how == "calibration":
        exec(block("import set_calibrate_state"), names)
        for seed in range(3):
            quant_model(data(seed))
    else:
        optimizer = torch.optim.SGD(quant_model.parameters(), 0.01)
        for seed in range(3):
            names["loss"] = quant_model.train()(data(seed)).square().mean()
            names["total_loss"] = names["loss"]
            if how == "quant_loss":
                exec(block("import get_quant_loss"), names)
                assert names["total_loss"] > names["loss"]
            optimizer.zero_grad()
            names["total_loss"].backward()
            optimizer.step()
    exec(block("torch.save"), names)
    names |= {"model": Model(), "config_file": names["config_path"]}
    exec(block("import generate_final_model"), names)
    exec(block("generate_final_model(\n"), names)
    x = data(9)[:1]
    want = quant_model.eval()(x).detach().numpy()
    got = ReferenceEvaluator("quant_model.onnx").run(None, {"x": x.numpy()})[0]
    assert np.abs(got - want).max() <= 0.05 * np.abs(want).max()
    assert list(json.loads(Path("quant_params.json").read_text())["layers"]) == ["conv1/Conv2D", "conv2/Conv2D"]


def test_the_printed_configuration_is_no_json_and_every_message_leads_on(folder: Path) -> None:
    text = LISTINGS[1]
    for message, old, new in (
        (r"line 12, column 45: full-width sign '，' \(U\+FF0C\); write ','", '"Quant_INT8-8"，', '"Quant_INT8-8",'),
        (r"line 12: a comma before '}', which JSON does not allow; remove it", '"Quant_INT8-8",\n', '"Quant_INT8-8"\n'),
        (r"line 19, column 9: '\.\.\.' stands for more layers", "},\n        ...", "}"),
    ):
        Path("c.json").write_text(text, encoding="utf-8")
        with pytest.raises(config.ConfigError, match=rf"^c\.json, {message}"):
            optimize_model(Model(), "c.json")
        assert old in text
        text = text.replace(old, new)
    Path("c.json").write_text(text.replace("224", "32"), encoding="utf-8")
    model = optimize_model(Model(), "c.json")
    assert type(model.conv1).__name__ == "QuantConv2d" and type(model.conv2) is nn.Conv2d
