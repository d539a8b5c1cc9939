"""Transposed convolutions in every parameter of torch, on every chip, from module to file."""

import pytest
import torch
from torch import nn

from tests.nn.same import PLATFORMS, assert_same_everywhere


class Net(nn.Module):
    def __init__(self, layer, flat):
        super().__init__()
        self.first, self.layer = (nn.Conv1d if flat else nn.Conv2d)(2, 4, 1), layer

    def forward(self, x):
        return self.layer(self.first(x))


CASES = {
    "stride": lambda: nn.ConvTranspose2d(4, 3, 4, 2, 1),
    "groups": lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, (1, 0), (1, 0), groups=2),
    "depthwise, no bias": lambda: nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4, bias=False),
    "dilation": lambda: nn.ConvTranspose2d(4, 3, (3, 2), 1, 1, dilation=(2, 3)),
    "dilation and groups": lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2, dilation=2),
    "kernel below stride": lambda: nn.ConvTranspose2d(4, 3, 2, 4),
    "1-D, groups": lambda: nn.ConvTranspose1d(4, 4, 4, 2, 1, groups=2),
    "1-D, dilation": lambda: nn.ConvTranspose1d(4, 3, 3, 2, dilation=2, output_padding=1),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_transposed_convolution(case, platform, tmp_path):
    torch.manual_seed(0)
    flat = case.startswith("1-D")
    shape = (1, 2, 7) if flat else (1, 2, 5, 6)
    nodes = assert_same_everywhere(Net(CASES[case](), flat), [(torch.randn(shape),)] * 2, tmp_path, platform)
    if platform == "venus":  # whose engine packs no transposed convolution: zeros in between, then a convolution
        assert "ConvTranspose2dInt" not in nodes and "Conv2dInt" in nodes
    else:
        assert nodes.count("ConvTranspose2dInt") == 1


def test_zeros_in_the_place_of_groups_and_gaps():
    import torch.nn.functional as F

    from linger.nn.layers.conv_transpose import without_gaps, without_groups

    x = torch.randint(-9, 9, (1, 6, 5, 4)).double()
    w = torch.randint(-9, 9, (6, 2, 3, 2)).double()
    for groups in (1, 2, 3, 6):
        for dilation in ((1, 1), (2, 1), (3, 2)):
            want = F.conv_transpose2d(x, w, stride=2, groups=groups, dilation=dilation)
            dense = torch.from_numpy(without_gaps(without_groups(w.numpy(), groups), dilation))
            assert torch.equal(F.conv_transpose2d(x, dense, stride=2), want)
