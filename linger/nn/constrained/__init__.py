"""The constrained stage: float layers whose parameters and results are clamped in every forward."""

from . import attention, fused, recurrent  # noqa: F401  for the tables they fill
