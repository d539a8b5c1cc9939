"""Activations and functions of one tensor: the chips' own, and what is put together from their operators."""

from . import clamp, function_nodes, gelu, glu, hard_sigmoid, leaky_relu, relu, sigmoid, softmax  # noqa: F401  for the tables they fill
