"""What a user does first, with an installed wheel: run by `make test-wheel` in an environment that has no compiler.

Not collected by pytest: it runs outside the checkout, with the wheel, torch and onnx alone.
"""

import importlib.metadata
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

warnings.simplefilter("error")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import linger  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.sigmoid(x + x).mean(3).transpose(1, 2)
        return torch.softmax(self.head(self.lstm(x)[0]), -1)


def check_environment():
    for tool in ("cc", "gcc", "c++", "g++", "clang"):
        assert shutil.which(tool) is None, f"the test is to run without a compiler, but {tool} is in PATH"
    installed = importlib.metadata.version("linger-qat")
    assert installed == linger.__version__
    assert "site-packages" in linger.__file__, linger.__file__
    assert (Path(linger.__file__).parent / "py.typed").exists()
    loaded = Path("/proc/self/maps")
    if loaded.exists():
        yaml = re.findall(r"\S*libyaml\S*", loaded.read_text())
        assert not yaml, f"the extension has loaded {yaml[0]}; libyaml must be inside it"


def check_path_of_a_model(folder):
    torch.manual_seed(0)
    config = folder / "config.yaml"
    linger.config_save_to_yaml(config)
    config.write_text(re.sub(r"\bseed: 42.*\n", "", config.read_text()))  # nothing is seeded: nothing to say
    x = torch.randn(4, 1, 8, 6)
    model = linger.constrain(Net(), config_file=config, example_inputs=x)
    model(x).sum().backward()
    weights = model.state_dict()
    model = linger.init(Net(), config_file=config, example_inputs=x)
    model.load_state_dict(weights)
    with linger.calibration(model):
        model(x)
    model.train()
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    want = model.eval()(x[:1]).detach()
    linger.save(model, folder / "model.pt")
    again = linger.load(Net(), folder / "model.pt").eval()
    assert torch.equal(again(x[:1]), want)
    linger.onnx.export(model, x[:1], folder / "model.onnx")
    (got,) = linger.onnx.OnnxRunner(folder / "model.onnx").run(x[:1].numpy()).values()
    assert np.array_equal(got, want.numpy())
    assert linger.check(folder / "model.onnx").platform == "venusA"


def check_refusals(folder):
    bad = folder / "bad.yaml"
    bad.write_text("platforms: arcs\n")
    try:
        linger.init(Net(), config_file=bad)
    except linger.ConfigError as error:
        assert "did you mean platform" in str(error)
    else:
        raise AssertionError("an unknown key was taken")


def check_dopt():
    import dopt

    assert dopt.__file__


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_environment()
        check_path_of_a_model(Path(folder))
        check_refusals(Path(folder))
        check_dopt()
    print(f"linger {linger.__version__} works with Python {sys.version.split()[0]} and torch {torch.__version__}")


if __name__ == "__main__":
    main()
