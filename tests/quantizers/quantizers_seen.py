"""What the tests of quantizers share: known tensors, quantizers that have seen them, and how one looks before and after."""

import torch

from linger.quantizers import Quantizer

METHODS = ["MOM", "TQT"]


def range_of(quantizer: Quantizer) -> float:
    return float(quantizer.running_data) if quantizer.method == "MOM" else 2.0 ** quantizer.learning_data.item()


def spread(largest: float, n: int = 20) -> torch.Tensor:
    """Magnitudes largest, largest - 1, ... with alternating signs among 500 elements: the 10th largest is largest - 9."""
    some = (largest - torch.arange(n, dtype=torch.float32)) * (1 - 2 * (torch.arange(n) % 2))
    return torch.cat((some, torch.zeros(500 - n)))


def assert_untouched(quantizer: Quantizer) -> None:
    fresh = Quantizer(8, method=quantizer.method, role=quantizer.role)
    assert all(torch.equal(v, fresh.state_dict()[k]) for k, v in quantizer.state_dict().items())


def seen(value: float, bits: int = 8, **kwargs) -> Quantizer:
    quantizer = Quantizer(bits, **kwargs)
    quantizer(torch.tensor([-value, value / 2]))
    return quantizer
