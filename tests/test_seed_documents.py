"""The code of the users' documents, run as written. Only names and paths that they leave open are filled in."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import linger

DATA = Path(__file__).parent / "data"
TWO_STAGES = (DATA / "guide_two_stages.md").read_text(encoding="utf-8")
CALIBRATION = (DATA / "guide_calibration.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA.*")  # the documents' files name `device: cuda`


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = x + x
        return self.classifier(self.pool(x).view(x.size(0), -1))


def python_blocks(document: str) -> list[str]:
    return [textwrap.dedent(block) for block in re.findall(r"```python[ ]*\n(.*?)```", document, re.DOTALL)]


def yaml_of(document: str) -> str:
    listing = document.split("* 基础配置\n", 1)[1]
    return textwrap.dedent(
        "\n".join(line for line in listing.split("\n\n", 1)[0].split("\n") if line.startswith("    "))
    )


def run(block: str, names: dict, at_comment: dict) -> None:
    """Runs a block; where a comment tells the reader to do something, does it."""
    waiting, piece = dict(at_comment), []
    for line in [*block.splitlines(), "# end"]:
        if line.startswith("#"):
            exec("\n".join(piece), names)
            piece = []
            for text in [t for t in waiting if t in line]:
                waiting.pop(text)()
        else:
            piece.append(line)
    assert not waiting, f"comments not found: {list(waiting)}"


def train(model: nn.Module, steps: int = 5) -> None:
    torch.manual_seed(0)
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for _ in range(steps):
        loss = model(torch.randn(8, 1, 8, 8, device=device)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()


def layers(model: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in model.named_modules()}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder, and the process-wide configuration put back."""
    before = linger.settings.current()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    linger.settings.use(before)


def test_two_stages(folder):
    constrain, quantize = python_blocks(TWO_STAGES)
    names = {"linger": linger, "torch": torch, "Model": Model}

    def finish_first_stage():
        train(names["model"])
        torch.save(names["model"].state_dict(), "constrained.pt")

    def load_first_stage():
        names["model"].load_state_dict(torch.load("constrained.pt"))

    run(constrain, names, {"训练结束": finish_first_stage})
    float_stage = names["model"].eval()
    assert layers(float_stage)["conv"] != "Conv2d"

    names["dummy_input"] = torch.randn(1, 1, 8, 8, device=next(float_stage.parameters()).device)
    run(quantize, names, {"加载第一阶段": load_first_stage, "进行量化训练": lambda: train(names["model"])})
    model = names["model"].eval()
    assert layers(model)["conv"] == "Conv2dInt"
    assert layers(model)["classifier.0"] == "LinearInt"

    x = names["dummy_input"]
    out = linger.onnx.OnnxRunner(str(folder / "model.onnx")).run({"input": x.cpu()})
    assert list(out) == ["output"]
    assert torch.equal(torch.from_numpy(out["output"]), model(x).detach().cpu())


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_calibration(folder, method):
    (block,) = python_blocks(CALIBRATION)
    (folder / "cfg.yaml").write_text(
        yaml_of(CALIBRATION).replace("qat_method: MOM", f"qat_method: {method}"), encoding="utf-8"
    )
    torch.save(Model().state_dict(), "pre_train.pt")
    torch.save(torch.randn(16, 1, 8, 8), "calibrate_input.pt")
    block = re.sub(r'"/yrfs4/[^"]*"', '"calibrate_input.pt"', block)
    names = {"linger": linger, "torch": torch, "model": Model()}
    run(block, names, {"开始量化训练": lambda: train(names["model"])})
    model = names["model"].eval()
    linger.onnx.export(model, torch.randn(1, 1, 8, 8), "model.onnx")
    x = torch.randn(1, 1, 8, 8)
    (out,) = linger.onnx.OnnxRunner("model.onnx").run(x).values()
    assert torch.equal(torch.from_numpy(out), model(x).detach())


@pytest.mark.parametrize("document", [TWO_STAGES, CALIBRATION], ids=["two stages", "calibration"])
def test_configuration_listing_is_a_valid_file(folder, document):
    for number, listing in enumerate(document.split("* 基础配置\n")[1:]):
        text = yaml_of("* 基础配置\n" + listing)
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
        settings = linger.settings.load(f"{number}.yaml")
        assert (settings.platform, settings.quant_info.qat_method, settings.seed) == ("venusA", "MOM", 42)
        assert settings.clamp_info == linger.settings.ClampInfo(8, None, 7, None)


@pytest.mark.parametrize("stage", ["init", "constrain"])
@pytest.mark.parametrize("kind", ["disable_module", "disable_submodel"])
def test_leaving_layers_out(folder, stage, kind):
    (folder / "cfg.yaml").write_text(yaml_of(CALIBRATION), encoding="utf-8")
    names = {"linger": linger, "nn": nn, "model": Model()}
    assignment = re.search(rf"\* '?({kind} = \(.*?\))", CALIBRATION)[1].replace("module_name", "classifier")
    call = re.search(rf"model = linger\.{stage}\(model, [^()]*{kind}[^()]*\)", CALIBRATION)[0]
    exec(f"{assignment}\n{call}", names)
    kinds = layers(names["model"])
    assert kinds["classifier.0"] == kinds["classifier.2"] == "Linear"
    assert kinds["conv"] != "Conv2d"
    train(names["model"], 1)
