"""Activations and functions of one tensor: the chips' own, and what is put together from their operators."""
