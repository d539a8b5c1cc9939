"""Names a configuration may use, as enumerations (3.x names and values)."""

from enum import Enum, IntEnum

__all__ = [
    "ActivationType",
    "FakeQuantMethod",
    "PlatForm",
    "PlatFormQuant",
    "QatMethod",
    "QuantMethod",
    "QuantMode",
    "QuantStrategy",
]


class PlatForm(Enum):
    """Chips. `jupiter` is a name only: no kernels exist for it."""

    venus = 1
    mars = 2
    arcs = 3
    venusA = 4  # noqa: N815  the chip's published spelling
    jupiter = 5


class PlatFormQuant(Enum):
    """Classic name of the chips' arithmetic; the only member."""

    luna_quant = 1


class ActivationType(Enum):
    """Activation that follows a layer."""

    none = 1
    Relu = 2
    LeakRelu = 3
    ReluX = 4
    Sigmoid = 5
    Tanh = 6


class QuantMode(IntEnum):
    """Rounding of a quantizer. The values are those the C kernels take.

    `QValue` is the only member of the classic enumeration; it is another name of `floor_add`.
    """

    floor = 0
    floor_add = 1
    round = 2
    ceil = 3
    QValue = 1


class QuantStrategy(Enum):
    """How an exponent follows from data: `RANGE_MEAN` and `LEAST_ERROR` (ours) are implemented, the others are 3.x names."""

    MSE = 1
    RANGE_MEAN = 2
    NSTD = 3
    HIST = 4
    KLD = 5
    TQT = 6
    LEAST_ERROR = 7


class FakeQuantMethod(Enum):
    """Implementations of fake quantization that 3.x names."""

    NATIVE = 1
    CUDA = 2
    COMPILE = 3
    TRITON = 4
    CUDA_GS = 5


class QuantMethod(Enum):
    """Values of the key `quant_method`: those of `FakeQuantMethod`, and `ONNX`."""

    NATIVE = 1
    CUDA = 2
    COMPILE = 3
    TRITON = 4
    CUDA_GS = 5
    ONNX = 6


class QatMethod(Enum):
    """Quantization-aware training methods: trained thresholds, or moving maximum."""

    TQT = 1
    MOM = 2
