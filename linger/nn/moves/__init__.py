"""Operators that move codes and change none: shapes, pieces, copies, padding, cat; and changes of scale or width."""

from . import assign, cat, cat_nodes, copies, pieces, quant_nodes, shape, shape_nodes  # noqa: F401  for the tables they fill
