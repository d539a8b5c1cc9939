"""Writes that no handler knows: the format of the tensor is dropped, also where torch counts no versions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.runtime import info

WRITES = {
    "method": lambda x: x.exp_(),
    "operator": lambda x: x.__ipow__(3),
    "item": lambda x: x.__setitem__(0, 0.3) or x,
    "out": lambda x: torch.exp(x, out=x),
    "function": lambda x: F.celu(x, 0.3, True),
    "keyword": lambda x: F.elu(x, inplace=True),
    "module": nn.ELU(0.3, inplace=True),
    "scripted spelling": lambda x: torch.selu_(x),
}


class _Net(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.a, self.b, self.write = nn.Linear(4, 4), nn.Linear(4, 4), write

    def forward(self, x):
        y = self.a(x)
        self.write(y)
        self.written = info(y)
        return self.b(y)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("case", WRITES)
def test_an_unhandled_write_drops_the_format(case, mode):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    model = linger.init(_Net(WRITES[case]))
    with torch.no_grad():
        model.train()(x)
        want = model.eval()(x)
    with mode():
        got = model(x.clone())
    assert model.written is None
    assert torch.equal(got, want)


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        first = self.a(x)
        return first + self.b(x.mul_(2.0) if x.is_inference() and self.write else x)

    write = False


def test_a_source_is_quantized_once_in_inference_mode_too():
    torch.manual_seed(0)
    x = torch.randn(8, 6)
    model = linger.init(_Twice())
    model.train()(x)
    model.b.input_quantizer.set_range(torch.tensor(64.0))  # unused: the first consumer's scale counts
    model.eval()
    with torch.no_grad():
        want = model(x)
    with torch.inference_mode():
        assert torch.equal(model(x.clone()), want)
        model.write = True
        assert not torch.equal(model(x.clone()), want)


def test_one_warning_lists_every_quantizer_without_data(recwarn):
    model = linger.init(_Twice()).eval()
    for _ in range(2):
        model(torch.randn(2, 6))
    (said,) = [str(w.message) for w in recwarn if "no data" in str(w.message)]
    assert (
        "'a.input_quantizer', 'a.output_quantizer', 'b.output_quantizer', '_linger_qtensor_qadd_0.output_quantizer'"
        in said
    )
    assert recwarn[0].filename == __file__


def test_example_inputs_do_not_use_up_the_warning():
    model = linger.init(_Twice(), example_inputs=torch.randn(2, 6)).eval()
    with pytest.warns(UserWarning, match="have seen no data yet: 'a.input_quantizer', 'a.output_quantizer'"):
        model(torch.randn(2, 6))
