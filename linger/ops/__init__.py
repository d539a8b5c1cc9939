"""Checked entries to the native operators, with their gradients; one module per family."""

from linger.ops.activation import activation, activation_codes, chip_function, quantized_activation
from linger.ops.affine import affine, affine_bias
from linger.ops.batch_norm import batch_norm
from linger.ops.bmm import bmm, bmm_codes
from linger.ops.cat import cat
from linger.ops.checks import fake_kernel, transformed
from linger.ops.clamp import clamp, clamp_weight
from linger.ops.conv import Convolution, Geometry, conv, conv_codes
from linger.ops.conv_transpose import Spacing, conv_transpose
from linger.ops.div import div, div_codes
from linger.ops.elementwise import add, add_codes, requant_codes, scale_bias_codes, sub, sub_codes
from linger.ops.fake_quantize import fake_quantize, fake_quantize_weight
from linger.ops.float_conv import conv2d as float_conv2d
from linger.ops.fold_bn import fold_bn
from linger.ops.glu import glu, glu_codes
from linger.ops.layer_norm import layer_norm, layer_norm_codes
from linger.ops.least_error import N_EXPONENTS, least_error_step, squared_errors
from linger.ops.linear import linear, linear_codes
from linger.ops.mul import mul, mul_codes
from linger.ops.pool import avg_pool, avg_pool_codes, max_pool_codes
from linger.ops.quantize import codes_of, dequantize, quantize, quantize_bias, quantize_codes, quantize_weight
from linger.ops.relu import relu
from linger.ops.replay import free_program, make_program, operator_number, run_program
from linger.ops.softmax import chip_softmax, softmax, softmax_codes
from linger.ops.spec import Coded, Output, Stats
from linger.ops.weighted import KeptWeight

__all__ = [
    "N_EXPONENTS",
    "Coded",
    "Convolution",
    "Geometry",
    "KeptWeight",
    "Output",
    "Spacing",
    "Stats",
    "activation",
    "activation_codes",
    "add",
    "add_codes",
    "affine",
    "affine_bias",
    "avg_pool",
    "avg_pool_codes",
    "batch_norm",
    "bmm",
    "bmm_codes",
    "cat",
    "chip_function",
    "chip_softmax",
    "clamp",
    "clamp_weight",
    "codes_of",
    "conv",
    "conv_codes",
    "conv_transpose",
    "dequantize",
    "div",
    "div_codes",
    "fake_kernel",
    "fake_quantize",
    "fake_quantize_weight",
    "float_conv2d",
    "fold_bn",
    "free_program",
    "glu",
    "glu_codes",
    "layer_norm",
    "layer_norm_codes",
    "least_error_step",
    "linear",
    "linear_codes",
    "make_program",
    "max_pool_codes",
    "mul",
    "mul_codes",
    "operator_number",
    "quantize",
    "quantize_bias",
    "quantize_codes",
    "quantize_weight",
    "quantized_activation",
    "relu",
    "requant_codes",
    "run_program",
    "scale_bias_codes",
    "softmax",
    "softmax_codes",
    "squared_errors",
    "sub",
    "sub_codes",
    "transformed",
]
