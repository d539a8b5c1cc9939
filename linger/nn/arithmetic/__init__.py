"""Sums, differences, products and quotients of tensors and numbers; matrix products; sums over axes."""

from . import add_nodes, bmm, bmm_nodes, div, div_nodes, mul, mul_nodes, sub, sub_nodes, sums  # noqa: F401  for the tables they fill
