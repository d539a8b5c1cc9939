"""Maximum pooling of codes against torch's, on every layout."""

import pytest
import torch
import torch.nn.functional as F

from linger import ops
from linger.ops.pool import max_pool_codes


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads"),
    [
        ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
        ((2, 3, 7, 9), (2, 2), (2, 2), (0, 0, 0, 0)),
        ((1, 33, 8, 5), (3, 3), (2, 1), (1, 1, 1, 1)),
        ((2, 16, 6, 6), (5, 2), (3, 4), (2, 0, 5, 2)),
        ((1, 2, 4, 4), (2, 2), (2, 2), (2, 2, 2, 2)),
    ],
)
def test_is_torchs_maximum(dtype, layout, shape, kernel, stride, pads):
    info = torch.iinfo(dtype)
    x = torch.randint(info.min, info.max, shape, dtype=torch.int64, generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    x = x.to(memory_format=layout)
    top, left, bottom, right = pads
    padded = F.pad(x.double(), (left, right, top, bottom), value=float(info.min))
    want = F.max_pool2d(padded, kernel, stride).to(dtype)
    got = max_pool_codes(x, kernel, stride, pads)
    assert got.dtype == dtype and torch.equal(got, want)
    assert got.is_contiguous(memory_format=layout)


def test_refusals_and_fake_kernel():
    x = torch.zeros(1, 1, 3, 3, dtype=torch.int8)
    with pytest.raises(ValueError, match="kernel 4 is larger than the padded input, 3"):
        max_pool_codes(x, (4, 1), (1, 1), (0, 0, 0, 0))
    with pytest.raises(TypeError, match="max_pool_codes: x"):
        max_pool_codes(x.float(), (1, 1), (1, 1), (0, 0, 0, 0))
    args = ([2, 2], [1, 1], [0, 0, 0, 0])
    torch.library.opcheck(torch.ops.linger.max_pool_codes.default, (x, *args))
    assert ops.max_pool_codes is max_pool_codes
