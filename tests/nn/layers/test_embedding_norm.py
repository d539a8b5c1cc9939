"""``max_norm`` of an embedding holds in every mode, in both stages and in the file."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner


@pytest.mark.parametrize("first", ["train", "eval", "calibration"])
@pytest.mark.parametrize(
    ("max_norm", "norm_type"), [(1.0, 2.0), (0.25, 2.0), (2.0, 1.0), (0.5, float("inf")), (100.0, 2.0)]
)
def test_rows_are_as_short_as_torch_makes_them(max_norm, norm_type, first, tmp_path):
    torch.manual_seed(0)
    table = torch.randn(20, 8)
    wanted = nn.Embedding(20, 8, max_norm=max_norm, norm_type=norm_type, _weight=table.clone())
    model = linger.init(
        nn.Sequential(nn.Embedding(20, 8, max_norm=max_norm, norm_type=norm_type, _weight=table.clone()))
    )
    some = torch.tensor([[3, 5, 3]])
    if first == "train":
        model.train()(some)
    elif first == "calibration":
        with linger.calibration(model):
            model(some)
    else:
        model.eval()
        with pytest.warns(UserWarning, match="seen no data"):
            model(some)
    every = torch.arange(20)[None]
    if first == "eval":
        model.train()(every)
    got = model.eval()(every).detach()
    step = 1 / float(model[0].weight_quantizer.scale)
    norms = got.norm(norm_type, dim=-1)
    assert norms.max() <= max_norm + 8 * step
    assert (got - wanted(every).detach()).abs().max() <= 4 * step
    linger.onnx.export(model, some, tmp_path / "m.onnx")
    found = next(iter(OnnxRunner(tmp_path / "m.onnx").run(every.numpy()[:, :3]).values()))
    assert np.array_equal(found, got[:, :3].numpy())
