"""Checked entries to the native operators, with their gradients; one module per family."""

from linger.ops.spec import Coded, Output, Stats

__all__ = ["Coded", "Output", "Stats"]
