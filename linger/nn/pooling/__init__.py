"""Averages and maxima over windows and axes, and the places of maxima."""

from . import argmax, average, maximum, of_two, pool_nodes  # noqa: F401  for the tables they fill
