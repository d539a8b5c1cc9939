"""One row per chip. A new chip is a new row."""

from __future__ import annotations

from dataclasses import dataclass, replace

PLATFORM_NAMES = ("arcs", "mars", "venusA", "venus")
KIB = 1024
MAX_SHIFT = 63
MAX_LEFT_BITS = 6  # the engines shift left by multiplying with an int8 power of two
SWAP_INNER = (0, 2, 1, 3)
# orders of axes that the engines move, as the recorded models hold them
_TRANSPOSES = frozenset({(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1), (1, 0, 2)})


@dataclass(frozen=True)
class Limits:
    """What a chip's engines take and where their arithmetic differs.

    Args:
        file_name: Value of the ``platform`` attribute in files; mars is written as arcs.
        family: Chip whose cells of ``OPERATORS`` and functions of ``CURVES`` hold where it has none of its own.
        formulas: Row of the native formulas: the argument ``chip`` of ``linger.ops``.
        max_kernel: Largest kernel per axis of a 2-D convolution with dilation 1.
        max_kernel_dilated: Largest kernel per axis of 1-D, dilated and transposed convolutions.
        max_pad: Largest padding per side.
        dilations: Dilations the engine has.
        conv_row_bytes: Size of the input row buffer, ``align(C) * ceil(W / 8 sw) * 8 sw * kh`` bytes; ``row_align`` aligns C.
        conv_row_bytes_depthwise: The same for depthwise convolutions.
        row_align: Channels of the row buffer, and output channels of packed 4-bit weights, are padded to a multiple of this.
        depthwise_bytes: Largest ``align(C, depthwise_align) * kh * kw`` of a depthwise weight; 0 = not limited.
        depthwise_align: Alignment of the channels in that product.
        filter_bytes: Largest ``align(C, 8) * kh * kw`` of one output channel of a dense weight; 0 = not limited.
        max_pool_kernel: Largest kernel of a max pooling per axis.
        max_pool_pad: Largest padding of a max pooling per side; 0 = the kernel's.
        bmm_bytes: Largest second matrix of a BmmInt, K aligned to 8 times N aligned to 4; 0 = not limited.
        shared_bytes: Shared memory: activations, scratch and the parameters of the running layer.
        psram_bytes: External memory: all parameters.
        batched: Convolution and average pooling compute every sample of a batch, not only the first.
        conv4: Convolutions with 4-bit weights.
        linear4: Linear layers with 4-bit weights.
        div_scales: iqDiv of 32-bit tensors shifts by their scales (True), ignores them (False), or does not exist (None).
        wide_left: A 32-bit result may be finer than its sum: ``sat_32(A) * 2**-s``.
        norm_left: BatchNorm2dInt shifts left for s < 0.
        cat_right: iqCat narrows inputs of a larger scale.
        pool_double: AvgPool2dInt, partial window, power of two: rescales the sum first, then divides.
        pool_divider: AvgPool2dInt, other windows: the divider takes a finer output scale along.
        pool_ignores: AvgPool2dInt, power of two: a scale change is ignored.
        pool_whole_scratch: AvgPool2dInt over the whole input reserves ``4 * C`` bytes of scratch where H * W are needed.
        argmax_bits: Widths of the inputs of ArgMax.
        norm_bits: Width of LayerNormInt's normalised value before gamma.
        norm_least: Fewest elements that LayerNormInt normalises together.
        gamma_bits: Width in which LayerNormInt's gamma is stored; 16 whatever the configured one.
        transposes: Orders of axes that one Transpose has.
        mul_constant_bits: Widths of a constant factor of iqMul.
        sigmoid_bits, tanh_bits: Widths of the operand of iqSigmoid and iqTanh.
        curve_exp2: Smallest and largest exponent of their operand.
        curve_finest: Smallest exponent that a 16-bit operand is written with; None: any.
        softmax_axis: SoftmaxInt works on the axis that it names; False: it takes every axis from 0 on for axis 1.
        glu_shift: Lowest shift of GluInt; below 0: to the left.
        cell_exp2, cell_bits: Format of an LSTM's cell state.
        lstm_sum_exp2, gru_sum_exp2: Smallest exponent of the sums of both matrices.
        lstm_state_exp2, gru_state_exp2: Largest exponent of output and state.
        recurrent_batch_first: Value of the attribute ``batch_first``.
        gru_resets_first: The reset gate is applied to the state before the recurrent product, not to the product.
        gru_updates_new: The update gate weighs the candidate, not the old state.

    Source: docs/numerics.md, "Chips".
    """

    file_name: str
    family: str
    formulas: int
    max_kernel: int
    max_kernel_dilated: int
    max_pad: int
    dilations: tuple[int, ...]
    conv_row_bytes: int
    conv_row_bytes_depthwise: int
    row_align: int
    depthwise_bytes: int
    depthwise_align: int
    filter_bytes: int
    max_pool_kernel: int
    max_pool_pad: int
    bmm_bytes: int
    shared_bytes: int
    batched: bool
    conv4: bool
    linear4: bool
    argmax_bits: tuple[int, ...]
    div_scales: bool | None
    wide_left: bool
    norm_left: bool
    cat_right: bool
    pool_double: bool
    pool_divider: bool
    pool_ignores: bool
    pool_whole_scratch: bool
    softmax_axis: bool
    glu_shift: int
    transposes: frozenset[tuple[int, ...]] = _TRANSPOSES | {SWAP_INNER}
    mul_constant_bits: tuple[int, ...] = (8, 16)
    sigmoid_bits: tuple[int, ...] = (8,)
    tanh_bits: tuple[int, ...] = (8, 16)
    curve_exp2: tuple[int, int] = (-3, 27)
    curve_finest: int | None = None
    cell_exp2: int = 15
    cell_bits: int = 32
    lstm_sum_exp2: int = -3
    gru_sum_exp2: int = -3
    lstm_state_exp2: int = 23
    gru_state_exp2: int = 23
    recurrent_batch_first: bool = False
    gru_resets_first: bool = False
    gru_updates_new: bool = False
    strides: tuple[int, ...] = (1, 2, 4)
    norm_bits: int = 32
    norm_least: int = 1
    gamma_bits: int = 8
    psram_bytes: int = 8 * KIB * KIB
    pool_row_bytes: int = 64 * KIB  # align8(C) * H * ceil(W / 8 sw) * 8 sw of an average pooling, on every chip


_ARCS = Limits(
    file_name="arcs",
    family="arcs",
    formulas=0,
    max_kernel=5,
    max_kernel_dilated=12,
    max_pad=11,
    dilations=(1, 2, 4, 8),
    conv_row_bytes=16 * KIB,
    conv_row_bytes_depthwise=16 * KIB,
    row_align=2,
    depthwise_bytes=8 * KIB,
    depthwise_align=8,
    filter_bytes=4 * KIB,
    max_pool_kernel=12,
    max_pool_pad=0,
    bmm_bytes=0,
    shared_bytes=384 * KIB,
    batched=False,
    conv4=True,
    linear4=True,
    argmax_bits=(8, 32),
    div_scales=True,
    wide_left=True,
    norm_left=False,
    cat_right=True,
    pool_double=True,
    pool_divider=False,
    pool_ignores=False,
    pool_whole_scratch=True,
    softmax_axis=False,
    glu_shift=0,
    gru_resets_first=True,
)

LIMITS: dict[str, Limits] = {
    "arcs": _ARCS,
    "mars": _ARCS,
    "venusA": replace(
        _ARCS,
        file_name="venusA",
        family="venusA",
        formulas=1,
        conv_row_bytes=64 * KIB,
        conv_row_bytes_depthwise=32 * KIB,
        row_align=4,
        depthwise_bytes=0,
        filter_bytes=0,
        linear4=False,
        argmax_bits=(8, 16, 32),
        div_scales=False,
        cat_right=False,
        softmax_axis=True,
        glu_shift=-31,
        transposes=_TRANSPOSES,
        gru_resets_first=False,
    ),
    "venus": Limits(
        file_name="venus",
        family="venus",
        formulas=2,
        max_kernel=5,
        max_kernel_dilated=5,
        max_pad=4,
        dilations=(1,),
        conv_row_bytes=64 * KIB,
        conv_row_bytes_depthwise=32 * KIB,
        row_align=2,
        depthwise_bytes=32 * KIB,
        depthwise_align=16,
        filter_bytes=0,
        max_pool_kernel=5,
        max_pool_pad=4,
        bmm_bytes=32 * KIB,
        shared_bytes=640 * KIB,
        batched=True,
        conv4=False,
        linear4=False,
        argmax_bits=(8,),
        div_scales=None,
        wide_left=False,
        norm_left=True,
        cat_right=True,
        pool_double=False,
        pool_divider=True,
        pool_ignores=True,
        pool_whole_scratch=False,
        softmax_axis=False,
        glu_shift=0,
        mul_constant_bits=(8, 16, 32),
        sigmoid_bits=(16,),
        tanh_bits=(16,),
        curve_exp2=(-19, 74),
        curve_finest=11,
        cell_exp2=7,
        cell_bits=16,
        lstm_sum_exp2=-19,
        gru_sum_exp2=11,
        lstm_state_exp2=14,
        gru_state_exp2=15,
        recurrent_batch_first=True,
        gru_updates_new=True,
        norm_bits=16,
        norm_least=4,
        gamma_bits=16,
    ),
}


def limits_of(platform: str) -> Limits:
    """Limits of a chip.

    Raises:
        ValueError: Unknown platform.
    """
    if platform not in LIMITS:
        raise ValueError(f"platform must be one of {', '.join(sorted(LIMITS))}, got {platform!r}")
    return LIMITS[platform]


def file_platform(platform: str) -> str:
    """Name of a chip as files carry it (the packer knows no mars)."""
    return limits_of(platform).file_name
