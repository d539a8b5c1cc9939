"""The constrained stage: float layers whose parameters and results are clamped in every forward."""
