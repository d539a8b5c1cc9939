"""``open_quant: false`` in a section: its layers and operators of user code stay in float, the others keep their names."""

import io

import pytest
import torch
from torch import nn

import linger


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        a, b = self.one(x), self.two(x)
        return torch.cat([a + b, a], 1) * torch.cat([b, b - a], 1)


SECTION = """
floats:
  name: [_linger_qtensor_qcat_1, two]
  open_quant: false
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SECTION)
    return str(path)


def test_only_what_the_section_names_stays_in_float(config, caplog):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    model = linger.init(Net(), config_file=config)
    with linger.calibration():
        model(x)
    assert [n for n in model._modules if n.startswith("_linger")] == [
        f"_linger_qtensor_q{op}" for op in ("add_0", "sub_2", "cat_3", "mul_4")
    ]
    assert type(model.two).__name__ == "Linear" and type(model.one).__name__ == "LinearInt"
    assert "two" not in caplog.text  # the user's wish is no warning
    assert [i.operator for i in linger.runtime.islands_of(model)] == ["cat"]
    assert linger.summary(model).to_dict()["layers"][1]["note"] == "open_quant: false in its section"


def test_checkpoints_know_it(config):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    model = linger.init(Net(), config_file=config)
    with linger.calibration():
        model(x)
    file = io.BytesIO()
    linger.save(model, file)
    file.seek(0)
    linger.settings.use(linger.settings.defaults())
    again = linger.load(Net(), file)
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert sorted(again.state_dict()) == sorted(model.state_dict())
    text = linger.settings.dumps(model._linger_settings)
    assert linger.settings.loads(text).layer("two").open_quant is False


def test_files_have_it_in_float(config, tmp_path):
    model = linger.init(Net(), config_file=config, example_inputs=torch.randn(2, 4))
    with linger.calibration():
        model(torch.randn(8, 4))
    x = torch.randn(2, 4)
    linger.onnx.export(model.eval(), x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(str(tmp_path / "m.onnx")).run(x.numpy()).values()
    assert torch.equal(torch.from_numpy(got), model(x))


def test_errors_name_the_place(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("part:\n  name: [one]\n  open_quant: maybe\n")
    with pytest.raises(linger.ConfigError, match=r"part.open_quant: must be true or false"):
        linger.init(Net(), config_file=str(path))
