"""A training step reads no number back to the host: it runs on tensors that have none. (On a GPU every read would be a wait.)"""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

import linger
from linger.ops import checks


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv1(x)))
        x = torch.cat([self.conv2(x) + x, x * x], 1)[:, :8]
        return torch.softmax(self.fc(self.pool(x).flatten(1)), -1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, num_layers=2)
        self.gru = nn.GRU(5, 4, bidirectional=True)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        return torch.sigmoid(self.fc(self.norm(x)))


CASES = [(Convolutional, (4, 3, 8, 8), "venusA"), (Recurrent, (7, 2, 6), "venusA"), (Recurrent, (7, 2, 6), "arcs")]


@pytest.fixture
def mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def emptied(mode: FakeTensorMode, t: Tensor) -> FakeTensor:
    """A tensor of this kind without numbers."""
    with mode:
        meta = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
    return FakeTensor(mode, meta, torch.device("cpu"))


def emptied_model(mode: FakeTensorMode, model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                fake = nn.Parameter(emptied(mode, parameter.detach()), requires_grad=parameter.requires_grad)
                module._parameters[name] = fake
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = emptied(mode, buffer)


@pytest.mark.parametrize(("kind", "shape", "platform"), CASES)
@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_a_training_step_reads_no_number(kind, shape, platform, method, mode, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    model = linger.init(kind(), config_file=str(config)).train()
    x = torch.randn(shape)
    model(x).sum().backward()  # operators of user code exist
    monkeypatch.setattr(checks, "check_device", lambda op, x: None)
    emptied_model(mode, model)
    with mode:
        y = model(emptied(mode, x))
        y.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "weight" in name.rpartition(".")[2])


def test_a_read_would_be_noticed(mode):
    with mode, pytest.raises(DataDependentOutputException, match="local_scalar_dense"):
        float(emptied(mode, torch.ones(())))
