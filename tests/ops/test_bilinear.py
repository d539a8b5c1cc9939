"""What convolution and linear share: a batch with a NaN shows at once and leaves the parameters unharmed."""

import pytest
import torch
from torch import nn

import linger

NETS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 2, 5, 5)),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (3, 4)),
}


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_behind_a_nan_are_zero(name, method, tmp_path):
    torch.manual_seed(0)
    make, shape = NETS[name]
    (tmp_path / "c.yaml").write_text(f"quant_info: {{qat_method: {method}}}\n")
    model = linger.init(make(), str(tmp_path / "c.yaml"))
    x = torch.randn(shape)
    model.train()(x)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    x.view(-1)[1] = float("nan")
    x.requires_grad_()
    y = model(x)
    assert y.isnan().all()
    y.square().sum().backward()  # the loss and its gradient are NaN
    for key, p in model.named_parameters():
        assert p.grad is None or torch.equal(p.grad, torch.zeros_like(p)), key
    assert torch.equal(x.grad, torch.zeros_like(x))
    after = model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items() if "weight" not in k)


def test_a_nan_in_a_bias_reaches_no_other_gradient():
    torch.manual_seed(0)
    model = linger.init(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    x = torch.randn(3, 4)
    model.train()(x)
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    y = model(x)
    assert y.isnan().all()
    y.sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())
